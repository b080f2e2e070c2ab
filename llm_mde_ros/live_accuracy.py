"""Depth of the node against a depth image, a scan or a lidar of the same robot, as it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
import math
import time

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
import torch

from llm_mde_core.geometry import Camera
from llm_mde_ros.accuracy_figures import AccuracyFigures, AccuracyWindow
from llm_mde_ros.conversions import camera_from_info
from llm_mde_ros.depth_correction import DepthCorrection
from llm_mde_ros.extrinsics import (
    FrameTransforms,
    move_points,
    parse_extrinsics,
    sensor_to_optical,
)
from llm_mde_ros.reference_depth import Reference, reference_to_points, seen_by
from llm_mde_ros.reference_history import ReferenceHistory, stamp_ns

MAX_BIAS = 0.14  # log of a factor 1.15, above which the diagnostics warn
MIN_SAMPLES = 10  # to say anything about a frame
STALE_AFTER_S = 5.0


@dataclass(frozen=True)
class ReferenceSettings:
    """How depth is compared; these are the defaults of the node."""

    reference_topic: str = ''
    reference_extrinsics: str = ''  # see parse_extrinsics(); empty: from /tf
    reference_tolerance_s: float = 0.05
    reference_correct: bool = False
    reference_max_factor: float = 1.25

    def __post_init__(self) -> None:
        if self.reference_topic:
            _check_topic(self.reference_topic)
        if self.reference_extrinsics:
            parse_extrinsics(self.reference_extrinsics)
        if not self.reference_tolerance_s >= 0:
            raise ValueError(
                f'reference_tolerance_s is {self.reference_tolerance_s}, expected 0 or more'
            )
        if not 1 <= self.reference_max_factor <= 2:
            raise ValueError(
                f'reference_max_factor is {self.reference_max_factor}, expected 1 to 2'
            )


class LiveAccuracy:
    """
    Compares frames with the reference nearest in time, and holds a correction from that.

    restart(), add() and add_camera_info() belong to the thread of the subscriptions, correct() and
    compare() to the one of the network; verdict() and values() may be read from any.
    """

    def __init__(self, transforms: FrameTransforms) -> None:
        self._transforms = transforms
        self._history = ReferenceHistory()
        self._info: CameraInfo | None = None
        self._compared: tuple | None = None  # what the figures are about
        self._stamp_ns = 0
        self._compared_s: float | None = None  # time.monotonic
        self._offset_s = math.nan
        self._window = AccuracyWindow()
        self._unmatched = 0
        self._problem = ''
        self.input_problem = ''  # why there are no messages
        self.correction = DepthCorrection()

    # Inputs

    def restart(self) -> None:
        """Forget the messages of a topic that is no longer the reference."""
        self._history.clear()
        self._info = None  # the other thread reads it once, into a name of its own

    def add(self, message: Reference) -> None:
        """Take a message of the other sensor."""
        self._history.add(message)

    def add_camera_info(self, info: CameraInfo) -> None:
        """Take the calibration of a depth image."""
        self._info = info

    # Frames

    def correct(
        self, depth: torch.Tensor, *, camera: Camera, header: Header, settings: ReferenceSettings
    ) -> torch.Tensor:
        """
        Return depth with the held correction, if that is wanted; metres, NaN unknown.

        What was held for another camera or sensor, or for a later time, is forgotten first.
        """
        self._restart_if_changed(camera, header, settings)
        if not (settings.reference_topic and settings.reference_correct):
            self.correction = DepthCorrection()
        if self.correction.max_factor != settings.reference_max_factor:
            self.correction = replace(self.correction, max_factor=settings.reference_max_factor)
        return self.correction.apply(depth) if self.correction.changes_depth else depth

    def compare(
        self,
        depth: torch.Tensor,
        *,
        camera: Camera,
        header: Header,
        settings: ReferenceSettings,
        limits_m: tuple[float, float],
    ) -> None:
        """
        Compare a frame as the network gave it, float32 (H, W) metres; correct() came before.

        limits_m: reference beyond it does not count. What goes wrong is told by verdict(): a
        reference that cannot be used is no reason to lose the frame.
        """
        if not settings.reference_topic:
            return
        try:
            self._compare(depth, camera, header, settings, limits_m)
        except (ValueError, RuntimeError) as error:  # RuntimeError: torch, out of memory
            self._problem = f'Depth cannot be compared: {error}.'

    def _compare(
        self,
        depth: torch.Tensor,
        camera: Camera,
        header: Header,
        settings: ReferenceSettings,
        limits_m: tuple[float, float],
    ) -> None:
        message, offset_s = self._nearest(header, settings)
        points = reference_to_points(message, self._camera_of(message, camera, header))
        seen = seen_by(camera, move_points(points, self._matrix(message, header, settings)))
        pixels = [torch.from_numpy(index).to(depth.device) for index in (seen.rows, seen.columns)]
        samples = depth[pixels[0], pixels[1]]
        published_m = self.correction.apply(samples).cpu().numpy()
        predicted_m = samples.cpu().numpy()
        low_m, high_m = limits_m
        known = np.isfinite(predicted_m) & (predicted_m > 0)
        known &= (seen.depth_m >= low_m) & (seen.depth_m <= high_m)
        if known.sum() < MIN_SAMPLES:
            raise ValueError(
                f'of {len(points)} points of {message.header.frame_id!r}, {known.sum()} are in '
                'the image with a depth; check where the sensor stands, and looks'
            )
        reference_m = seen.depth_m[known]
        self._window.add(published_m[known], reference_m)
        elapsed_s = (stamp_ns(header) - self._stamp_ns) / 1e9 if self._stamp_ns else 0.0
        if settings.reference_correct:
            self.correction = self.correction.towards(
                predicted_m[known], reference_m, elapsed_s=elapsed_s
            )
        self._stamp_ns, self._offset_s = stamp_ns(header), offset_s
        self._compared_s = time.monotonic()
        self._problem = ''

    def _restart_if_changed(
        self, camera: Camera, header: Header, settings: ReferenceSettings
    ) -> None:
        about = (
            camera,
            header.frame_id,
            settings.reference_topic,
            settings.reference_extrinsics,
        )
        if about != self._compared or stamp_ns(header) < self._stamp_ns:
            self._compared, self._stamp_ns, self._compared_s = about, 0, None
            self._window.clear()
            self.correction = DepthCorrection(max_factor=settings.reference_max_factor)

    def _nearest(self, header: Header, settings: ReferenceSettings) -> tuple[Reference, float]:
        """Return the message of this time, and how many seconds after the image it is."""
        found = self._history.nearest(header)
        if found is None:
            raise ValueError(f'nothing has come on {settings.reference_topic}')
        message, offset_s = found
        if abs(offset_s) > settings.reference_tolerance_s:
            self._unmatched += 1
            raise ValueError(
                f'the message on {settings.reference_topic} nearest to the image is '
                f'{abs(offset_s):.3f} s away; synchronise the clocks, or raise '
                'reference.tolerance_s'
            )
        return message, offset_s

    def _camera_of(self, message: Reference, camera: Camera, header: Header) -> Camera | None:
        """Return the camera of a depth image: its own, or the image's when frames are the same."""
        if not isinstance(message, Image):
            return None
        info = self._info
        if info is not None:
            return camera_from_info(info)
        return camera if message.header.frame_id == header.frame_id else None

    def _matrix(
        self, message: Reference, header: Header, settings: ReferenceSettings
    ) -> np.ndarray:
        if settings.reference_extrinsics:
            pose = parse_extrinsics(settings.reference_extrinsics)
            return sensor_to_optical(pose, sensor_is_optical=isinstance(message, Image))
        return self._transforms.matrix(
            target=header.frame_id,
            source=message.header.frame_id,
            stamp=message.header.stamp,
        )

    # Reports

    def figures(self) -> AccuracyFigures:
        """Return the figures of the last frames, as published."""
        return self._window.figures()

    def verdict(self) -> tuple[bytes, str]:
        """Return level and sentence of the diagnostics."""
        figures, age_s = self.figures(), self._age_s()
        if age_s is None or age_s > STALE_AFTER_S:
            problem = self.input_problem or self._problem
            level = DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
            return level, problem or 'No frame was compared lately.'
        if self.correction.at_limit:
            return (
                DiagnosticStatus.WARN,
                f'The sensor asks for more than a factor of {self.correction.max_factor:g}: check '
                'where it stands, or adapt the model to this camera.',
            )
        if abs(figures.bias) > MAX_BIAS:
            return (
                DiagnosticStatus.WARN,
                f'Depth is {_percent(figures.bias)} against the reference: check where the '
                'sensor stands, adapt the model to this camera, or set reference.correct.',
            )
        return DiagnosticStatus.OK, f'Depth is {_percent(figures.bias)} against the reference.'

    def values(self) -> dict[str, object]:
        """Return the values of the diagnostics."""
        figures, age_s = self.figures(), self._age_s()
        return {
            'AbsRel': f'{figures.abs_rel:.3f}',
            'delta1': f'{figures.delta1:.3f}',
            'bias (median log ratio)': f'{figures.bias:+.3f}',
            'samples': figures.samples,
            'frames': figures.frames,
            'age [s]': 'none' if age_s is None else f'{age_s:.2f}',
            'reference after image [ms]': f'{1e3 * self._offset_s:.1f}',
            'frames without a reference in time': self._unmatched,
            'correction': str(self.correction) if self.correction.changes_depth else 'none',
        }

    def _age_s(self) -> float | None:
        compared_s = self._compared_s  # the worker may forget it meanwhile
        return None if compared_s is None else time.monotonic() - compared_s


def _check_topic(topic: str) -> None:
    """Raise ValueError for what is no name of a topic."""
    try:
        validate_full_topic_name(expand_topic_name(topic, 'node', '/'))
    except (InvalidTopicNameException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'reference.topic {topic!r} is no name of a topic: {reason}') from error


def _percent(bias: float) -> str:
    """Say a median log ratio in words."""
    return f'{abs(math.expm1(bias)):.0%} too {"far" if bias > 0 else "near"}'
