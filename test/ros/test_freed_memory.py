"""What a frame has used is there for the next one, and for every thread."""

import os
from pathlib import Path
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
thread = Thread(target=work)  # as the worker of the node
thread.start()
thread.join()
"""
ARENAS = """
import ctypes
from pathlib import Path
from threading import Barrier, Thread
from llm_mde_ros.freed_memory import keep_freed_memory
{call}
together = Barrier(4)
def work():
    kept = b'x' * 100_000
    together.wait(10)
threads = [Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b'{report}', b'w'))
libc.malloc_info(0, file)
libc.fclose(file)
print(Path('{report}').read_text().count('<heap nr='))
"""
GAPS = """
from pathlib import Path
from llm_mde_ros.freed_memory import give_back_freed_memory, keep_freed_memory
keep_freed_memory()
def own_mib():
    status = Path('/proc/self/status').read_text()
    return int(status.split('RssAnon:')[1].split()[0]) // 1024
before = own_mib()
pieces = [b'x' * 1_000_000 for _ in range(60)]
last = b'x' * 1_000_000  # above the others: what is below cannot be given back from the end
del pieces
{call}
print(own_mib() - before)
"""
linux_only = pytest.mark.skipif(os.uname().sysname != 'Linux', reason='a way of glibc')


def printed(program: str) -> int:
    """Return the number that a new process prints."""
    shown = subprocess.run(
        [sys.executable, '-c', program],
        env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(shown.stdout)


@linux_only
def test_memory_is_not_taken_from_the_system_for_every_frame() -> None:
    assert printed(FAULTS.format(call='keep_freed_memory()')) < 500
    assert printed(FAULTS.format(call='')) > 10_000


@linux_only
def test_what_one_thread_freed_serves_the_others(tmp_path: Path) -> None:
    report = tmp_path / 'malloc.xml'
    assert printed(ARENAS.format(call='keep_freed_memory()', report=report)) == 1
    assert printed(ARENAS.format(call='', report=report)) > 1


@linux_only
def test_what_is_free_between_the_used_can_be_given_back() -> None:
    assert printed(GAPS.format(call='give_back_freed_memory()')) < 10
    assert printed(GAPS.format(call='')) > 50


def test_the_node_sees_to_it_before_libraries_start_threads() -> None:
    early = "import sys, llm_mde_ros.__main__; print(len({'numpy', 'rclpy'} & set(sys.modules)))"
    assert printed(early) == 0
