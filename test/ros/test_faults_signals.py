"""The node is ended at any moment: nothing of it is left, and the next one works."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import random
import select
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

from child_process import sessions
import numpy as np
import pytest
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = """
import os, sys, threading
import llm_mde_ros.depth_node
from llm_mde_ros.__main__ import main

print('ready', flush=True)
for log in sys.stdin:
    child = os.fork()
    if not child:
        os.setsid()
        stream = os.open(log.strip(), os.O_WRONLY | os.O_CREAT)
        os.dup2(stream, 1), os.dup2(stream, 2)
        try:
            main(['--ros-args', *sys.argv[1:]])
        except KeyboardInterrupt:  # before the node has its own handler
            os._exit(130)
        left = [thread for thread in threading.enumerate() if not thread.daemon]
        os._exit(len(left) - 1)  # a process of its own would wait for them
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SAVED = {'color.png', 'depth.png', 'depth.npy', 'cloud.ply', 'camera_info.yaml', 'info.json'}


class Nodes:
    """Starts nodes quickly, one after the other: their modules are imported once."""

    def __init__(self, folder: Path, **parameters: object) -> None:
        self._folder = folder
        settings = [
            part for name, value in parameters.items() for part in ('-p', f'{name}:={value}')
        ]
        paths = [str(REPOSITORY), os.environ.get('PYTHONPATH', '')]
        self._server = subprocess.Popen(
            [sys.executable, '-c', SERVER, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ
            | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        )
        assert self._server.stdout.readline() == 'ready\n'

    def start(self) -> int:
        """Return the number of the new process."""
        self.log = self._folder / 'node.log'
        self.log.unlink(missing_ok=True)
        self._server.stdin.write(f'{self.log}\n')
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end(self, process: int, number: int) -> int:
        """Send a signal and return the exit status; nothing of the process's session is left."""
        os.kill(process, number)
        has_ended, _, _ = select.select([self._server.stdout], [], [], 60)
        if not has_ended:
            os.kill(process, signal.SIGKILL)
        status = int(self._server.stdout.readline())
        assert has_ended
        assert process not in sessions()
        return status

    def close(self) -> None:
        self._server.kill()
        self._server.wait()


@pytest.fixture(scope='module')
def nodes(
    own_domain: None, tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path
) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp('signals')
    nodes = Nodes(
        folder,
        model=tiny_model_dir,
        device='cpu',
        save_folder=folder / 'saved',
        camera_info_timeout_s=0.0,
    )
    yield nodes
    nodes.close()


@pytest.fixture(scope='module')
def robot(robot_around: Any) -> Iterator[Any]:
    process = SimpleNamespace(poll=lambda: None)
    robot = robot_around(SimpleNamespace(process=process, text=str))
    robot.received['points'] = []
    robot.node.create_subscription(PointCloud2, 'points', robot.received['points'].append, 10)
    yield robot
    robot.close()


HANGS = """
import time
import llm_mde_ros.__main__ as program

def hang(stop):
    print('hangs', flush=True)
    while not stop.wait(0.1):  # Python handles no signal that comes just before it blocks
        pass
    print('stops', flush=True)
    time.sleep(60)

program.run = hang
program.main([])
"""


@pytest.mark.parametrize('numbers', [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM,) * 2])
def test_a_second_signal_of_any_kind_ends_a_node_that_hangs(numbers: tuple, own_domain: None):
    process = subprocess.Popen([sys.executable, '-c', HANGS], stdout=subprocess.PIPE, text=True)
    for number, said in zip(numbers, ('hangs', 'stops'), strict=True):
        assert process.stdout.readline() == f'{said}\n'
        process.send_signal(number)
    assert process.wait(30) == -numbers[1]


def let_images_fly(robot: Any, seconds: float) -> None:
    """Publish images, and ask for saved frames as soon as one can."""
    client = robot.node.create_client(Trigger, 'depth_node/save_frame')
    camera = robot.camera(Image, 'image', listened=False)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        camera.publish(robot.image(np.zeros((48, 64, 3), np.uint8)))
        if client.service_is_ready():
            client.call_async(Trigger.Request())
        robot.executor.spin_once(timeout_sec=0.02)
    robot.node.destroy_client(client)


def time_until_clouds(robot: Any) -> float:
    """Let images fly until some are answered; return how many seconds that took."""
    robot.received['points'].clear()
    started_s = time.monotonic()
    while len(robot.received['points']) < 5:
        assert time.monotonic() < started_s + 60
        let_images_fly(robot, 0.1)
    return time.monotonic() - started_s


@pytest.mark.parametrize('seed', [0], ids='seed {}'.format)
def test_signals_at_any_moment(nodes: Nodes, robot: Any, seed: int):
    dice = random.Random(seed)
    process = nodes.start()
    longest_s = time_until_clouds(robot)
    assert nodes.end(process, signal.SIGTERM) == 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) * 2:
        robot.received['points'].clear()
        process = nodes.start()
        let_images_fly(robot, dice.uniform(0.0, longest_s))
        in_time = (0, 130, -number)  # before the node, or Python, is there to end in order
        orderly = (0,) if robot.received['points'] else in_time
        status = nodes.end(process, number)
        assert status in ((-9,) if number == signal.SIGKILL else orderly)
        assert status == 130 or 'Traceback' not in nodes.log.read_text()
    process = nodes.start()
    time_until_clouds(robot)
    assert nodes.end(process, signal.SIGINT) == 0
    saved = list((nodes.log.parent / 'saved').glob('frame_*'))
    assert saved
    assert all({path.name for path in folder.iterdir()} == SAVED for folder in saved)
    assert {path.name for path in nodes.log.parent.iterdir()} == {'node.log', 'saved'}
