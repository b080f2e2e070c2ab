"""Depth of the node against a depth image, a scan or a lidar of the same robot, as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
import math
import time

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
import torch

from llm_mde_core.geometry import Camera
from llm_mde_ros.accuracy_figures import NOTHING, AccuracyFigures, AccuracyWindow
from llm_mde_ros.conversions import camera_from_info
from llm_mde_ros.depth_correction import DepthCorrection
from llm_mde_ros.extrinsics import (
    FrameTransforms,
    move_points,
    parse_extrinsics,
    sensor_to_optical,
)
from llm_mde_ros.frame_error import FRAME_FAULTS, describe
from llm_mde_ros.reference_depth import Reference, reference_to_points, seen_by
from llm_mde_ros.reference_history import ReferenceHistory, stamp_ns
from llm_mde_ros.reference_settings import ReferenceSettings

MAX_BIAS = 0.14  # log of a factor 1.15, above which the diagnostics warn
MIN_SAMPLES = 10  # to say anything about a frame
STALE_AFTER_S = 5.0


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
        self._seen_ns = 0  # stamp of the last frame
        self._stamp_ns = 0  # and of the last one that was learnt from
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

    def reset(self) -> None:
        """Let figures and correction begin anew with the next frame; from any thread."""
        self._compared = None

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
        published: torch.Tensor,
        camera: Camera,
        header: Header,
        settings: ReferenceSettings,
        limits_m: tuple[float, float],
    ) -> None:
        """
        Compare a frame: the network's depth, and what became of it; float32 (H, W) metres.

        The figures are of what is published, with correction and filters, where that is known; the
        correction learns from the network's, also where nothing is published of it. limits_m:
        reference beyond it does not count.
        What goes wrong is told by verdict(): a reference that cannot be used is no reason to lose
        the frame.
        """
        if not settings.reference_topic:
            return
        with self._told():
            message, offset_s = self._nearest(header, settings)
            points = reference_to_points(message, self._camera_of(message, camera, header))
            seen = seen_by(camera, move_points(points, self._matrix(message, header, settings)))
            pixels = [torch.from_numpy(i).to(depth.device) for i in (seen.rows, seen.columns)]
            published_m = published[pixels[0], pixels[1]].cpu().numpy()
            counts = (seen.depth_m >= limits_m[0]) & (seen.depth_m <= limits_m[1])
            if settings.reference_correct:
                predicted_m = depth[pixels[0], pixels[1]].cpu().numpy()
                learned = counts & _is_depth(predicted_m)
                self._learn(predicted_m[learned], seen.depth_m[learned], stamp_ns(header))
            known = counts & _is_depth(published_m)
            if known.sum() < MIN_SAMPLES:
                raise ValueError(
                    f'of {len(points)} points of {message.header.frame_id!r}, {known.sum()} are '
                    'in the image with a depth within depth.min_m and depth.max_m; check where '
                    'the sensor stands, and looks'
                )
            self._window.add(published_m[known], seen.depth_m[known])
            self._compared_s, self._offset_s = time.monotonic(), offset_s

    def _learn(self, predicted_m: np.ndarray, reference_m: np.ndarray, at_ns: int) -> None:
        """Let the samples of a frame into the correction, as far as time has gone on."""
        elapsed_s = (at_ns - self._stamp_ns) / 1e9 if self._stamp_ns else 0.0
        self._stamp_ns = at_ns
        self.correction = self.correction.towards(predicted_m, reference_m, elapsed_s=elapsed_s)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Keep what went wrong for verdict()."""
        try:
            yield
        except FRAME_FAULTS as error:
            self._problem = f'Depth cannot be compared: {describe(error)}.'
        else:
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
        went_back = stamp_ns(header) < self._seen_ns
        self._seen_ns = stamp_ns(header)
        if went_back:
            self._transforms.clear()
        if about != self._compared or went_back:
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
        """Return those of the last frames, as published; NaN when none was compared lately."""
        age_s = self._age_s()
        is_stale = age_s is None or age_s > STALE_AFTER_S
        return NOTHING if is_stale else self._window.figures()

    def verdict(self) -> tuple[bytes, str]:
        """Return level and sentence of the diagnostics."""
        figures = self.figures()
        if not figures.samples:
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


def _is_depth(values_m: np.ndarray) -> np.ndarray:
    return np.isfinite(values_m) & (values_m > 0)


def _percent(bias: float) -> str:
    """Say a median log ratio in words."""
    return f'{abs(math.expm1(bias)):.0%} too {"far" if bias > 0 else "near"}'
