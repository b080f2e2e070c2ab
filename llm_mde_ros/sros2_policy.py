"""
The SROS 2 policy of the node: it may use its own topics and services, and nothing else.

    python -m llm_mde_ros.sros2_policy --image /camera/image_raw --camera-info /camera/camera_info

Without arguments it prints config/sros2_policy.xml; a test compares it with a running node.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from xml.etree import ElementTree

from llm_mde_ros.topics import DIAGNOSTICS, OUTPUTS, SERVICES, SUBSCRIBED

NODE = 'depth_node'
# What rclpy makes for every lifecycle node.
PUBLISHED_BY_RCLPY = ('/parameter_events', '/rosout', '~/transition_event')
SERVICES_OF_RCLPY = (
    '~/change_state',
    '~/describe_parameters',
    '~/get_available_states',
    '~/get_available_transitions',
    '~/get_parameter_types',
    '~/get_parameters',
    '~/get_state',
    '~/get_transition_graph',
    '~/get_type_description',  # from ROS 2 Jazzy on
    '~/list_parameters',
    '~/set_parameters',
    '~/set_parameters_atomically',
)


def sros2_policy(
    *,
    image: str = 'image',
    camera_info: str = 'camera_info',
    reference: str = '',
    namespace: str = '/',
) -> str:
    """Return the policy as XML, for a node whose inputs are remapped to these topics."""
    remapped = {
        'image': image,
        'image/compressed': f'{image}/compressed',
        'camera_info': camera_info,
    }
    heard = [remapped[topic.name] for topic in SUBSCRIBED]
    if reference:  # the parameter reference.topic, its camera_info if it is an image, and tf2's
        heard += [reference, f'{reference.rpartition("/")[0]}/camera_info', '/tf', '/tf_static']
    published = [*(topic.name for topic in (*OUTPUTS, DIAGNOSTICS)), *PUBLISHED_BY_RCLPY]
    policy = ElementTree.Element('policy', version='0.2.0')
    enclaves = ElementTree.SubElement(policy, 'enclaves')
    path = f'{namespace.rstrip("/")}/{NODE}'
    profiles = ElementTree.SubElement(
        ElementTree.SubElement(enclaves, 'enclave', path=path), 'profiles'
    )
    profile = ElementTree.SubElement(profiles, 'profile', ns=namespace, node=NODE)
    _allow(profile, 'topic', heard, subscribe='ALLOW')
    _allow(profile, 'topic', published, publish='ALLOW')
    services = [*(service.name for service in SERVICES), *SERVICES_OF_RCLPY]
    _allow(profile, 'service', services, reply='ALLOW')
    ElementTree.indent(policy)
    note = '<!-- Made by `python -m llm_mde_ros.sros2_policy`; a test compares. -->'
    text = ElementTree.tostring(policy, encoding='unicode')
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{note}\n{text}\n'


def _allow(
    profile: ElementTree.Element, kind: str, names: Iterable[str], **permission: str
) -> None:
    group = ElementTree.SubElement(profile, f'{kind}s', permission)
    for name in names:
        ElementTree.SubElement(group, kind).text = name


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Print the SROS 2 policy of the node.')
    parser.add_argument('--image', default='image', help='topic that image is remapped to')
    parser.add_argument('--camera-info', default='camera_info', help='likewise for camera_info')
    parser.add_argument('--reference', default='', help='what reference.topic will be')
    parser.add_argument('--namespace', default='/', help='namespace of the node')
    print(sros2_policy(**vars(parser.parse_args())), end='')
