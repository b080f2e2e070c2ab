"""Which camera an image was taken with: its CameraInfo, or a field of view without one."""

from __future__ import annotations

import time

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from llm_mde_core.geometry import Camera
from llm_mde_ros.camera_info import MAX_COEFFICIENTS
from llm_mde_ros.conversions import camera_from_info, rectified_info
from llm_mde_ros.reference_history import stamp_ns
from llm_mde_ros.told_text import in_utf8, shortened

MAX_INFOS = 30  # a second of most cameras; images hardly wait longer for their turn
ANOTHER_CLOCK_NS = 60_000_000_000  # so far ahead of an image is only what another clock stamped


class RecentInfos:
    """
    The last CameraInfo messages, so that an image that waited for its turn has that of its time.

    add() and keep_newest() belong to one thread, at() may be called from another.
    """

    def __init__(self) -> None:
        # In order of their stamps. Replaced and never changed: at() sees all or nothing of it.
        self._infos: tuple[CameraInfo, ...] = ()

    def add(self, info: CameraInfo) -> None:
        """
        Keep a message; one from the past (a bag that starts again) makes the others go.

        Too many coefficients are cut off to one too many: kept, so that its images are dropped
        and none gets an older calibration or hfov_deg, but small.
        """
        if len(info.d) > MAX_COEFFICIENTS:
            info.d = info.d[: MAX_COEFFICIENTS + 1]
        others = self._infos
        if others and stamp_ns(info.header) < stamp_ns(others[-1].header):
            others = ()
        self._infos = (*others, info)[-MAX_INFOS:]

    def keep_newest(self) -> None:
        """Forget the others: the stamps of the images went back, so that theirs tell nothing."""
        self._infos = self._infos[-1:]

    def at(self, header: Header) -> CameraInfo | None:
        """
        Return that of an image, the newest one that is not newer; None when there is none at all.

        The newest of all is taken when all are newer than the image (sent once and late, another
        clock, time that went back), and when it is ahead by more than ANOTHER_CLOCK_NS and none
        has the image's own stamp.
        """
        infos, image_ns = self._infos, stamp_ns(header)
        if not infos:
            return None
        ahead_ns = stamp_ns(infos[-1].header) - image_ns
        not_newer = [info for info in infos if stamp_ns(info.header) <= image_ns]
        has_own = bool(not_newer) and stamp_ns(not_newer[-1].header) == image_ns
        if has_own or (not_newer and ahead_ns <= ANOTHER_CLOCK_NS):
            return not_newer[-1]
        return infos[-1]


class CameraSource:
    """
    Answers with a Camera that fits the image; converts a CameraInfo only when it changed.

    `state` says in a few words where the last answer came from, `warning` what to do about it.
    """

    def __init__(self) -> None:
        self._converted: tuple | None = None
        self._camera: Camera | None = None
        self._waiting_since_s: float | None = None
        self.state = 'waiting for camera_info'
        self.warning = ''

    def for_image(
        self,
        info: CameraInfo | None,
        *,
        width: int,
        height: int,
        hfov_deg: float,
        timeout_s: float,
        rectified: bool,
        image_frame: str = '',
    ) -> tuple[Camera, CameraInfo | None]:
        """
        Return the camera and the message it came from, which is None when hfov_deg was used.

        info: the one that belongs to the image, None while there is none.
        rectified: the image is, whatever the distortion in camera_info, and P holds.
        image_frame: frame_id of the image; a camera_info of another one is used, with a warning.
        ValueError with a sentence while there is still time for a first camera_info, and when it
        is unusable or for another size.
        """
        if info is not None and (info.k[0] or info.p[0]):  # 0: uncalibrated, see CameraInfo.msg
            info = rectified_info(info) if rectified else info
            camera = self._from_info(info, width=width, height=height)
            self._compare_frames(info.header.frame_id, image_frame)
            return camera, info
        if info is None and self._is_time_left(timeout_s):
            raise ValueError(
                f'there is no camera_info yet; hfov_deg is used after {timeout_s:g} s without.'
            )
        missing = 'there is no camera_info' if info is None else 'camera_info is uncalibrated'
        self.state = f'{missing}, hfov_deg is used'
        self.warning = (
            f'{missing.capitalize()}: depth and points assume a field of view of {hfov_deg:g} '
            'degrees (hfov_deg). Calibrate the camera or remap camera_info.'
        )
        return Camera.from_hfov(width=width, height=height, hfov_deg=hfov_deg), None

    def _from_info(self, info: CameraInfo, *, width: int, height: int) -> Camera:
        calibration = calibration_of(info)
        if calibration != self._converted:
            self._converted = None
            self.state = self.warning = 'camera_info is unusable'
            self._camera = camera_from_info(info)
            self._converted = calibration
        if (self._camera.width, self._camera.height) != (width, height):
            self.state = self.warning = (
                f'camera_info is for {self._camera.width}x{self._camera.height} pixels '
                f'but the image has {width}x{height}'
            )
            raise ValueError(f'{self.state}: publish the camera_info of this image.')
        self.state, self.warning = 'from camera_info', ''
        return self._camera

    def _compare_frames(self, info_frame: str, image_frame: str) -> None:
        """Warn of two cameras; only warn, because many drivers give one camera two frames."""
        if info_frame and image_frame and info_frame.lstrip('/') != image_frame.lstrip('/'):
            self.state = 'from camera_info of another frame'
            of_info, of_image = shortened(in_utf8(info_frame)), shortened(in_utf8(image_frame))
            self.warning = (
                f'camera_info is of frame {of_info!r} but the image of {of_image!r}: if '
                'these are two cameras, depth is wrong. Remap camera_info to that of the image, '
                'or let the driver give both the same frame_id.'
            )

    def _is_time_left(self, timeout_s: float) -> bool:
        now_s = time.monotonic()
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        return now_s - self._waiting_since_s < timeout_s


def calibration_of(info: CameraInfo) -> tuple:
    """Return all that matters of the message, to see a change."""
    size = info.width, info.height, info.binning_x, info.binning_y
    roi = info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height
    return *size, *roi, info.distortion_model, *info.d, *info.k, *info.r, *info.p
