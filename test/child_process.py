"""A function in a process of its own: it may be ended, or run out of disk."""

from __future__ import annotations

from collections.abc import Callable
import gc
import multiprocessing
import os
from pathlib import Path
import resource
import signal
import sys

import cv2
import torch


def full_disk(after_bytes: int = 0) -> None:
    """Let no file of this process grow beyond a size: what writes gets an OSError."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, resource.RLIM_INFINITY))


def kill() -> None:
    signal.raise_signal(signal.SIGKILL)


def on_call(owner: object, name: str, number: int, happen: Callable[[], None]) -> None:
    """Let something happen before the given call of a function."""
    function, calls = getattr(owner, name), []

    def counted(*arguments: object, **options: object) -> object:
        calls.append(name)
        if len(calls) == number:
            happen()
        return function(*arguments, **options)

    setattr(owner, name, counted)


def sessions() -> list[int]:
    """Return the session of every process of this machine."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            found.append(os.getsid(int(process.name)))
        except OSError:  # it has ended
            continue
    return found


class ChildProcess:
    """Begins at once, with all that this process has imported."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._read, self._write = os.pipe()  # a disk that is full does not hinder it
        self._process = multiprocessing.get_context('fork').Process(
            target=self._run, args=(function, *arguments)
        )
        self._process.start()
        os.close(self._write)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def join(self, timeout_s: float = 60.0) -> bool:
        """Wait and return whether it has ended, though others may have its standard error."""
        self._process.join(timeout_s)
        return not self._process.is_alive()

    def end(self) -> tuple[int, str]:
        """Wait; return the exit status and what was written to standard error."""
        with os.fdopen(self._read) as stream:
            text = stream.read()
        self.join()
        return self._process.exitcode, text

    def _run(self, function: Callable[..., object], *arguments: object) -> None:
        gc.freeze()  # what other tests left of DDS cannot be collected without its threads
        sys.stderr = os.fdopen(self._write, 'w', buffering=1)
        # What a shell runs in the background ignores it, and so do all its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)  # others do not survive the fork
        cv2.setNumThreads(0)
        function(*arguments)
