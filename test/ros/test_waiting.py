"""How the threads of OpenMP wait, and what oneDNN keeps, is settled before torch is there."""

import json
import os
import subprocess
import sys

import pytest

NAMES = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'LRU_CACHE_CAPACITY')
SHOW = f'import json, os, llm_mde_ros; print(json.dumps([os.environ.get(n) for n in {NAMES}]))'


@pytest.mark.parametrize(
    ('chosen', 'expected'),
    [
        ({}, ['PASSIVE', '1000', '128']),
        ({'OMP_WAIT_POLICY': 'ACTIVE'}, ['ACTIVE', None, '128']),
        ({'GOMP_SPINCOUNT': '7'}, ['PASSIVE', '7', '128']),
        ({'LRU_CACHE_CAPACITY': '7'}, ['PASSIVE', '1000', '7']),
    ],
)
def test_what_the_user_says_is_kept(chosen: dict[str, str], expected: list[str | None]) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    paths = os.pathsep.join(filter(None, sys.path))
    shown = subprocess.run(
        [sys.executable, '-c', SHOW],
        env=environment | {'PYTHONPATH': paths} | chosen,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(shown.stdout) == expected
