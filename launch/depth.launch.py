"""
Start the depth node for a camera or a bag, with RViz if wanted.

  ros2 launch llm_mde_ros depth.launch.py camera:=realsense rviz:=true
  ros2 launch llm_mde_ros depth.launch.py bag:=my_bag image:=/camera/color/image_raw
"""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(__file__).resolve().parents[1] / 'config'

# camera: topic and frame of the image that its driver publishes by default
CAMERAS = {
    '': ('image', 'camera_color_optical_frame'),
    'usb_cam': ('/image_raw', 'default_cam'),
    'realsense': ('/camera/camera/color/image_raw', 'camera_color_optical_frame'),
    'zed': ('/zed/zed_node/rgb/color/rect/image', 'zed_left_camera_frame_optical'),
    'oak': ('/oak/rgb/image_raw', 'oak_rgb_camera_optical_frame'),
    'gazebo': ('/camera/image_raw', 'camera_rgb_optical_frame'),
}

# argument: (default, what it is); an empty one leaves the choice to the camera or params_file
ARGUMENTS = {
    'camera': ('', f'whose topics to take: {", ".join(name for name in CAMERAS if name)}'),
    'image': ('', 'topic of the colour image, if not that of the camera'),
    'camera_info': ('', 'topic of the calibration, if not camera_info beside the image'),
    'compressed': ('false', 'subscribe to <image>/compressed'),
    'namespace': ('', 'namespace of the node and its outputs'),
    'params_file': (str(CONFIG / 'depth.yaml'), 'parameter file'),
    'model': ('', 'bundled name, folder or owner/name@commit of the hub'),
    'adapter': ('', 'folder of a peft adapter'),
    'device': ('', 'auto, cpu, cuda, cuda:N or mps'),
    'precision': ('', 'auto, fp32, fp16 or bf16'),
    'bag': ('', 'bag to play, with its clock'),
    'use_sim_time': ('', 'take the time from /clock; true with a bag'),
    'rviz': ('false', 'show colour, depth and cloud'),
    'fixed_frame': ('', 'frame to show the cloud in, if not that of the camera'),
    'fastdds': ('true', 'large messages through 64 MB of shared memory (config/fastdds.xml)'),
    'respawn': ('false', 'start the node again, after 2 s, when an error has ended it'),
    'log_level': ('info', 'debug, info, warn, error or fatal'),
}
SHOWN = ('depth/preview', 'points')  # outputs in depth.rviz, there in the root namespace
DDS = 'FASTRTPS' if os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy') else 'FASTDDS'
PROFILE = f'{DDS}_DEFAULT_PROFILES_FILE'
SWITCHES = ('compressed', 'rviz', 'fastdds', 'respawn')


def choose_topics(camera, image, camera_info):
    """Return the topics of image and calibration; a topic that is given wins."""
    if camera not in CAMERAS:
        raise ValueError(f'camera {camera!r} is none of {", ".join(filter(None, CAMERAS))}')
    image = image or CAMERAS[camera][0]
    folder, slash, _ = image.rpartition('/')
    return image, camera_info or f'{folder}{slash}camera_info'


def switched_on(name, text):
    """Read a launch argument that is true or false."""
    if text.lower() not in ('true', 'false'):
        raise ValueError(f'{name} must be true or false, not {text!r}')
    return text.lower() == 'true'


def rviz_layout(*, compressed):
    """
    Return the file of the layout; to show compressed images, that of a changed copy.

    RViz takes the transport from the name of the topic in the layout, before remapping.
    """
    layout = CONFIG / 'depth.rviz'
    if not compressed:
        return str(layout)
    text = layout.read_text().replace('Value: /image\n', 'Value: /image/compressed\n')
    with NamedTemporaryFile('w', prefix='depth_', suffix='.rviz', delete=False) as copy:
        copy.write(text)  # it stays, like the parameter files that launch_ros writes
    return copy.name


def start(context):
    """Make the actions from the values of the arguments."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    on = {name: switched_on(name, given[name]) for name in SWITCHES}
    image, camera_info = choose_topics(given['camera'], given['image'], given['camera_info'])
    frame = CAMERAS[given['camera']][1]
    clock = given['use_sim_time'] or ('true' if given['bag'] else '')
    time = [{'use_sim_time': switched_on('use_sim_time', clock)}] if clock else []

    profile = os.environ.get(PROFILE, str(CONFIG / 'fastdds.xml'))
    env = {PROFILE: profile} if on['fastdds'] else {}
    texts = {name: given[name] for name in ('model', 'adapter', 'device', 'precision')}
    texts['image_transport'] = 'compressed' if on['compressed'] else ''
    overrides = {
        name: ParameterValue(text, value_type=str) for name, text in texts.items() if text
    }
    depth_node = Node(
        package='llm_mde_ros',
        executable='depth_node',
        namespace=given['namespace'],
        parameters=[given['params_file'], overrides, *time],
        remappings=[('image', image), ('camera_info', camera_info)],
        ros_arguments=['--log-level', given['log_level']],
        additional_env=env,
        respawn=on['respawn'],
        respawn_delay=2.0,
        output='screen',
    )
    player = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', given['bag'], '--clock'],
        additional_env=env,
        output='screen',
    )
    layout = rviz_layout(compressed=on['rviz'] and on['compressed'])
    colour = [('/image', image), ('/image/compressed', f'{image}/compressed')]
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        namespace=given['namespace'],
        parameters=time,
        remappings=[*colour, *((f'/{topic}', topic) for topic in SHOWN)],
        arguments=['-d', layout, '-f', given['fixed_frame'] or frame],
        additional_env=env,
    )
    wanted = {depth_node: True, player: given['bag'], rviz: on['rviz']}
    return [action for action, wish in wanted.items() if wish]


def generate_launch_description():
    """Declare the arguments; the actions follow from their values."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
