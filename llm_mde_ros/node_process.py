"""The depth node as a process of its own, started for a demonstration or a test."""

from __future__ import annotations

from collections.abc import Mapping
import ctypes
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.client import Client
from rclpy.node import Node

CLIENT_S = 10.0  # for one client to find the node
GRACE_S = 10.0  # between SIGINT and SIGTERM, and again to SIGKILL
PR_SET_PDEATHSIG = 1


class NodeProcess:
    """
    Run depth_node until the context ends; its output goes to a log file.

    It takes the environment of this process, and dies with it.
    """

    def __init__(
        self, *, parameters: Mapping[str, object], remappings: Mapping[str, str], log: Path
    ) -> None:
        arguments = [f'{old}:={new}' for old, new in remappings.items()]
        settings = [f'{name}:={_literal(value)}' for name, value in parameters.items()]
        self.log = log
        self._command = [sys.executable, '-m', 'llm_mde_ros', '--ros-args']
        self._command += [part for each in arguments for part in ('-r', each)]
        self._command += [part for each in settings for part in ('-p', each)]

    def __enter__(self) -> NodeProcess:
        with self.log.open('w') as stream:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we stop the node
                preexec_fn=_die_with_parent if sys.platform == 'linux' else None,
            )
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(GRACE_S)
                except subprocess.TimeoutExpired:
                    continue
        self._process.wait()

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit status, None while the node runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise RuntimeError with the end of the log when the node has ended."""
        if self.returncode is not None:
            raise RuntimeError(
                f'The node ended with status {self.returncode}. The end of {self.log}:\n'
                f'{self.log_end()}'
            )

    def log_end(self, lines: int = 12) -> str:
        """Return the last lines of the node's output."""
        return '\n'.join(self.log.read_text(errors='replace').splitlines()[-lines:])

    def wait_until_active(self, node: Node, *, name: str, timeout_s: float) -> None:
        """
        Wait until the lifecycle node says that it is active; something must spin `node`.

        RuntimeError with the end of the log when it ends, fails to configure or takes too long.
        """
        deadline_s = time.monotonic() + timeout_s
        state = None
        while state is None and time.monotonic() < deadline_s:
            # Made anew: one made while DDS discovers the node at times stays alone for ever.
            client = node.create_client(GetState, f'{name}/get_state')
            until_s = min(deadline_s, time.monotonic() + CLIENT_S)
            while state is None and time.monotonic() < until_s:
                self.check()
                state = _ask_state(client)
            node.destroy_client(client)
        if state != State.PRIMARY_STATE_ACTIVE:  # it answers only after it has started itself
            answer = 'gave no answer' if state is None else 'could not start itself'
            raise RuntimeError(f'The node {answer}. The end of {self.log}:\n{self.log_end()}')


def _ask_state(client: Client) -> int | None:
    """Ask once; None without an answer within a second."""
    if not client.wait_for_service(timeout_sec=1.0):
        return None
    future = client.call_async(GetState.Request())
    deadline_s = time.monotonic() + 1.0
    while not future.done() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return future.result().current_state.id if future.done() else None


def _literal(value: object) -> str:
    """Write a value as YAML; text is quoted so that it stays text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def _die_with_parent() -> None:
    # Not SIGINT: while the node still imports, a library may swallow its KeyboardInterrupt.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
