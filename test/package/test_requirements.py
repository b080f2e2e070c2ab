"""The versions with hashes are those without; nothing that a robot installs is unpinned."""

from pathlib import Path
import re

from packaging.requirements import Requirement
import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ('3.10.12', '3.11.9', '3.12.3')


def lines(name: str) -> list[str]:
    """Return the requirements of a file, each on one line."""
    text = (ROOT / name).read_text().replace('\\\n', ' ')
    kept = (re.sub(r'(^|\s)#.*', '', line).strip() for line in text.splitlines())
    return [line for line in kept if line]


def versions(texts: list[str], python: str) -> dict[str, str]:
    """Return which version of each package a release of Python gets."""
    minor = '.'.join(python.split('.')[:2])
    environment = {'python_version': minor, 'python_full_version': python}
    requirements = [Requirement(text) for text in texts]
    return {
        re.sub(r'[-_.]+', '-', r.name.lower()): str(r.specifier)
        for r in requirements
        if r.marker is None or r.marker.evaluate(environment)
    }


@pytest.mark.parametrize('python', PYTHONS)
def test_the_lock_file_has_the_same_versions(python: str) -> None:
    locked = [line.split('--hash')[0] for line in lines('requirements.lock')]
    assert versions(locked, python) == versions(lines('requirements.txt'), python), (
        'make requirements.lock again: the command is in requirements.txt'
    )


def test_every_version_is_pinned_and_has_hashes() -> None:
    for line in lines('requirements.lock'):
        requirement, *hashes = line.split('--hash=')
        assert re.fullmatch(r'==[^*,]+', str(Requirement(requirement).specifier)), line
        assert hashes, line
        assert all(re.fullmatch(r'sha256:[0-9a-f]{64}', text.strip()) for text in hashes), line
