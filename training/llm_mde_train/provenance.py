"""What made a result: the code, the weights and the frames."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
import subprocess

from llm_mde_train.samples import Sample

LIBRARIES = ('torch', 'transformers', 'peft')


def git_commit(file: Path = Path(__file__)) -> str:
    """
    Return the commit of the code in `file`, with '-dirty' for changes beyond it; or 'unknown'.

    Unknown is also what was installed inside of a repository that does not track it: that
    repository's commit would say nothing about the code.
    """
    try:
        _git('ls-files', '--error-unmatch', file.name, folder=file.parent)
        return _git(
            'describe', '--always', '--abbrev=40', '--exclude=*', '--dirty', folder=file.parent
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'  # installed without its repository


def _git(*arguments: str, folder: Path) -> str:
    command = ['git', *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    return {name: version(name) for name in LIBRARIES}


def sha256_of_file(path: Path) -> str:
    """Return the digest of a file, hexadecimal."""
    with path.open('rb') as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_samples(samples: list[Sample]) -> str:
    """Return the digest of colours and depths in their order, hexadecimal."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.rgb.tobytes())
        digest.update(sample.depth_m.tobytes())
    return digest.hexdigest()
