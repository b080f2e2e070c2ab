"""
Message <-> array: pure functions, each named for its result.

The one door to image_messages, compressed_images, camera_info and clouds; one file would be twice
as long as is comfortable to read. Bad input raises ValueError with a sentence that names it.
"""

from llm_mde_ros.camera_info import camera_from_info, camera_to_info, rectified_info
from llm_mde_ros.clouds import (
    cloud_to_points,
    empty_cloud,
    fill_cloud,
    packed_color,
    packed_points,
)
from llm_mde_ros.compressed_images import compressed_depth_to_depth, compressed_to_rgb
from llm_mde_ros.image_messages import (
    depth_to_image,
    image_to_depth,
    image_to_rgb,
    mono_to_image,
    preview_to_image,
)

__all__ = [
    'camera_from_info',
    'camera_to_info',
    'cloud_to_points',
    'compressed_depth_to_depth',
    'compressed_to_rgb',
    'depth_to_image',
    'empty_cloud',
    'fill_cloud',
    'image_to_depth',
    'image_to_rgb',
    'mono_to_image',
    'packed_color',
    'packed_points',
    'preview_to_image',
    'rectified_info',
]
