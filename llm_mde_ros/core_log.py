"""What the core logs, as when it compiles, goes to the log of the node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import logging
from typing import TYPE_CHECKING

from llm_mde_ros.told_text import in_utf8

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger


@contextmanager
def core_log(log: RcutilsLogger) -> Iterator[None]:
    """Hand on all from INFO up, meanwhile."""
    core, handler = logging.getLogger('llm_mde_core'), _Handler(log)
    level = core.level
    core.addHandler(handler)
    core.setLevel(logging.INFO)
    try:
        yield
    finally:
        core.removeHandler(handler)
        core.setLevel(level)


class _Handler(logging.Handler):
    def __init__(self, log: RcutilsLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = in_utf8(record.getMessage())
        if record.levelno >= logging.WARNING:
            self._log.warning(text)
        else:
            self._log.info(text)
