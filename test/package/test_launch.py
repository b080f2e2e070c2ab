"""The launch file and what it refers to; where ROS's launch packages are installed, for real."""

import ast
from dataclasses import fields
import importlib.util
from pathlib import Path
import sys
import tempfile
from types import ModuleType, SimpleNamespace

import pytest
import yaml

from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.topics import OUTPUTS, SUBSCRIBED

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_FILE = ROOT / 'launch' / 'depth.launch.py'
NO_LAUNCH = 'launch and launch_ros are not on PyPI for ROS 2; a ROS machine has them'


class Recorded(SimpleNamespace):
    """Stands for any class of launch: keeps what it was made with."""

    def __init__(self, *positional, **named) -> None:
        super().__init__(positional=positional, **named)

    __hash__ = object.__hash__


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the names of the launch file; its imports from ROS only record."""
    for node in ast.walk(ast.parse(LAUNCH_FILE.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith('launch'):
            module = ModuleType(node.module)
            for alias in node.names:
                setattr(module, alias.name, type(alias.name, (Recorded,), {}))
            monkeypatch.setitem(sys.modules, node.module, module)
    spec = importlib.util.spec_from_file_location('depth_launch', LAUNCH_FILE)
    names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    return names


def started(launch_file: ModuleType, **arguments: str) -> dict[str, Recorded]:
    """Return what is started with these arguments, by program."""
    values = {name: default for name, (default, _) in launch_file.ARGUMENTS.items()}
    assert set(arguments) <= set(values)
    context = SimpleNamespace(launch_configurations=values | arguments)
    return {
        action.executable if hasattr(action, 'executable') else ' '.join(action.cmd[:3]): action
        for action in launch_file.start(context)
    }


def parameters_of(node: Recorded) -> dict[str, object]:
    """Return the parameters that the launch file sets over those of the file."""
    merged: dict[str, object] = {}
    for part in node.parameters[1:]:
        merged |= part
    return {
        name: value.positional[0] if isinstance(value, Recorded) else value
        for name, value in merged.items()
    }


def test_every_argument_is_declared_with_a_description(launch_file: ModuleType) -> None:
    *declared, start = launch_file.generate_launch_description().positional[0]
    assert start.function is launch_file.start
    assert {argument.positional[0] for argument in declared} == set(launch_file.ARGUMENTS)
    assert all(argument.description for argument in declared)


def test_by_default_the_parameter_file_decides(launch_file: ModuleType) -> None:
    actions = started(launch_file)
    assert set(actions) == {'depth_node'}
    node = actions['depth_node']
    assert node.package == 'llm_mde_ros'
    assert node.parameters[0] == str(ROOT / 'config' / 'depth.yaml')
    assert parameters_of(node) == {}
    assert node.remappings == [('image', 'image'), ('camera_info', 'camera_info')]


def test_given_arguments_reach_the_node(launch_file: ModuleType) -> None:
    given = {'model': 'tiny', 'adapter': '/a', 'device': 'cpu', 'precision': 'fp32'}
    more = {'compressed': 'true', 'namespace': 'robot', 'log_level': 'debug'}
    node = started(launch_file, **given, **more)['depth_node']
    expected = given | {'image_transport': 'compressed'}
    assert parameters_of(node) == expected
    assert set(expected) <= {field.name for field in fields(DepthNodeParameters)}
    assert (node.namespace, node.ros_arguments) == ('robot', ['--log-level', 'debug'])


def test_remapped_topics_are_inputs_of_the_node(launch_file: ModuleType) -> None:
    remapped = {source for source, _ in started(launch_file)['depth_node'].remappings}
    assert remapped == {topic.name for topic in SUBSCRIBED} - {'image/compressed'}


@pytest.mark.parametrize(
    ('given', 'image', 'camera_info'),
    [
        (('', '', ''), 'image', 'camera_info'),
        (('oak', '', ''), '/oak/rgb/image_raw', '/oak/rgb/camera_info'),
        (('oak', '/mine', ''), '/mine', '/camera_info'),
        (('oak', '', '/info'), '/oak/rgb/image_raw', '/info'),
        (('', 'left/image', ''), 'left/image', 'left/camera_info'),
        (('', '/a/image', '/b/info'), '/a/image', '/b/info'),
    ],
)
def test_given_topics_win(launch_file, given, image, camera_info) -> None:
    assert launch_file.choose_topics(*given) == (image, camera_info)


def test_every_camera_has_absolute_topics(launch_file: ModuleType) -> None:
    assert set(launch_file.CAMERAS) == {'', 'usb_cam', 'realsense', 'zed', 'oak', 'gazebo'}
    for name, (image, frame) in launch_file.CAMERAS.items():
        assert image.startswith('/') or not name
        assert frame


def test_wrong_arguments_are_named(launch_file: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"'kinect' is none of usb_cam, .*gazebo"):
        started(launch_file, camera='kinect')
    with pytest.raises(ValueError, match="rviz must be true or false, not 'yes'"):
        started(launch_file, rviz='yes')


def test_a_bag_brings_its_clock(launch_file: ModuleType) -> None:
    actions = started(launch_file, bag='/a bag', rviz='true')
    player = actions['ros2 bag play']
    assert player.cmd == ['ros2', 'bag', 'play', '/a bag', '--clock']
    assert parameters_of(actions['depth_node'])['use_sim_time'] is True
    assert actions['rviz2'].parameters == [{'use_sim_time': True}]


@pytest.mark.parametrize('bag', ['', '/bag'])
@pytest.mark.parametrize(('text', 'value'), [('true', True), ('False', False)])
def test_a_given_clock_wins(launch_file: ModuleType, bag: str, text: str, value: bool) -> None:
    actions = started(launch_file, use_sim_time=text, bag=bag, rviz='true')
    assert parameters_of(actions['depth_node']) == {'use_sim_time': value}
    assert actions['rviz2'].parameters == [{'use_sim_time': value}]


def test_without_a_clock_rviz_keeps_its_own(launch_file: ModuleType) -> None:
    assert started(launch_file, rviz='true')['rviz2'].parameters == []


@pytest.mark.parametrize(('text', 'value'), [('true', True), ('false', False)])
def test_the_node_may_be_started_again(launch_file: ModuleType, text: str, value: bool) -> None:
    node = started(launch_file, respawn=text)['depth_node']
    assert (node.respawn, node.respawn_delay) == (value, 2.0)


def test_the_fast_dds_profile_is_for_all_and_can_be_left_out(
    launch_file: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(launch_file.PROFILE, raising=False)
    for action in started(launch_file, bag='b', rviz='true').values():
        profile = action.additional_env[launch_file.PROFILE]
        assert Path(profile) == ROOT / 'config' / 'fastdds.xml'
    assert started(launch_file, fastdds='false')['depth_node'].additional_env == {}
    monkeypatch.setenv(launch_file.PROFILE, '/mine.xml')
    env = started(launch_file)['depth_node'].additional_env
    assert env[launch_file.PROFILE] == '/mine.xml'


def test_the_parameter_file_is_for_the_node_in_any_namespace() -> None:
    values = yaml.safe_load((ROOT / 'config' / 'depth.yaml').read_text())
    assert set(values) <= {'/**', '/**/depth_node'}


def test_rviz_shows_topics_that_exist_with_a_qos_that_fits(launch_file: ModuleType) -> None:
    layout = yaml.safe_load((ROOT / 'config' / 'depth.rviz').read_text())['Visualization Manager']
    displays = {d['Name']: d for d in layout['Displays'] if 'Topic' in d}
    assert {name: d['Class'].rpartition('/')[2] for name, d in displays.items()} == {
        'Colour': 'Image',
        'Depth preview': 'Image',
        'Points': 'PointCloud2',
    }
    known = {topic.name for topic in (*SUBSCRIBED, *OUTPUTS)}
    shown = {d['Topic']['Value'].removeprefix('/') for d in displays.values()}
    assert shown <= known
    for display in displays.values():
        assert display['Enabled']
        assert display['Topic']['Reliability Policy'] == 'Reliable'
        assert display['Topic']['Durability Policy'] == 'Volatile'
    assert displays['Points']['Color Transformer'] == 'RGB8'
    assert layout['Global Options']['Fixed Frame'] == launch_file.CAMERAS[''][1]

    rviz = started(launch_file, rviz='true', image='/cam/image', namespace='robot')['rviz2']
    assert rviz.arguments[:2] == ['-d', str(ROOT / 'config' / 'depth.rviz')]
    assert rviz.namespace == 'robot'
    assert dict(rviz.remappings) == {
        '/image': '/cam/image',
        '/image/compressed': '/cam/image/compressed',
        '/depth/preview': 'depth/preview',
        '/points': 'points',
    }
    assert {f'/{name}' for name in shown} < set(dict(rviz.remappings))


def test_rviz_shows_the_image_that_the_node_takes(
    launch_file: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    started(launch_file, compressed='true')
    assert list(tmp_path.iterdir()) == []  # nothing is written without RViz
    actions = started(launch_file, compressed='true', rviz='true')
    (copy,) = tmp_path.iterdir()
    assert actions['rviz2'].arguments[:2] == ['-d', str(copy)]
    topics = [
        d['Topic']['Value']
        for d in yaml.safe_load(copy.read_text())['Visualization Manager']['Displays']
        if 'Topic' in d
    ]
    assert topics == ['/image/compressed', '/depth/preview', '/points']
    original = (ROOT / 'config' / 'depth.rviz').read_text()
    assert copy.read_text().replace('/image/compressed', '/image') == original


def test_the_real_launch_starts_the_installed_node(pip_prefix: Path, monkeypatch) -> None:
    launch = pytest.importorskip('launch', reason=NO_LAUNCH)
    pytest.importorskip('launch_ros', reason=NO_LAUNCH)
    from launch.actions import EmitEvent, IncludeLaunchDescription, RegisterEventHandler
    from launch.event_handlers import OnProcessStart
    from launch.events import Shutdown
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from llm_mde_ros.dds_domain import free_domain_id

    monkeypatch.setenv('AMENT_PREFIX_PATH', str(pip_prefix))
    monkeypatch.setenv('ROS_DOMAIN_ID', str(free_domain_id()))
    commands = []

    def note(event, _context):
        commands.append(event.cmd)
        return EmitEvent(event=Shutdown())

    path = pip_prefix / 'share/llm_mde_ros/launch/depth.launch.py'
    arguments = {'camera': 'oak', 'namespace': 'robot', 'model': '0123'}
    service = launch.LaunchService()
    service.include_launch_description(
        launch.LaunchDescription(
            [
                RegisterEventHandler(OnProcessStart(on_start=note)),
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(str(path)), launch_arguments=arguments.items()
                ),
            ]
        )
    )
    service.run()
    ((program, *rest),) = commands
    assert program == str(pip_prefix / 'lib/llm_mde_ros/depth_node')
    assert {'__ns:=/robot', 'image:=/oak/rgb/image_raw'} <= set(rest)
    files = [Path(rest[i + 1]) for i, word in enumerate(rest) if word == '--params-file']
    assert files[0] == pip_prefix / 'share/llm_mde_ros/config/depth.yaml'
    overrides = {}
    for file in files[1:]:
        for section in yaml.safe_load(file.read_text()).values():
            overrides |= section['ros__parameters']
    assert overrides == {'model': '0123'}
