"""The thread that makes outputs of the newest image: convert, infer, convert, publish."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
import torch

from llm_mde_core.filters import DepthFilters
from llm_mde_core.prediction import DepthPrediction
from llm_mde_ros.camera_source import CameraSource, RecentInfos
from llm_mde_ros.conversions import compressed_to_rgb, image_to_rgb
from llm_mde_ros.frame_counters import FrameCounters
from llm_mde_ros.frame_error import FrameError, stage
from llm_mde_ros.frame_slot import Frame, FrameSlot, RateLimiter
from llm_mde_ros.frame_times import FrameTimes
from llm_mde_ros.live_accuracy import LiveAccuracy
from llm_mde_ros.output_publishers import OutputPublishers
from llm_mde_ros.outputs import make_outputs, within_limits
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.saved_frame import WorkedFrame
from llm_mde_ros.served_model import ServedModel
from llm_mde_ros.stats import depth_stats

STOP_S = 5.0  # for the frame in work, until it is told that it takes long


class FrameWorker:
    """Works on the frames of its slot until stopped; all state of a stream lives here."""

    def __init__(
        self,
        *,
        estimator: ServedModel,
        publishers: OutputPublishers,
        counters: FrameCounters,
        accuracy: LiveAccuracy,
        parameters: Callable[[], DepthNodeParameters],
        now_ns: Callable[[], int],
        warn: Callable[[str, str], None],
    ) -> None:
        self.slot = FrameSlot()
        self.infos = RecentInfos()
        self.cameras = CameraSource()
        self.filters = DepthFilters()
        self._estimator = estimator
        self._made_by: tuple[str, str] | None = None  # the last frame
        self._publishers = publishers
        self._counters = counters
        self._accuracy = accuracy
        self._parameters = parameters
        self._now_ns = now_ns  # of the clock that stamps the images
        self._warn = warn  # (kind, sentence), throttled for each kind
        self._points_limiter = RateLimiter()
        self.enabled = True  # False: frames are not worked on
        self._show: Callable[[WorkedFrame], None] | None = None
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix='depth')
        self._work = pool.submit(self._run)
        pool.shutdown(wait=False)  # the pool ends with its one task

    def check(self) -> None:
        """Raise what ended the thread, if it has ended: a bug shall not go unseen."""
        if self._work.done():
            self._work.result()

    def stop(self) -> None:
        """Finish the frame in work, say so while that takes long, and end the thread."""
        self.slot.close()
        while not wait([self._work], timeout=STOP_S).done:
            self._warn(
                'stop',
                'Still waits for the image in work. If that never ends, the network hangs: end '
                'the process; a second signal does it at once.',
            )
        self._work.result()

    def reset_filters(self) -> None:
        """Let smoothing and correction begin anew; from any thread."""
        self.filters.reset()
        self._accuracy.reset()

    def show_next(self, show: Callable[[WorkedFrame], None] | None) -> None:
        """Show the next frame that is not dropped, wanted or not, in this thread; None: do not."""
        self._show = show

    def _run(self) -> None:
        for frame in self.slot:
            parameters = self._parameters()
            wanted = self._wanted(frame, parameters)
            if self.enabled and (wanted or self._show):
                self._process(frame, wanted, parameters)
            else:
                self._counters.unwanted += 1

    def _wanted(self, frame: Frame, parameters: DepthNodeParameters) -> set[str]:
        """Return the outputs that somebody listens to and that are due."""
        wanted = {name for name, count in self._publishers.subscribers().items() if count}
        if 'points' in wanted and not self._points_limiter.allows(
            frame.stamp_ns, max_rate_hz=parameters.points_max_rate_hz
        ):
            wanted.remove('points')
        return wanted

    def _process(self, frame: Frame, wanted: set[str], parameters: DepthNodeParameters) -> None:
        """Publish the wanted outputs of a frame, or drop it and count why."""
        times = FrameTimes(frame.received_s)
        times.end('wait')
        try:
            worked, messages, compare = self._outputs(frame, wanted - {'stats'}, parameters, times)
        except FrameError as error:
            self._counters.count_dropped(error.stage, str(error))
            self._warn(error.stage, f'Image dropped ({error.stage}): {error}')
            return
        if not self.enabled:  # switched off meanwhile
            self._counters.unwanted += 1
            return
        failed = self._publish(messages)
        if messages and len(failed) == len(messages):
            sentence = f'DDS took no message on {", ".join(failed)}.'
            self._counters.count_dropped('publishing', sentence)
            return
        times.end('publish')
        times.set_age(stamp_ns=frame.stamp_ns, now_ns=self._now_ns())
        if wanted:
            self._counters.count_published(times)
        else:
            self._counters.unwanted += 1
        if 'stats' in wanted:
            self._publish_stats(frame, worked.prediction, parameters, times)
        show, self._show = self._show, None
        if show:
            show(worked)
        compare()  # last: nobody waits for it

    def _publish_stats(
        self,
        frame: Frame,
        prediction: DepthPrediction,
        parameters: DepthNodeParameters,
        times: FrameTimes,
    ) -> None:
        try:
            with stage('stats'):
                stats = depth_stats(
                    prediction,
                    header=frame.message.header,
                    counters=self._counters,
                    times=times,
                    made_by=self._made_by,
                    calibrated=not self.cameras.warning,
                    accuracy=self._accuracy,
                )
        except FrameError as error:  # all other outputs of the frame are out
            self._warn('stats', f'No stats of this image: {error}')
            return
        self._publish({'stats': stats})

    def _outputs(
        self, frame: Frame, wanted: set[str], parameters: DepthNodeParameters, times: FrameTimes
    ) -> tuple[WorkedFrame, dict[str, Any], Callable[[], None]]:
        """Convert, infer, convert, and say how to compare; FrameError when one cannot."""
        with stage('image'):
            rgb = _decode(frame.message, max_pixels=round(1e6 * parameters.max_megapixels))
        times.end('decode')
        with stage('camera_info'):
            camera, info = self.cameras.for_image(
                self.infos.at(frame.message.header),
                width=rgb.shape[1],
                height=rgb.shape[0],
                hfov_deg=parameters.hfov_deg,
                timeout_s=parameters.camera_info_timeout_s,
                rectified=parameters.image_rectified,
                image_frame=frame.message.header.frame_id,
            )
        if self.cameras.warning:
            self._warn('camera', self.cameras.warning)
        times.end('camera')
        with stage('inference'), self._counters.busy():
            prediction = self._estimator.infer(rgb, camera)
        if self._estimator.made_by is not self._made_by:  # nothing of another model goes on
            self._made_by = self._estimator.made_by
            self.reset_filters()
        times.end_all(prediction.stage_s)
        self._counters.processed += 1
        header, network_depth = frame.message.header, prediction.depth
        settings = parameters.reference_settings
        with stage('outputs'):
            corrected = self._accuracy.correct(
                network_depth, camera=camera, header=header, settings=settings
            )
            depth = self.filters(
                corrected,
                camera=camera,
                stamp_ns=frame.stamp_ns,
                settings=parameters.filter_settings,
            )
            prediction = within_limits(
                replace(prediction, depth=depth), parameters.output_settings
            )
            self._counters.count_seen(bool(torch.isfinite(prediction.depth).any()))
            messages = make_outputs(
                prediction,
                rgb=rgb,
                camera=camera,
                header=frame.message.header,
                wanted=wanted,
                settings=parameters.output_settings,
                source_info=info,
            )
        times.end('outputs')
        worked = WorkedFrame(
            rgb=rgb,
            prediction=prediction,
            camera=camera,
            source_info=info,
            header=frame.message.header,
            times=times,
        )
        compare = partial(
            self._accuracy.compare,
            network_depth,
            published=prediction.depth,
            camera=camera,
            header=header,
            settings=settings,
            limits_m=(parameters.depth_min_m, parameters.depth_max_m),
        )
        return worked, messages, compare

    def _publish(self, messages: dict[str, Any]) -> list[str]:
        """Send and count the messages; return the topics where that failed."""
        failed = self._publishers.publish(messages)
        self._counters.publish_errors += len(failed)
        self._counters.published_of.update(messages.keys() - set(failed))
        return failed


def _decode(message: Image | CompressedImage, *, max_pixels: int) -> np.ndarray:
    """Return uint8 (H, W, 3) RGB; ValueError when the message is no such image, or too large."""
    if isinstance(message, CompressedImage):
        return compressed_to_rgb(message, max_pixels=max_pixels)
    if message.width * message.height > max_pixels:
        raise ValueError(
            f'the image has {message.width} x {message.height} pixels, more than max_megapixels '
            f'allows ({max_pixels / 1e6:g})'
        )
    return image_to_rgb(message)
