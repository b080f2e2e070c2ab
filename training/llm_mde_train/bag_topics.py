"""Which topics of a bag are colour, depth and camera_info, and whether depth fits the colour."""

from __future__ import annotations

from dataclasses import dataclass
import difflib
import re
from typing import Any

import numpy as np

from llm_mde_core import Camera
from llm_mde_train.bag_reader import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, BagReader
from llm_mde_train.registration import Registration, find_transform
from llm_mde_train.ros_images import image_size, is_color, is_depth, to_camera

TF_STATIC = '/tf_static'
# Of the width: drivers publish nominal values (525 px) for depth that they register to a
# calibrated colour camera (517 px); depth that is not registered is much further off.
SAME_VIEW = 0.03
_RECTIFIED = re.compile(r'(^|[/_])rect')  # image_rect, image_rect_color; not direct


@dataclass(frozen=True)
class BagTopics:
    """What is read of a bag: the topics, the colour camera, and how depth gets onto its grid."""

    color: str
    depth: str
    camera: Camera
    registration: Registration | None  # None: depth is on the colour image's grid


def find_topics(bag: BagReader, *, color: str = '', depth: str = '', info: str = '') -> BagTopics:
    """
    Find the topics that are not named, by their types, and the camera.

    A raw topic is preferred to its compressed twin, colour to grey, and depth that is registered
    to the colour image to depth that is not. Raises ValueError, listing the topics in question,
    when several or none are left, and when depth cannot be brought onto the colour image.
    """
    images = (IMAGE, COMPRESSED_IMAGE)
    for name, allowed in ((color, images), (depth, images), (info, (CAMERA_INFO,))):
        if name:
            _check_named(bag, name, allowed)
    firsts = _first_images(bag)
    if not color:
        plain = {t: first for t, first in firsts.items() if not is_depth(first)}
        colored = {t: first for t, first in plain.items() if is_color(first)}
        color = _only(bag, colored or plain, 'colour', option='color_topic')
    first_color = bag.first(color)
    camera = _camera_of(bag, color, first_color, named=info)
    if not depth:
        depths = {t: first for t, first in firsts.items() if is_depth(first) and t != color}
        fitting = {t: f for t, f in depths.items() if not _misfit(bag, t, f, first_color, camera)}
        depth = _only(bag, fitting or depths, 'depth', option='depth_topic')
    first_depth = bag.first(depth)
    registration = None
    if why := _misfit(bag, depth, first_depth, first_color, camera):
        registration = _register(bag, depth, first_depth, first_color, camera, why=why)
    return BagTopics(color=color, depth=depth, camera=camera, registration=registration)


def _check_named(bag: BagReader, name: str, allowed: tuple[str, ...]) -> None:
    if name not in bag.topics:
        near = difflib.get_close_matches(name, bag.topics, n=1)
        hint = f', did you mean {near[0]}?' if near else ''
        raise ValueError(f'{bag.path} has no messages on {name}{hint}\n{_listing(bag)}')
    if bag.topics[name] not in allowed:
        raise ValueError(f'{name} is {bag.topics[name]}, not {" or ".join(allowed)}')


def _first_images(bag: BagReader) -> dict[str, Any]:
    """Return the first message of every image topic; a raw topic stands for its twins."""
    topics = [t for t, kind in bag.topics.items() if kind in (IMAGE, COMPRESSED_IMAGE)]
    return {t: bag.first(t) for t in sorted(topics) if t.rpartition('/')[0] not in topics}


def _only(bag: BagReader, candidates: dict[str, Any], what: str, *, option: str) -> str:
    if not candidates:
        raise ValueError(f'{bag.path} has no {what} images:\n{_listing(bag)}')
    if len(candidates) > 1:
        raise ValueError(
            f'{bag.path} has several topics of {what} images, name one as {option}: '
            f'{", ".join(candidates)}'
        )
    return next(iter(candidates))


def _listing(bag: BagReader) -> str:
    return '\n'.join(f'  {topic}  {kind}' for topic, kind in sorted(bag.topics.items()))


def _camera_of(bag: BagReader, topic: str, first: Any, *, named: str = '') -> Camera:
    camera = _camera_beside(bag, topic, named=named)
    if camera is None:
        infos = [t for t, kind in bag.topics.items() if kind == CAMERA_INFO]
        choice = f'name one of {", ".join(infos)} as info_topic' if infos else 'it has none at all'
        raise ValueError(f'no camera_info lies beside {topic} in {bag.path}; {choice}')
    if (camera.height, camera.width) != image_size(first):
        height, width = image_size(first)
        raise ValueError(
            f'{topic} is {width} x {height}, its camera_info is for '
            f'{camera.width} x {camera.height}; record the camera_info of these images'
        )
    return camera


def _camera_beside(bag: BagReader, topic: str, *, named: str = '') -> Camera | None:
    """Return the camera of an image topic, from the CameraInfo named or beside it, or None."""
    above = topic.rpartition('/')[0]
    beside = [f'{above}/camera_info', f'{above.rpartition("/")[0]}/camera_info']
    chosen = [t for t in (named, *beside) if bag.topics.get(t) == CAMERA_INFO]
    if not chosen:
        return None
    return to_camera(bag.first(chosen[0]), rectified=bool(_RECTIFIED.search(topic)))


def _misfit(bag: BagReader, topic: str, depth: Any, color: Any, camera: Camera) -> str:
    """Say why depth is not on the colour image's grid; nothing when it is."""
    frames = [_frame(message) for message in (depth, color)]
    if frames[0] != frames[1]:
        return f'its frame is {frames[0]!r}, that of the colour {frames[1]!r}'
    (height, width), size = image_size(depth), (camera.height, camera.width)
    if (height, width) != size:
        return f'it is {width} x {height}, the colour {camera.width} x {camera.height}'
    seen = _camera_beside(bag, topic)
    if seen is not None and not _same_view(seen, camera):
        return (
            f'its focal lengths and centre are {_numbers(seen)}, those of the colour '
            f'{_numbers(camera)}'
        )
    return ''


def _register(
    bag: BagReader, topic: str, depth: Any, color: Any, camera: Camera, *, why: str
) -> Registration:
    """Return the way of depth onto the colour image; ValueError when the bag does not tell it."""
    refusal = f'{topic} of {bag.path} is not registered to the colour image: {why}'
    advice = 'record depth that the driver aligns to colour'
    if _camera_beside(bag, topic) is None:
        raise ValueError(f'{refusal}; no camera_info beside it, so nothing can be done: {advice}')
    seen = _camera_of(bag, topic, depth)
    transforms = []
    if TF_STATIC in bag.topics:
        transforms = [t for message in bag.all(TF_STATIC) for t in message.transforms]
    move = find_transform(transforms, source=_frame(depth), target=_frame(color))
    if move is None:
        raise ValueError(f'{refusal}; {TF_STATIC} does not join the two frames: {advice}')
    return Registration(depth_camera=seen, color_camera=camera, depth_to_color=move)


def _frame(message: Any) -> str:
    return message.header.frame_id.lstrip('/')


def _same_view(one: Camera, other: Camera) -> bool:
    near_px = SAME_VIEW * other.width
    return bool(np.allclose(_numbers(one), _numbers(other), rtol=0, atol=near_px))


def _numbers(camera: Camera) -> tuple[float, ...]:
    return tuple(round(value, 1) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
