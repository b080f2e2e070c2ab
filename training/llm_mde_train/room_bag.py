"""
Records a rendered room as a rosbag2: a camera that moves smoothly, with exact aligned depth.

    python -m llm_mde_train.room_bag BAG [--seed 1] [--seconds 4] [--size 640x480]

Topics: `COLOR` rgb8, `DEPTH` 16UC1 in millimetres or 32FC1 in metres, and the camera_info of
both, all with equal stamps and the frame `FRAME_ID`.
"""

from collections.abc import Iterator
from pathlib import Path
import tempfile
from typing import Annotated

import numpy as np
from rich.console import Console
from rich.progress import track
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
import torch
import typer

from llm_mde_core.geometry import Camera
from llm_mde_train.room_layouts import furnished_office, is_free
from llm_mde_train.room_scene import Dice, Pose, Scene
from llm_mde_train.room_sensor import Sensor, expose
from llm_mde_train.rooms import render_scenes

COLOR = '/camera/color/image_raw'
DEPTH = '/camera/aligned_depth_to_color/image_raw'
FRAME_ID = 'camera_optical_frame'
KINECT_HFOV_DEG = 62.0
RATE_HZ = 10
START_NS = 1_700_000_000_000_000_000
JITTER_NS = 400_000
CLEARANCE_M = 0.25
_TYPES = get_typestore(Stores.ROS2_HUMBLE)


def write_room_bag(
    path: Path,
    *,
    seed: int = 1,
    seconds: float = 4.0,
    width: int = 640,
    height: int = 480,
    depth_encoding: str = '16UC1',
) -> int:
    """
    Write a new bag at path and return its number of frames.

    Raises ValueError where the path exists or an option makes no sense.
    """
    if path.exists():
        raise ValueError(f'{path} exists; name a new bag or remove it first')
    if depth_encoding not in ('16UC1', '32FC1'):
        raise ValueError(f'depth encoding {depth_encoding!r} is neither 16UC1 nor 32FC1')
    count = round(seconds * RATE_HZ)
    if count < 1:
        raise ValueError(f'{seconds} s at {RATE_HZ} Hz make no frame')
    path.parent.mkdir(parents=True, exist_ok=True)
    camera = Camera.from_hfov(width=width, height=height, hfov_deg=KINECT_HFOV_DEG)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.rendering-') as folder:
        whole = Path(folder) / path.name  # the final name never holds half a bag
        with Writer(whole, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            _write_frames(writer, camera, seed=seed, count=count, depth_encoding=depth_encoding)
        whole.rename(path)
    return count


def camera_path(rng: Dice, scene: Scene, target, count: int) -> list[Pose]:
    """Return a smooth path through free space that keeps looking near the target."""
    room = 2 * np.array(scene.room.half)
    for _ in range(200):
        start, end = (
            np.array([rng.uniform(0.6, room[0] - 0.6), rng.uniform(0.6, room[1] - 0.6), 0])
            for _ in range(2)
        )
        start[2], end[2] = rng.uniforms(2, 1.0, 1.6)
        # A path for a second of walking speed at most, and short enough for few frames.
        reach = min(1.0, 0.04 * count / np.linalg.norm(end - start))
        end = start + (end - start) * reach
        phase = np.linspace(0, 1, count)
        ease = phase * phase * (3 - 2 * phase)
        sway = np.stack([0 * phase, 0 * phase, 0.03 * np.sin(2 * np.pi * 2 * phase)], 1)
        places = start + ease[:, None] * (end - start) + sway
        away = np.linalg.norm(places[:, :2] - np.asarray(target)[:2], axis=1)
        free = all(is_free(scene, place, CLEARANCE_M) for place in places)
        if free and (away > 0.9).all() and (away < 3.0).all():
            aims = np.asarray(target) + 0.35 * np.stack(
                [np.sin(5 * phase), np.cos(4 * phase), 0.4 * np.sin(3 * phase)], 1
            )
            rolls = 2.0 * np.sin(7 * phase)
            return [
                Pose.looking_at(place, aim, roll_deg=roll)
                for place, aim, roll in zip(places, aims, rolls.tolist(), strict=True)
            ]
    raise ValueError('no free path through this room; take another seed')


def render_frames(*, seed: int, count: int, camera: Camera) -> Iterator[tuple]:
    """Yield rgb uint8 (H, W, 3) and exact depth float32 (H, W) in metres of every frame."""
    rng = Dice(f'bag {seed}')
    scene, target = furnished_office(rng)
    for pose in camera_path(rng, scene, target, count):
        light, depth = render_scenes([scene], [pose], [camera])
        rgb = expose(light, [Sensor()], [rng])
        yield rgb[0].numpy(), depth[0].numpy()


def _write_frames(writer: Writer, camera: Camera, *, seed: int, count: int, depth_encoding: str):
    kinds = {
        COLOR: 'Image',
        DEPTH: 'Image',
        _info(COLOR): 'CameraInfo',
        _info(DEPTH): 'CameraInfo',
    }
    topics = {
        topic: writer.add_connection(topic, f'sensor_msgs/msg/{kind}', typestore=_TYPES)
        for topic, kind in kinds.items()
    }
    jitter = Dice(f'stamps {seed}')
    frames = track(
        render_frames(seed=seed, count=count, camera=camera),
        description='frames',
        total=count,
        console=Console(stderr=True),
    )
    for number, (rgb, depth_m) in enumerate(frames):
        stamp_ns = START_NS + number * 10**9 // RATE_HZ + jitter.randrange(JITTER_NS)
        info = _camera_info(camera, stamp_ns)
        messages = {
            _info(COLOR): info,
            COLOR: _image(rgb, 'rgb8', stamp_ns),
            _info(DEPTH): info,
            DEPTH: _depth_image(depth_m, depth_encoding, stamp_ns),
        }
        for topic, message in messages.items():
            writer.write(
                topics[topic], stamp_ns, _TYPES.serialize_cdr(message, message.__msgtype__)
            )


def _info(topic: str) -> str:
    return topic.removesuffix('image_raw') + 'camera_info'


def _header(stamp_ns: int):
    time = _TYPES.types['builtin_interfaces/msg/Time'](
        sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
    )
    return _TYPES.types['std_msgs/msg/Header'](stamp=time, frame_id=FRAME_ID)


def _image(pixels: np.ndarray, encoding: str, stamp_ns: int):
    height, width = pixels.shape[:2]
    return _TYPES.types['sensor_msgs/msg/Image'](
        header=_header(stamp_ns),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.strides[0],
        data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
    )


def _depth_image(depth_m: np.ndarray, encoding: str, stamp_ns: int):
    """Return an image of depth; unknown is NaN in 32FC1 and 0 in 16UC1 (REP 118)."""
    if encoding == '32FC1':
        return _image(depth_m.astype('<f4'), encoding, stamp_ns)
    millimetres = np.nan_to_num(np.rint(depth_m * 1000.0), nan=0.0).clip(0, 65535)
    return _image(millimetres.astype('<u2'), encoding, stamp_ns)


def _camera_info(camera: Camera, stamp_ns: int):
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    roi = _TYPES.types['sensor_msgs/msg/RegionOfInterest'](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return _TYPES.types['sensor_msgs/msg/CameraInfo'](
        header=_header(stamp_ns),
        height=camera.height,
        width=camera.width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]),
        r=np.eye(3).reshape(-1),
        p=np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1.0, 0]),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def main(
    bag: Path,
    seed: Annotated[int, typer.Option(help='Number of the room and of the path.')] = 1,
    seconds: Annotated[float, typer.Option(help='Length at 10 frames a second.')] = 4.0,
    size: Annotated[str, typer.Option(help='Pixels, WIDTHxHEIGHT.')] = '640x480',
    depth: Annotated[str, typer.Option(help='16UC1 (millimetres) or 32FC1 (metres).')] = '16UC1',
) -> None:
    """Render a furnished room as a rosbag2 (mcap) with exact depth."""
    torch.set_grad_enabled(False)
    try:
        width, height = (int(number) for number in size.split('x'))
        count = write_room_bag(
            bag, seed=seed, seconds=seconds, width=width, height=height, depth_encoding=depth
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f'{bag}: {count} frames')


if __name__ == '__main__':
    typer.run(main)
