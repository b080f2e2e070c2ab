"""What may go wrong with one frame and is told, so that the next one gets its turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from llm_mde_core.device import is_lost
from llm_mde_ros.told_text import in_utf8, shortened

# Bad input, torch (also out of the GPU's memory), out of memory, OpenCV. All else is a bug.
FRAME_FAULTS = (ValueError, RuntimeError, MemoryError, cv2.error)


class FrameError(Exception):
    """An image that has to be dropped; `stage` is the reason that it is counted under."""

    def __init__(self, stage: str, sentence: str) -> None:
        super().__init__(sentence)
        self.stage = stage


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Tell in which stage a frame failed."""
    try:
        yield
    except FRAME_FAULTS as error:
        if is_lost(error):  # for good: the process has to end, and be started again
            raise
        raise FrameError(name, describe(error)) from error


def describe(error: Exception) -> str:
    """Return what happened in few words, also for a MemoryError, which may have none."""
    return shortened(in_utf8(' '.join(str(error).split()))) or 'out of memory'
