"""The faults of a soak: functions of the robot, with the weights by which they are drawn."""

from __future__ import annotations

from collections.abc import Callable
import json
import os
from pathlib import Path
import shutil
import signal
import time
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from llm_mde_ros.bench_listener import listener
from llm_mde_ros.topics import OUTPUTS, LoadAdapter
from soak.accounts import Vitals
from soak.camera import BAD_CALIBRATIONS, ENCODINGS, HFOV_DEG, SIZES, Picture
from soak.robot import SoakRobot

TOO_SLOW = 'ms for a test image'  # of what the node says about an adapter
HOUR_NS = 3_600_000_000_000
REST_IMAGES = 20
# Parameters that act on the next frame, and values for them.
DYNAMIC = {
    'points.stride': (1, 2, 4),
    'points.organized': (True, False),
    'points.color': (True, False),
    'points.max_rate_hz': (0.0, 3.0),
    'depth.encoding': ('32FC1', '16UC1'),
    'depth.max_m': (5.0, 20.0),
    'preview.colormap': ('turbo', 'viridis'),
    'filters.temporal.enable': (False, True),
    'filters.median.enable': (False, True),
    'filters.edge.enable': (False, True),
    'hfov_deg': (60.0, 80.0),
    'max_rate_hz': (0.0, 0.0, 7.0),
}
REFUSED = {'points.stride': 0, 'depth.max_m': -1.0, 'preview.colormap': 'none', 'hfov_deg': 1e9}


def bad_images(robot: SoakRobot) -> None:
    """Send images that nothing can be made of."""
    robot.settle()  # nothing but these may be refused, and these alone
    robot.ticks(robot.random.randint(1, 5), bad=True)
    robot.settle()


def bad_calibration(robot: SoakRobot) -> None:
    """Send images with a camera_info that cannot be theirs."""
    spoil = robot.random.choice(BAD_CALIBRATIONS)
    robot.settle()  # images meet the newest camera_info, which may be that of the next one
    robot.publish_calibration(spoil)
    robot.ticks(robot.random.randint(1, 5), spoil_info=spoil)
    robot.settle()
    robot.publish_calibration()


def no_calibration(robot: SoakRobot) -> None:
    """Send camera_info of a camera that was never calibrated: hfov_deg is used."""
    robot.camera.change(is_calibrated=False)
    robot.ticks(robot.random.randint(1, 10))
    robot.camera.change(is_calibrated=True)
    robot.settle()
    robot.publish_calibration()


def other_lens(robot: SoakRobot) -> None:
    """Change the calibration, as a zoom lens does."""
    robot.camera.change(
        hfov_deg=robot.random.choice(HFOV_DEG), is_rectified=robot.random.random() < 0.5
    )


def other_size(robot: SoakRobot) -> None:
    """Change the mode of the camera."""
    robot.settle()
    robot.camera.change(size=robot.random.choice(SIZES))
    robot.publish_calibration()


def other_encoding(robot: SoakRobot) -> None:
    """Change the encoding between two images."""
    robot.camera.change(encoding=robot.random.choice(list(ENCODINGS)))


def pause(robot: SoakRobot) -> None:
    """Stop the camera, longer than the diagnostics are patient."""
    time.sleep(robot.random.uniform(0.5, 4.0))


def time_jump(robot: SoakRobot) -> None:
    """Let the stamps jump by up to an hour, back or ahead."""
    robot.offset_ns = robot.random.randint(-HOUR_NS, HOUR_NS)


def set_parameter(robot: SoakRobot, name: str, value: Any, *, sending: bool = True) -> bool:
    """Ask for a change and return whether it was made."""
    return set_parameters(robot, {name: value}, sending=sending)


def set_parameters(robot: SoakRobot, values: dict[str, Any], *, sending: bool = True) -> bool:
    """Ask for changes and return whether all were made."""
    asked = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    request = SetParameters.Request(parameters=asked)
    answer = robot.call(SetParameters, 'set_parameters', request, sending=sending)
    return all(result.successful for result in answer.results)


def parameter(robot: SoakRobot) -> None:
    """Change a parameter while images fly."""
    name = robot.random.choice(list(DYNAMIC))
    value = robot.random.choice(DYNAMIC[name])
    robot.expect(set_parameter(robot, name, value), f'{name} became {value!r}')


def bad_parameter(robot: SoakRobot) -> None:
    """Ask for a value that cannot be."""
    name = robot.random.choice(list(REFUSED))
    robot.expect(not set_parameter(robot, name, REFUSED[name]), f'bad {name} was refused')


def other_transport(robot: SoakRobot) -> None:
    """Change between raw and compressed images."""
    robot.settle()
    robot.transport = robot.random.choice(('raw', 'compressed'))
    is_set = set_parameter(robot, 'image_transport', robot.transport, sending=False)
    robot.expect(is_set, f'image_transport became {robot.transport}')
    robot.wait_for_reader()


def other_listeners(robot: SoakRobot) -> None:
    """Let listeners come and go."""
    others = [t.name for t in OUTPUTS if t.message_type is not None and t.name != 'depth/image']
    robot.listen({'depth/image', *robot.random.sample(others, robot.random.randint(0, 3))})


def nobody_listens(robot: SoakRobot) -> None:
    """Let all listeners go for a while."""
    robot.settle()
    robot.listen(set())
    robot.wait_for_reader()
    robot.ticks(robot.random.randint(1, 20))
    robot.listen({'depth/image'})
    robot.wait_for_reader()


def killed_listener(robot: SoakRobot) -> None:
    """Let a process that listens die without a word."""
    with listener(('depth/image', 'points')) as reader:
        robot.ticks(robot.random.randint(20, 40))
        os.kill(reader.pid, signal.SIGKILL)
    robot.ticks(5)


def restart(robot: SoakRobot) -> None:
    """Deactivate and activate the node, and now and then load its model anew."""
    change_state(robot, anew=robot.random.random() < 0.3)


def change_state(robot: SoakRobot, *, anew: bool) -> None:
    """Deactivate and activate the node; anew: with its model and its publishers."""
    robot.settle()
    robot.forget_counts()
    between = ['cleanup', 'configure'] if anew else []
    for name in ('deactivate', *between, 'activate'):
        number = getattr(Transition, f'TRANSITION_{name.upper()}')
        request = ChangeState.Request(transition=Transition(id=number))
        answer = robot.call(ChangeState, 'change_state', request, sending=False)
        robot.expect(answer.success, f'{name} succeeded')
    robot.wait_for_reader()


def swap_adapter(robot: SoakRobot) -> None:
    """Let another adapter serve, while images fly; a damaged one must not."""
    folder = robot.random.choice(robot.adapters)
    request = LoadAdapter.Request(adapter=folder)
    answer = robot.call(LoadAdapter, 'load_adapter', request)
    is_damaged = folder == robot.adapters[-1]
    was_slow = TOO_SLOW in answer.message  # by chance, on a busy machine
    is_right = answer.success != is_damaged or was_slow
    robot.expect(is_right, f'{folder} was judged right ({answer.message})')


def off_and_on(robot: SoakRobot) -> None:
    """Switch the node off for a while."""
    robot.settle()
    for is_enabled in (False, True):
        request = SetBool.Request(data=is_enabled)
        answer = robot.call(SetBool, 'enable', request, sending=False)
        robot.expect(answer.success, f'enabled became {is_enabled}')
        robot.is_enabled = is_enabled
        robot.wait_for_reader()
        robot.ticks(robot.random.randint(1, 10))


def ask(robot: SoakRobot) -> None:
    """Ask for facts, or for filters that begin anew."""
    facts = robot.call(Trigger, 'info', Trigger.Request())
    robot.expect('parameters' in json.loads(facts.message), 'info told the parameters')
    answer = robot.call(Trigger, 'reset_filters', Trigger.Request())
    robot.expect(answer.success, 'filters began anew')


def saved_frame(robot: SoakRobot) -> None:
    """Let a frame be saved, and remove it."""
    answer = robot.call(Trigger, 'save_frame', Trigger.Request())
    robot.expect(answer.success, f'a frame was saved ({answer.message})')
    if answer.success:
        shutil.rmtree(Path(answer.message))


def start_threads(robot: SoakRobot) -> None:
    """Ask once for what the node keeps a thread for, before threads are counted."""
    saved_frame(robot)
    if swap_adapter in FAULTS:
        swap_adapter(robot)


def rest(robot: SoakRobot) -> None:
    """
    Bring the node to one and the same state, and note what it holds.

    Else the publishers hold the last images and clouds, which are of any size, and more of them
    the more outputs were ever listened to. An adapter is some megabytes, and so are the rays that
    are kept for clouds of the last camera.
    """
    picture = robot.camera.picture
    robot.settle()
    robot.listen({'depth/image', 'points'})
    robot.camera.picture = Picture()
    plain = {name: values[0] for name, values in DYNAMIC.items()}
    robot.expect(set_parameters(robot, plain, sending=False), f'parameters became {plain}')
    if LoadAdapter is not None:
        request = LoadAdapter.Request(adapter='')
        answer = robot.call(LoadAdapter, 'load_adapter', request, sending=False)
        was_slow = TOO_SLOW in answer.message  # by chance, on a busy machine
        robot.expect(answer.success or was_slow, f'no adapter serves ({answer.message})')
    change_state(robot, anew=True)
    robot.ticks(REST_IMAGES)
    robot.settle()
    robot.rests.append(Vitals.of(robot.process.pid, second=robot.seconds))
    robot.camera.picture = picture
    robot.publish_calibration()


FAULTS: dict[Callable[[SoakRobot], None], float] = {
    bad_images: 6,
    bad_calibration: 3,
    no_calibration: 1,
    other_lens: 3,
    other_size: 2,
    other_encoding: 3,
    pause: 2,
    time_jump: 3,
    parameter: 6,
    bad_parameter: 2,
    other_transport: 2,
    other_listeners: 4,
    nobody_listens: 1,
    killed_listener: 0.5,
    restart: 1,
    off_and_on: 1,
    ask: 1,
    saved_frame: 1,
}
if LoadAdapter is not None:
    FAULTS[swap_adapter] = 2
