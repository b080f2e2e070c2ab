"""The SROS 2 policy allows what a running node has, and not more."""

from collections.abc import Iterator
from pathlib import Path
import time
from xml.etree import ElementTree

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from llm_mde_ros.announced_camera import announced_camera
from llm_mde_ros.depth_node import DepthNode
from llm_mde_ros.sros2_policy import sros2_policy
from llm_mde_ros.topics import OUTPUTS

FILE = Path(__file__).resolve().parents[2] / 'config' / 'sros2_policy.xml'


def allowed(policy: str, kind: str, permission: str) -> set[str]:
    """Return the full names, resolved as sros2 does it."""
    profile = ElementTree.fromstring(policy.encode()).find('.//profile')
    namespace = profile.get('ns').rstrip('/') + '/'
    own = namespace + profile.get('node')
    names = [
        element.text
        for group in profile.findall(f'{kind}s')
        if group.get(permission) == 'ALLOW'
        for element in group
    ]
    resolved = {n if n.startswith('/') else n.replace('~', own) for n in names}
    return {n if n.startswith('/') else namespace + n for n in resolved}


def names(pairs: list[tuple[str, list[str]]]) -> set[str]:
    return {name for name, _ in pairs}


def test_the_file_is_the_generated_one() -> None:
    assert FILE.read_text() == sros2_policy(), 'python -m llm_mde_ros.sros2_policy > that file'


def test_remapped_inputs_and_a_namespace() -> None:
    policy = sros2_policy(image='/camera/image_raw', camera_info='info', namespace='/robot')
    assert allowed(policy, 'topic', 'subscribe') == {
        '/camera/image_raw',
        '/camera/image_raw/compressed',
        '/robot/info',
    }
    beside = {'/scan', '/camera_info', '/tf', '/tf_static'}
    assert beside <= allowed(sros2_policy(reference='/scan'), 'topic', 'subscribe')
    assert '/robot/points' in allowed(policy, 'topic', 'publish')
    assert '/diagnostics' in allowed(policy, 'topic', 'publish')
    assert '/robot/depth_node/get_state' in allowed(policy, 'service', 'reply')
    path = ElementTree.fromstring(policy.encode()).find('.//enclave').get('path')
    assert path == '/robot/depth_node'


@pytest.mark.parametrize('namespace', ['/', '/robot'])
def test_a_policy_denies_what_it_does_not_name(namespace: str) -> None:
    policy = ElementTree.fromstring(sros2_policy(namespace=namespace).encode())
    values = {value for element in policy.iter() for value in element.attrib.values()}
    text = [element.text or '' for element in policy.iter()]
    assert 'DENY' not in values  # the default of sros2
    assert not any('*' in word for word in [*values, *text])


def test_the_node_that_hears_of_the_camera_has_no_more_than_is_allowed(
    camera_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the same enclave, under a name that the policy does not know."""
    names, add_node = [], SingleThreadedExecutor.add_node

    def watched(executor: SingleThreadedExecutor, node: Node) -> None:
        names.append(node.get_name())
        published = {publisher.topic_name for publisher in node.publishers}
        subscribed = {subscription.topic_name for subscription in node.subscriptions}
        assert published <= allowed(FILE.read_text(), 'topic', 'publish')
        assert subscribed == {'/camera_info'} & allowed(FILE.read_text(), 'topic', 'subscribe')
        assert not [*node.services, *node.clients]
        add_node(executor, node)

    monkeypatch.setattr(SingleThreadedExecutor, 'add_node', watched)
    announced_camera(camera_node, timeout_s=0.0, rectified=False)
    assert 'camera_configuring' in names


REFERENCE = '/sensor/depth/image'


@pytest.fixture
def depth_node(own_domain: None, tiny_model_dir: Path) -> Iterator[DepthNode]:
    rclpy.init(args=['--ros-args', '-p', f'model:={tiny_model_dir}', '-p', 'device:=cpu'])
    node = DepthNode()
    yield node
    node.close()
    node.join()
    node.destroy_node()
    rclpy.shutdown()


def set_parameter(node: Node, name: str, value: str) -> None:
    [result] = node.set_parameters([Parameter(name, value=value)])
    assert result.successful, result.reason


def test_it_is_what_a_running_node_has(depth_node: DepthNode, camera_node: Node) -> None:
    """Read from the node itself: other processes at times never discover all of it."""
    policy = FILE.read_text()
    assert depth_node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert depth_node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    of = 'depth_node', '/'
    subscribed = names(depth_node.get_subscriber_names_and_types_by_node(*of))
    depth_node.create_subscription(Image, 'depth/image', lambda _: None, 1)
    for transport in ('raw', 'compressed'):
        set_parameter(depth_node, 'image_transport', transport)
        depth_node.poll()
        subscribed |= names(depth_node.get_subscriber_names_and_types_by_node(*of))
    assert subscribed - {'/depth/image'} == allowed(policy, 'topic', 'subscribe')
    camera_node.create_publisher(Image, REFERENCE, 1)
    set_parameter(depth_node, 'reference.topic', REFERENCE)
    end_s = time.monotonic() + 30
    while REFERENCE not in subscribed:
        assert time.monotonic() < end_s
        depth_node.poll()
        subscribed |= names(depth_node.get_subscriber_names_and_types_by_node(*of))
    wider = allowed(sros2_policy(reference=REFERENCE), 'topic', 'subscribe')
    assert subscribed - {'/depth/image'} | {'/tf', '/tf_static'} == wider  # those are tf2's
    missing = {f'/{topic.name}' for topic in OUTPUTS if topic.message_type is None}
    published = names(depth_node.get_publisher_names_and_types_by_node(*of))
    assert published == allowed(policy, 'topic', 'publish') - missing
    services = names(depth_node.get_service_names_and_types_by_node(*of))
    optional = {'/depth_node/get_type_description'}  # before Jazzy
    assert services | optional == allowed(policy, 'service', 'reply')
    assert not depth_node.get_client_names_and_types_by_node(*of)
