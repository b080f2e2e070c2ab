"""What a frame has used is there for the next one."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
from threading import Thread
from llm_mde_ros.freed_memory import keep_freed_memory
{call}
def work():
    for frame in range(20):
        if frame == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        cloud = b'x' * 5_000_000
        serialised = cloud[1:]
        del cloud, serialised
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = Thread(target=work)  # as the worker of the node; it has a heap of its own
thread.start()
thread.join()
"""


def page_faults(call: str) -> int:
    """Return how many pages a new process takes from the system for ten frames."""
    shown = subprocess.run(
        [sys.executable, '-c', FAULTS.format(call=call)],
        env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(shown.stdout)


@pytest.mark.skipif(os.uname().sysname != 'Linux', reason='a way of glibc')
def test_memory_is_not_taken_from_the_system_for_every_frame() -> None:
    assert page_faults('keep_freed_memory()') < 500
    assert page_faults('') > 10_000
