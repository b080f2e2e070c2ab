"""Every topic and service of the node: name, type and meaning."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger

from llm_mde_ros.stats import DepthStats

try:
    from llm_mde_msgs.srv import LoadAdapter
except ImportError:  # the parameter `adapter` does the same
    LoadAdapter = None


@dataclass(frozen=True)
class Topic:
    """One row of the README's table; message_type is None where the messages are not installed."""

    name: str
    message_type: type | None
    type_name: str
    meaning: str


SUBSCRIBED = (
    Topic(
        'image',
        Image,
        'sensor_msgs/Image',
        'Colour or grey image; with image_transport raw',
    ),
    Topic(
        'image/compressed',
        CompressedImage,
        'sensor_msgs/CompressedImage',
        'JPEG or PNG; with image_transport compressed. Follows a remapping of image',
    ),
    Topic(
        'camera_info',
        CameraInfo,
        'sensor_msgs/CameraInfo',
        'Calibration of the image, rectified or not; every change is picked up',
    ),
)

# All have the stamp and the frame of the image, and are made only while somebody subscribes.
OUTPUTS = (
    Topic(
        'depth/image',
        Image,
        'sensor_msgs/Image',
        'Metres along Z as 32FC1, NaN where unknown (REP 118); or 16UC1 millimetres, 0 unknown',
    ),
    Topic(
        'depth/camera_info',
        CameraInfo,
        'sensor_msgs/CameraInfo',
        'Calibration that fits depth/image',
    ),
    Topic(
        'depth/preview',
        Image,
        'sensor_msgs/Image',
        'Depth as colours of a fixed range, for people',
    ),
    Topic(
        'confidence',
        Image,
        'sensor_msgs/Image',
        '32FC1, 0 to 1: probability that the depth is within a factor 1.25 of the truth; 0 where '
        'it is unknown',
    ),
    Topic(
        'points',
        PointCloud2,
        'sensor_msgs/PointCloud2',
        'Points in the optical frame: x right, y down, z forward, metres',
    ),
    Topic(
        'stats',
        DepthStats,
        'llm_mde_msgs/DepthStats',
        'What made the frame, how long it took and how far it can be trusted; needs the messages '
        'of msg/',
    ),
)


@dataclass(frozen=True)
class Service:
    """One row of the README's table; service_type is None where the messages are not installed."""

    name: str
    service_type: type | None
    type_name: str
    meaning: str


SERVICES = (
    Service(
        '~/load_adapter',
        LoadAdapter,
        'llm_mde_msgs/LoadAdapter',
        'Load an adapter (empty: none) beside the one that serves, test it, and let it serve from '
        'the next image on; when anything fails, the old one goes on. Needs the messages of msg/',
    ),
    Service(
        '~/enable',
        SetBool,
        'std_srvs/SetBool',
        'false: receive and process no image until it is called with true',
    ),
    Service(
        '~/reset_filters',
        Trigger,
        'std_srvs/Trigger',
        'Let smoothing over time and the correction by another sensor begin anew',
    ),
    Service(
        '~/save_frame',
        Trigger,
        'std_srvs/Trigger',
        'Write the next image, its depth, cloud, calibration and all figures into a folder of '
        'its own in save_folder, as for a bug report; the answer names it',
    ),
    Service(
        '~/info',
        Trigger,
        'std_srvs/Trigger',
        'Model, adapter, parameters and versions, as JSON',
    ),
)

DIAGNOSTICS = Topic(
    '/diagnostics',
    DiagnosticArray,
    'diagnostic_msgs/DiagnosticArray',
    'Rates, latency, dropped frames by reason, and what to do about them',
)
