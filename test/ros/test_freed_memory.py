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
CIRCLES = """
from pathlib import Path
from llm_mde_ros.freed_memory import give_back_freed_memory
def own_mib():
    status = Path('/proc/self/status').read_text()
    return int(status.split('RssAnon:')[1].split()[0]) // 1024
before = own_mib()
class Network:
    def __init__(self):
        self.weights = b'x' * 60_000_000
        self.part = self
network = Network()
del network
{call}
print(own_mib() - before)
"""
FROZEN = """
import gc
from threading import Event
import rclpy
from llm_mde_ros import __main__ as executable
from llm_mde_ros.dds_domain import use_own_domain
use_own_domain()
stop = Event()
stop.set()
rclpy.init(args=['--ros-args', '-p', 'autostart:=false'])
executable.run(stop)
print(gc.get_freeze_count())
"""
KERNELS = """
import ctypes
{imported}
import torch
libc = ctypes.CDLL(None)
class Mallinfo2(ctypes.Structure):
    _fields_ = [(f'field_{{i}}', ctypes.c_size_t) for i in range(10)]
libc.mallinfo2.restype = Mallinfo2
torch.set_num_threads(1)
conv = torch.nn.Conv2d(8, 8, 3)
@torch.inference_mode()
def used_after(widths):
    for width in widths:
        conv(torch.zeros(1, 8, 16, width))
    return libc.mallinfo2().field_7  # uordblks: bytes in use
before = used_after(range(16, 316))
print((used_after(range(316, 616)) - before) // 1024)
"""
CACHES = ('ONEDNN_PRIMITIVE_CACHE_CAPACITY', 'LRU_CACHE_CAPACITY')  # set where llm_mde_ros is
linux_only = pytest.mark.skipif(os.uname().sysname != 'Linux', reason='a way of glibc')


def printed(program: str) -> int:
    """Return the number that a new process prints."""
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    shown = subprocess.run(
        [sys.executable, '-c', program],
        env=environment | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
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


@linux_only
def test_what_holds_itself_in_a_circle_is_given_back() -> None:
    assert printed(CIRCLES.format(call='give_back_freed_memory()')) < 10
    assert printed(CIRCLES.format(call='')) > 50


def test_libraries_are_not_looked_through_for_garbage() -> None:
    assert printed(FROZEN) > 200_000


@linux_only
def test_kernels_for_earlier_sizes_of_images_do_not_pile_up() -> None:
    assert printed(KERNELS.format(imported='import llm_mde_ros')) < 100
    assert printed(KERNELS.format(imported='')) > 3000


def test_the_node_sees_to_it_before_libraries_start_threads() -> None:
    early = "import sys, llm_mde_ros.__main__; print(len({'numpy', 'rclpy'} & set(sys.modules)))"
    assert printed(early) == 0
