"""The services of one running node: another adapter, off and on, filters, a saved frame, facts."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import shutil
from typing import Any

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import Image
import torch
import yaml

from llm_mde_core import LLMMDEForDepthEstimation, add_lora
from llm_mde_ros.conversions import image_to_depth
from llm_mde_ros.topics import LoadAdapter

needs_messages = pytest.mark.skipif(LoadAdapter is None, reason='llm_mde_msgs is not installed')


def write_adapter(model: Path, out: Path, *, push: float = 0.0, blow_up: float = 1.0) -> Path:
    """Write an adapter that pushes all depths up or down, or overflows on the way to them."""
    network = add_lora(LLMMDEForDepthEstimation.from_pretrained(model))
    head = network.get_base_model().head.modules_to_save['default']
    with torch.no_grad():
        head.out[3].bias[0] += push
        head.out[1].weight *= blow_up
        head.out[3].weight *= blow_up
    network.save_pretrained(out)
    return out


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('services')


@pytest.fixture(scope='module')
def adapters(folder: Path, tiny_model_dir: Path) -> Path:
    """Return the only folder that the node may take adapters from."""
    allowed = folder / 'adapters'
    near = write_adapter(tiny_model_dir, allowed / 'near', push=-1.0)
    write_adapter(tiny_model_dir, allowed / 'broken', blow_up=1e38)
    shutil.copytree(near, allowed / 'cut')
    weights = allowed / 'cut' / 'adapter_model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-100])
    shutil.copytree(near, allowed / 'wild')
    (allowed / 'wild' / 'adapter_config.json').write_text('{"peft_type": "LORA", "r": [0]}')
    shutil.copytree(near, allowed / 'useless')
    (allowed / 'useless' / 'metrics.json').write_text('{"worthwhile": false}')
    shutil.copytree(near, folder / 'outside')
    (allowed / 'link').symlink_to(folder / 'outside')
    (allowed / 'loop').symlink_to(allowed / 'loop')
    (allowed / 'empty').mkdir()
    return allowed


@pytest.fixture(scope='module')
def robot(robot_with: Any, tiny_model_dir: Path, folder: Path, adapters: Path) -> Iterator[Any]:
    parameters = {
        'model': tiny_model_dir,
        'device': 'cpu',
        'allowed_folder': adapters,
        'save_folder': folder / 'saved',
        'warm_up.width': 64,
        'warm_up.height': 48,
    }
    with robot_with(parameters) as robot:
        robot.wait_for(lambda: robot.state() == 'active', 'active node', timeout_s=120.0)
        yield robot
        if LoadAdapter is not None:
            robot.start_asking('load_adapter', adapter=str(adapters / 'near'))
            robot.settle()
        assert robot.under_test.stop() == 0  # while an adapter is loaded
        log = robot.under_test.text()
        assert 'Traceback' not in log
        assert not [line for line in log.splitlines() if '[ERROR]' in line and 'let go' in line]


@pytest.fixture
def depth_of(robot: Any, rgb: np.ndarray) -> Any:
    """Return what the node says of an image."""
    robot.listen('depth/image')

    def depth_of(image: np.ndarray = rgb) -> np.ndarray:
        return image_to_depth(robot.answer('depth/image', robot.show(image)))

    return depth_of


def facts(robot: Any) -> dict[str, Any]:
    return json.loads(robot.ask('info').message)


@needs_messages
def test_an_adapter_serves_from_the_next_image_on_and_leaves_as_it_came(
    robot: Any, adapters: Path, depth_of: Any
):
    near, base_m = str(adapters / 'near'), depth_of()
    answer = robot.ask('load_adapter', adapter=near)
    assert (answer.success, answer.message) == (True, f'{near} serves.')
    assert np.median(depth_of()) < 0.8 * np.median(base_m)
    assert facts(robot)['parameters']['adapter'] == near
    robot.wait_for(lambda: robot.values('model').get('adapter') == near, 'identity')
    assert robot.ask('load_adapter', adapter=near).success  # its files may be others by now
    answer = robot.ask('load_adapter', adapter='')
    assert (answer.success, answer.message) == (True, 'The model without an adapter serves.')
    np.testing.assert_array_equal(depth_of(), base_m)
    assert facts(robot)['model']['adapter'] == 'none'


@needs_messages
def test_what_served_before_goes_on_when_an_adapter_fails(
    robot: Any, adapters: Path, depth_of: Any
):
    near, base_m = str(adapters / 'near'), depth_of()
    assert robot.ask('load_adapter', adapter=near).success
    near_m = depth_of()
    for name, reason in {
        'broken': 'in only 0% of a test image',
        'cut': 'damaged',
        'wild': 'cannot serve',
        'empty': 'no adapter in',
    }.items():
        answer = robot.ask('load_adapter', adapter=f'{adapters}/{name}')
        assert not answer.success
        assert f'{adapters}/{name}' in answer.message
        assert reason in answer.message
        robot.wait_for(lambda a=answer: robot.told('model') == a.message, 'warning')
        assert robot.statuses['model'].level == b'\1'
        assert facts(robot)['parameters']['adapter'] == near
        assert facts(robot)['model']['adapter'] == near
        np.testing.assert_array_equal(depth_of(), near_m)
    for name in ('link', '../outside', 'loop', 'missing'):
        answer = robot.ask('load_adapter', adapter=f'{adapters}/{name}')
        assert not answer.success
        assert 'side of allowed_folder' in answer.message  # outside, or no folder inside
    assert robot.ask('load_adapter', adapter='').success
    robot.wait_for(lambda: robot.told('model') == 'Loaded.', 'end of the warning')
    np.testing.assert_array_equal(depth_of(), base_m)


def test_the_parameter_does_the_same_and_tells_what_serves(
    robot: Any, adapters: Path, depth_of: Any
):
    base_m, near = depth_of(), str(adapters / 'near')

    def serving() -> str:
        return facts(robot)['model']['adapter']

    assert robot.set_parameter('adapter', near).successful
    robot.wait_for(lambda: serving() == near, 'adapter')
    assert np.median(depth_of()) < 0.8 * np.median(base_m)
    result = robot.set_parameter('adapter', str(adapters / 'link'))
    assert 'outside of allowed_folder' in result.reason
    assert robot.set_parameter('adapter', str(adapters / 'broken')).successful  # it is tried
    robot.wait_for(lambda: 'of a test image' in robot.told('model'), 'warning')
    assert facts(robot)['parameters']['adapter'] == near
    assert robot.set_parameter('adapter', '').successful
    robot.wait_for(lambda: serving() == 'none', 'model without an adapter')
    np.testing.assert_array_equal(depth_of(), base_m)


@needs_messages
def test_an_adapter_that_was_not_worthwhile_serves_with_a_warning(robot: Any, adapters: Path):
    answer = robot.ask('load_adapter', adapter=str(adapters / 'useless'))
    assert answer.success
    assert 'was judged not worthwhile' in answer.message
    robot.wait_for(lambda: 'was judged not worthwhile' in robot.told('model'), 'warning')
    assert robot.statuses['model'].level == b'\1'
    assert 'was judged not worthwhile' in robot.under_test.text()
    assert robot.ask('load_adapter', adapter='').success


def test_switched_off_no_image_is_received_and_nothing_published(
    robot: Any, rgb: np.ndarray, depth_of: Any
):
    depth_of()
    assert robot.ask('enable', data=False).message == 'Switched off.'
    camera = robot.camera(Image, 'image', listened=False)
    robot.wait_for(lambda: camera.get_subscription_count() == 0, 'unsubscribing')
    received = robot.count('received')
    camera.publish(robot.image(rgb))
    assert robot.count('received') == received
    assert robot.told('input') == 'Switched off by ~/enable.'
    assert robot.ask('save_frame').message == 'The node is switched off.'
    robot.restart()
    assert robot.count('received') == 0
    assert not facts(robot)['enabled']
    assert camera.get_subscription_count() == 0
    assert robot.ask('enable', data=True).message == 'Switched on.'
    depth_of()


def test_filters_begin_anew_when_they_are_asked_to(robot: Any, rgb: np.ndarray, depth_of: Any):
    other = np.ascontiguousarray(rgb[:, ::-1])
    plain_m = depth_of(other)
    with (
        robot.parameter('filters.temporal.time_s', 60.0, default=0.2),
        robot.parameter('filters.temporal.max_step', 10.0, default=0.2),
        robot.parameter('filters.temporal.enable', True, default=False),
    ):
        depth_of()
        assert not np.allclose(depth_of(other), plain_m, rtol=1e-3)
        assert robot.ask('reset_filters').success
        np.testing.assert_array_equal(depth_of(other), plain_m)


def test_the_next_frame_is_saved_whole_though_nobody_listens(
    robot: Any, rgb: np.ndarray, depth_of: Any
):
    depth_m = depth_of()
    robot.listen()
    camera = robot.camera(Image, 'image', listened=False)
    robot.wait_for(lambda: camera.get_subscription_count() == 0, 'unsubscribing')
    answer = robot.start_asking('save_frame')
    robot.camera(Image, 'image')
    assert robot.ask('save_frame').message == 'Another frame is being saved.'
    stamp_ns = robot.show(rgb, fx=None)
    robot.wait_for(answer.done, 'answer')
    assert answer.result().success, answer.result().message
    saved = Path(answer.result().message)
    assert saved.name == f'frame_{stamp_ns // 10**9}_{stamp_ns % 10**9:09d}'
    np.testing.assert_array_equal(cv2.imread(str(saved / 'color.png'))[:, :, ::-1], rgb)
    np.testing.assert_array_equal(np.load(saved / 'depth.npy'), depth_m)
    depth_mm = cv2.imread(str(saved / 'depth.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(depth_mm, np.rint(1000 * depth_m).astype(np.uint16))
    assert b'element vertex 3072' in (saved / 'cloud.ply').read_bytes()
    calibration = yaml.safe_load((saved / 'camera_info.yaml').read_text())
    assert calibration['camera_matrix']['data'][0] == 60.0
    assert calibration['image_width'] == 64
    about = json.loads((saved / 'info.json').read_text())
    assert about['prompt']
    assert about['model']['parameters_total'] > 0
    assert about['parameters']['points.stride'] == 2
    assert about['stats']['stage_s']['network'] > 0
    assert about['versions']['torch'] == torch.__version__
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_frame_that_cannot_be_saved_is_published_all_the_same(
    robot: Any, folder: Path, rgb: np.ndarray, depth_of: Any
):
    depth_of()
    saved = folder / 'saved'
    if saved.exists():
        saved.rename(folder / 'elsewhere')
    saved.write_text('no folder')
    answer = robot.start_asking('save_frame')
    robot.settle()
    depth_of()
    robot.wait_for(answer.done, 'answer')
    assert not answer.result().success
    assert 'It cannot be saved: ' in answer.result().message
    assert str(saved) in answer.result().message
    saved.unlink()


@needs_messages
def test_the_other_states_of_the_lifecycle(robot: Any, adapters: Path, depth_of: Any):
    base_m = depth_of()
    answer = robot.start_asking('save_frame')
    robot.settle()
    assert robot.transition('deactivate')
    robot.wait_for(answer.done, 'answer')
    assert answer.result().message == 'The node was deactivated.'
    assert robot.ask('save_frame').message == 'The node is not active.'
    assert robot.ask('reset_filters').success
    assert robot.ask('load_adapter', adapter=str(adapters / 'near')).success
    assert facts(robot)['state'] == 'inactive'
    assert robot.transition('activate')
    robot.unplug()
    assert np.median(depth_of()) < 0.8 * np.median(base_m)
    assert robot.transition('deactivate')
    assert robot.transition('cleanup')
    assert facts(robot)['model'] is None
    answer = robot.ask('load_adapter', adapter='')
    assert answer.message == 'No model is loaded: configure the node first.'
    for name in ('model', 'adapter'):
        result = robot.set_parameter(name, str(adapters / 'link'))
        assert f'{name} ' in result.reason
        assert 'is outside of allowed_folder' in result.reason
    assert robot.transition('configure')
    assert facts(robot)['model']['adapter'] == str(adapters / 'near')
