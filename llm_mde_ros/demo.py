"""
Play a bag into the real node over DDS, record what it publishes, measure and draw.

The node runs as its own process; this process is the camera and the recorder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
import importlib.util
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
import numpy as np
from rclpy.node import Node
from rclpy.serialization import deserialize_message

from llm_mde_ros.bags import BagReader, CameraTopics, find_camera_topics
from llm_mde_ros.dds_domain import spinning_node, use_own_domain
from llm_mde_ros.node_process import NodeProcess
from llm_mde_ros.picture import draw_demo
from llm_mde_ros.player import Player
from llm_mde_ros.recorder import Recorder
from llm_mde_ros.topics import DIAGNOSTICS, OUTPUTS
from llm_mde_ros.true_depth import score_frames

DEPTH_TOPIC = '/depth/image'
RECORDING = '.recording'
RESULTS = ('demo.png', 'demo.json', 'node.log')
ACTIVE_TIMEOUT_S = 180.0  # a large model on a slow disk
MATCH_TIMEOUT_S = 15.0
SILENCE_S = 10.0  # after this long without depth no more will come: DDS has lost an image
# glibc shall keep the memory of large arrays: fetching it anew slows rendering by half.
KEEP_MEMORY = {'MALLOC_MMAP_THRESHOLD_': '1000000000', 'MALLOC_TRIM_THRESHOLD_': '1000000000'}
FATES = ('published', 'skipped', 'dropped', 'unwanted', 'rate limited')  # one for each image
COUNTERS = ('received', 'skipped', 'dropped', 'processed', 'publish errors')


@dataclass(frozen=True)
class DemoOptions:
    """What to play, into which model, and where the results go."""

    bag: Path | None = None  # None: render one
    out: Path = Path('out')
    model: str = 'tiny'
    adapter: str = ''
    device: str = 'auto'
    rate: float = 1.0
    hfov_deg: float = 60.0
    image_topic: str | None = None
    camera_info_topic: str | None = None
    depth_topic: str | None = None


def run_demo(
    options: DemoOptions,
    *,
    say: Callable[[str], None] = print,
    on_frame: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """
    Make out/bag, out/demo.png and out/demo.json; return what demo.json holds.

    `on_frame` is told how many of how many images are played. Raises ValueError, OSError or
    RuntimeError with a sentence.
    """
    if not options.rate > 0.0:
        raise ValueError(f'The rate must be positive, not {options.rate:g}.')
    options.out.mkdir(parents=True, exist_ok=True)
    if options.bag:
        check_survives(options.bag, options.out)
    bag_path = options.bag or render_bag(options.out / 'demo_room', say=say)
    with BagReader(bag_path) as source:
        topics = find_camera_topics(
            source,
            image=options.image_topic,
            camera_info=options.camera_info_topic,
            depth=options.depth_topic,
        )
        remove_results(options.out)
        say(f'Playing {topics.image} of {bag_path.name} into the node, model {options.model} …')
        with TemporaryDirectory(prefix=RECORDING, dir=options.out) as folder:
            figures = play_and_record(
                source, topics, options, Path(folder, 'bag'), on_frame=on_frame
            )
            Path(folder, 'bag').replace(options.out / 'bag')
        say('Comparing and drawing …')
        report = {'bag': bag_path.resolve().name, 'model': options.model}
        report |= {'adapter': options.adapter, **figures}
        with BagReader(options.out / 'bag') as recorded:
            report['node'] = node_counters(recorded)
            report['abs_rel'] = mean_abs_rel(recorded, source, topics)
            (options.out / 'demo.json').write_text(json.dumps(report, indent=2) + '\n')
            draw_demo(
                options.out / 'demo.png',
                recorded=recorded,
                source=source,
                topics=topics,
                report=report,
            )
    return report


def check_survives(bag: Path, out: Path) -> None:
    """Raise ValueError when the bag is a result that this demonstration replaces."""
    replaced = (out / 'bag', *out.glob(f'{RECORDING}*'))
    if any(bag.resolve().is_relative_to(path.resolve()) for path in replaced):
        raise ValueError(
            f'{bag} would be replaced by the new recording: move it, or choose another folder '
            'for the results (--out).'
        )


def remove_results(out: Path) -> None:
    """Remove the results of an earlier demonstration and nothing else."""
    bag = out / 'bag'
    if bag.exists():
        foreign = [p.name for p in bag.iterdir() if p.name not in ('bag.mcap', 'metadata.yaml')]
        if foreign:
            raise ValueError(f'{bag} is not from a demonstration: it holds {foreign[0]}.')
        shutil.rmtree(bag)
    for unfinished in out.glob(f'{RECORDING}*'):
        shutil.rmtree(unfinished)
    for name in RESULTS:
        (out / name).unlink(missing_ok=True)


def render_bag(path: Path, *, say: Callable[[str], None]) -> Path:
    """Render a bag of a furnished room with the training package, once."""
    if (path / 'metadata.yaml').exists():
        return path
    if importlib.util.find_spec('llm_mde_train') is None:
        raise RuntimeError(
            'Without --bag the demonstration renders one with the training package, which is not '
            'installed: pip install -e training, or name a bag.'
        )
    say('Rendering a camera that moves through a furnished room; once, it takes a minute …')
    command = [sys.executable, '-m', 'llm_mde_train.room_bag', str(path)]
    if subprocess.run(command, env=os.environ | KEEP_MEMORY, check=False).returncode != 0:
        raise RuntimeError(f'Rendering {path} failed.')
    return path


def play_and_record(
    source: BagReader,
    topics: CameraTopics,
    options: DemoOptions,
    recorded_path: Path,
    *,
    on_frame: Callable[[int, int], None],
) -> dict[str, Any]:
    """Run the node on the bag; return the numbers of frames and the latency."""
    image = topics.image.removesuffix('/compressed') if topics.compressed else topics.image
    info = topics.camera_info or f'{image.rpartition("/")[0]}/camera_info'
    use_own_domain()
    process = NodeProcess(
        parameters=node_parameters(options, topics),
        remappings={'image': image, 'camera_info': info},
        log=options.out / 'node.log',
    )
    recorder = Recorder(recorded_path, timed_topic=DEPTH_TOPIC)
    # The node starts before this process has threads; spinning ends before the bag is closed.
    with process, recorder, spinning_node('demo_camera') as node:
        player = Player(
            node,
            source,
            topics,
            image_topic=f'{image}/compressed' if topics.compressed else image,
            info_topic=info,
        )
        record_topics(recorder, player, node)
        process.wait_until_active(node, name='/depth_node', timeout_s=ACTIVE_TIMEOUT_S)
        player.wait_for_readers(timeout_s=MATCH_TIMEOUT_S)
        player.play(rate=options.rate, recorder=recorder, on_frame=on_frame)
        wait_for_last_output(player, recorder, process)
    return figures(player, recorder)


def node_parameters(options: DemoOptions, topics: CameraTopics) -> dict[str, object]:
    """Return the parameters of the node for this bag."""
    parameters = {
        'model': options.model,
        'adapter': options.adapter,
        'device': options.device,
        'image_transport': 'compressed' if topics.compressed else 'raw',
        'hfov_deg': options.hfov_deg,
        'output_depth': 10,  # the recording shall be complete
    }
    if not topics.camera_info:
        parameters['camera_info_timeout_s'] = 0.0
    return parameters


def record_topics(recorder: Recorder, player: Player, node: Node) -> None:
    """Record all that the node publishes, and what the player sends it."""
    published = {
        node.resolve_topic_name(topic.name): topic.message_type
        for topic in (*OUTPUTS, DIAGNOSTICS)
        if topic.message_type is not None
    }
    for name, message_type in (player.topics | published).items():
        recorder.add_topic(name, message_type)
    for name, message_type in published.items():
        recorder.subscribe(node, name, message_type)


def wait_for_last_output(player: Player, recorder: Recorder, process: NodeProcess) -> None:
    """
    Wait until the node has reported what became of every image, and all its depth has arrived.

    RuntimeError when the node has ended.
    """
    while not is_complete(recorder, images=len(player.published_s)):
        process.check()
        last_s = max(recorder.last_arrival_s, player.last_publish_s)
        if time.perf_counter() - last_s > SILENCE_S:
            break
        time.sleep(0.05)
    process.check()


def is_complete(recorder: Recorder, *, images: int) -> bool:
    """Tell whether the last report accounts for this many images, and their depth is here."""
    if DIAGNOSTICS.name not in recorder.last:
        return False
    report = deserialize_message(recorder.last[DIAGNOSTICS.name], DiagnosticArray)
    counters = counters_of(report, ('received', *FATES))
    accounted = sum(counters[fate] for fate in FATES)
    is_here = recorder.counts[DEPTH_TOPIC] >= counters['published']
    return accounted == counters['received'] >= images and is_here


def figures(player: Player, recorder: Recorder) -> dict[str, Any]:
    """Return frames in, out and skipped, and the time from publishing to receiving depth."""
    latencies_ms = [
        1e3 * (arrival_s - player.published_s[stamp_ns])
        for stamp_ns, arrival_s in recorder.arrivals_s.items()
        if stamp_ns in player.published_s
    ]
    p50, p95 = np.percentile(latencies_ms, (50, 95)) if latencies_ms else (None, None)
    frames_out = recorder.counts[DEPTH_TOPIC]
    return {
        'frames_in': player.images,
        'frames_out': frames_out,
        'frames_skipped': player.images - frames_out,
        'player_behind_s': round(player.behind_s, 3),
        'latency_ms': {'p50': _rounded(p50, 1), 'p95': _rounded(p95, 1)},
    }


def node_counters(recorded: BagReader) -> dict[str, int]:
    """Return what the node itself counted, from its last diagnostics in the recording."""
    last = deque(recorded.messages([DIAGNOSTICS.name]), maxlen=1)
    return counters_of(last[0].decode(), COUNTERS) if last else {}


def counters_of(report: DiagnosticArray, names: Collection[str]) -> dict[str, int]:
    """Return these counters of a report of the node."""
    values = {pair.key: pair.value for status in report.status for pair in status.values}
    return {name: int(values[name]) for name in names}


def mean_abs_rel(recorded: BagReader, source: BagReader, topics: CameraTopics) -> float | None:
    """Return the mean of the frames' AbsRel; None without true depth."""
    if not topics.depth:
        return None
    scores = score_frames(recorded, DEPTH_TOPIC, source=source, true_topic=topics.depth)
    return _rounded(np.mean([*scores.values()])) if scores else None


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(float(value), digits)
