"""Dependencies point one way: core knows no ROS and no OpenCV, ros and training not each other."""

from pathlib import Path

from package.imports import imported
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    'llm_mde_core': ROOT / 'llm_mde_core',
    'llm_mde_ros': ROOT / 'llm_mde_ros',
    'llm_mde_train': ROOT / 'training' / 'llm_mde_train',
}
ROS = ('rclpy', 'rcl_interfaces', 'builtin_interfaces', 'launch', 'launch_ros', 'cv_bridge')
FORBIDDEN = {
    'llm_mde_core': (*ROS, 'cv2', 'rosbags', 'llm_mde_ros', 'llm_mde_train'),
    'llm_mde_ros': ('transformers', 'peft', 'llm_mde_train'),
    'llm_mde_train': (*ROS, 'llm_mde_ros'),
}
BAG_MODULES = {'bags.py', 'demo.py', 'replay.py', 'recorder.py', 'resumable_bag.py'}


def is_ros(name: str) -> bool:
    return name in ROS or name.endswith(('_msgs', '_msgs_py'))


@pytest.mark.parametrize('package', PACKAGES)
def test_no_module_imports_what_its_package_must_not(package: str) -> None:
    modules = sorted(PACKAGES[package].rglob('*.py'))
    assert modules
    for module in modules:
        names = imported(module.read_text())
        forbidden = names & set(FORBIDDEN[package])
        if package != 'llm_mde_ros':
            forbidden |= {name for name in names if is_ros(name)}
        assert not forbidden, f'{module.relative_to(ROOT)} imports {sorted(forbidden)}'


def test_only_bag_modules_read_and_write_bags() -> None:
    modules = PACKAGES['llm_mde_ros'].rglob('*.py')
    users = {module.name for module in modules if 'rosbags' in imported(module.read_text())}
    assert users <= BAG_MODULES


@pytest.mark.parametrize(
    ('text', 'name'),
    [
        ('import cv2.dnn as dnn', 'cv2'),
        ('from sensor_msgs.msg import Image', 'sensor_msgs'),
        ('def late():\n    import rclpy', 'rclpy'),
    ],
)
def test_the_scan_sees_every_form_of_import(text: str, name: str) -> None:
    assert imported(text) == {name}


def test_the_scan_ignores_relative_imports() -> None:
    assert imported('from . import model\nfrom .cv2 import x') == set()
