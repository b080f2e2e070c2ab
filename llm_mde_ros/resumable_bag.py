"""
A rosbag2 in mcap that a killed process can go on writing.

Until it is complete everything lies in a folder `<name>.unfinished` beside the final one:

    progress.json     what was asked for, the position in the source, metadata of complete parts
    bag/              complete parts: <name>_0.mcap, <name>_1.mcap, ...
    <name>_2/         the part that is being written; thrown away after a kill

When the last part is complete, bag/ gets its metadata.yaml and is renamed to the final name.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
import shutil
from typing import Any

from rosbags.rosbag2 import Writer
from ruamel.yaml import YAML

from llm_mde_ros.bags import create_bag

INFORMATION = 'rosbag2_bagfile_information'


def check_new(out: Path | str) -> Path:
    """Return the absolute path; ValueError when something has this name already."""
    out = Path(out).absolute()
    if os.path.lexists(out):
        raise ValueError(f'{out} exists already; choose another name or remove it.')
    return out


class ResumableBag:
    """
    Write parts, then publish all of them as one bag.

    `job` says what is being made, as JSON. A folder that was begun for another job raises
    ValueError, as does one that another process is writing.
    """

    def __init__(self, out: Path | str, *, job: dict[str, Any]) -> None:
        self.out = check_new(out)
        self.folder = self.out.with_name(self.out.name + '.unfinished')
        self._parts_folder = self.folder / 'bag'
        self._parts_folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / 'lock').open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._progress = self._load(job)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(f'Another process is writing {self.folder}.') from None
        except ValueError:
            self._lock.close()
            raise

    def __enter__(self) -> ResumableBag:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def position(self) -> int:
        """Return how many messages of the source the complete parts have used up."""
        return self._progress['position']

    @property
    def counters(self) -> dict[str, Any]:
        """Return what was kept with the last complete part."""
        return dict(self._progress['counters'])

    def begin_part(self) -> Writer:
        """Return the writer of the next part; an unfinished attempt at it is removed."""
        folder = self.folder / f'{self.out.name}_{len(self._progress["parts"])}'
        shutil.rmtree(folder, ignore_errors=True)
        writer = create_bag(folder)
        writer.open()
        return writer

    def complete_part(self, writer: Writer, *, position: int, counters: dict[str, Any]) -> None:
        """
        Close the part and record that the source is used up to this position.

        A part without messages is left out: it has no time.
        """
        writer.close()
        part = writer.path / f'{writer.path.name}.mcap'
        metadata = YAML(typ='safe').load((writer.path / 'metadata.yaml').read_text())
        if metadata[INFORMATION]['message_count']:
            _flush(part)
            part.replace(self._parts_folder / part.name)
            self._progress['parts'].append(metadata[INFORMATION])
        shutil.rmtree(writer.path)
        self._progress.update(position=position, counters=counters)
        self._save()

    def publish(self, *, about: dict[str, Any]) -> None:
        """Give the complete bag its final name; `about` goes into its custom data."""
        merged = merge_metadata(self._progress['parts'])
        merged['custom_data'] = {'llm_mde_ros': json.dumps(about)}
        yaml = YAML(typ='safe')
        yaml.default_flow_style = False
        with (self._parts_folder / 'metadata.yaml').open('w') as stream:
            yaml.dump({INFORMATION: merged}, stream)
        _flush(self._parts_folder / 'metadata.yaml')
        self._parts_folder.rename(check_new(self.out))
        _flush(self.out.parent)
        shutil.rmtree(self.folder)

    def discard(self) -> None:
        """Remove everything that was written."""
        shutil.rmtree(self.folder)

    def _load(self, job: dict[str, Any]) -> dict[str, Any]:
        path = self.folder / 'progress.json'
        job = json.loads(json.dumps(job))
        new = {'job': job, 'position': 0, 'counters': {}, 'parts': []}
        progress = json.loads(path.read_text()) if path.exists() else new
        names = [name for part in progress['parts'] for name in part['relative_file_paths']]
        if not all((self._parts_folder / name).exists() for name in names):
            return new  # killed after the bag had got its name
        changed = [key for key in job if progress['job'].get(key) != job[key]]
        if changed:
            began = ', '.join(f'{key} = {progress["job"].get(key)!r}' for key in changed)
            raise ValueError(
                f'{self.folder} was begun with {began}. '
                'Repeat those options to go on, or remove the folder to start again.'
            )
        return progress

    def _save(self) -> None:
        path = self.folder / 'progress.json'
        path.with_suffix('.tmp').write_text(json.dumps(self._progress))
        _flush(path.with_suffix('.tmp'))
        path.with_suffix('.tmp').replace(path)


def merge_metadata(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the metadata of files with the same topics into that of one bag."""
    starts = [part['starting_time']['nanoseconds_since_epoch'] for part in parts]
    ends = [s + part['duration']['nanoseconds'] for s, part in zip(starts, parts, strict=True)]
    topics = [
        {**same[0], 'message_count': sum(topic['message_count'] for topic in same)}
        for same in zip(*(part['topics_with_message_count'] for part in parts), strict=True)
    ]
    return {
        **parts[0],
        'relative_file_paths': [name for part in parts for name in part['relative_file_paths']],
        'files': [file for part in parts for file in part['files']],
        'message_count': sum(part['message_count'] for part in parts),
        'starting_time': {'nanoseconds_since_epoch': min(starts)},
        'duration': {'nanoseconds': max(ends) - min(starts)},
        'topics_with_message_count': topics,
    }


def _flush(path: Path) -> None:
    """Make sure that the file or folder survives a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
