"""The commit is that of the code, or unknown: never that of a repository around it."""

from __future__ import annotations

from pathlib import Path
import re
import subprocess

import pytest

from llm_mde_core.bench.machine import git_commit


@pytest.fixture
def tracked(tmp_path: Path) -> Path:
    file = tmp_path / 'code.py'
    file.write_text('1\n')
    for command in (
        ['init', '-q'],
        ['add', 'code.py'],
        ['-c', 'user.name=n', '-c', 'user.email=n@n', 'commit', '-q', '-m', 'First'],
    ):
        subprocess.run(['git', *command], cwd=tmp_path, check=True)
    return file


def test_commit_of_a_tracked_file(tracked):
    assert re.fullmatch('[0-9a-f]{40}', git_commit(tracked))
    tracked.write_text('2\n')
    assert re.fullmatch('[0-9a-f]{40}-dirty', git_commit(tracked))


def test_a_repository_that_does_not_track_the_code_is_not_its_own(tracked):
    installed = tracked.parent / 'venv' / 'code.py'
    installed.parent.mkdir()
    installed.write_text('1\n')
    assert git_commit(installed) == 'unknown'
    assert git_commit(Path('/') / 'code.py') == 'unknown'
