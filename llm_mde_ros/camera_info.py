"""
sensor_msgs/CameraInfo <-> Camera.

K and P are those of the full resolution; region of interest and binning say which part of it the
image is (see CameraInfo.msg). Unlike image_geometry, resampling keeps the half-pixel term.
"""

import array

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from llm_mde_core.calibration import check_calibration
from llm_mde_core.geometry import Camera

MAX_COEFFICIENTS = 14  # of the largest lens model


def camera_from_info(info: CameraInfo) -> Camera:
    """
    Return the camera of the image that belongs to a CameraInfo.

    Coefficients D that are all zero, or none, mean a rectified image: P holds. Otherwise K and D.
    """
    distortion_model, distortion = _distortion(info)
    use_projection = not distortion_model and info.p[0] != 0
    matrix = info.p if use_projection else info.k
    of = f'camera_info of frame {info.header.frame_id!r}'
    if not np.any(matrix):
        raise ValueError(
            f'{of} is uncalibrated: its K is zero; calibrate the camera, or let nothing publish '
            'camera_info and set hfov_deg'
        )
    (width, height), (bin_x, bin_y) = _size(info), _binning(info)
    fitted = _resampled(matrix, info, scale_x=1 / bin_x, scale_y=1 / bin_y)
    camera = Camera(
        width=width,
        height=height,
        fx=float(fitted[0, 0]),
        fy=float(fitted[1, 1]),
        cx=float(fitted[0, 2]),
        cy=float(fitted[1, 2]),
        distortion_model=distortion_model,
        distortion=distortion,
    )
    for name in ('k', 'r', 'p'):  # all of them are published again
        if not np.all(np.isfinite(getattr(info, name))):
            raise ValueError(f'{of} has numbers in {name} that are none')
    check_calibration(camera, np.reshape(matrix, (3, -1)), of=of)
    return camera


def camera_to_info(camera: Camera, header: Header, source: CameraInfo | None) -> CameraInfo:
    """
    Return the CameraInfo of an image taken with a camera.

    From a source, which is not changed, it keeps D, R and what K and P say beyond the camera.
    """
    info = CameraInfo(header=header, width=camera.width, height=camera.height)
    if source is None:
        matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
        info.distortion_model = camera.distortion_model or 'plumb_bob'
        info.d = array.array('d', camera.distortion or [0.0] * 5)
        info.k = matrix.ravel()
        info.r = np.eye(3).ravel()
        info.p = np.column_stack([matrix, np.zeros(3)]).ravel()
        return info
    (width, height), (bin_x, bin_y) = _size(source), _binning(source)
    scale_x, scale_y = camera.width / width / bin_x, camera.height / height / bin_y
    info.distortion_model = source.distortion_model
    info.d = array.array('d', source.d)
    info.k = _resampled(source.k, source, scale_x=scale_x, scale_y=scale_y).ravel()
    info.r = np.array(source.r, np.float64)
    info.p = _resampled(source.p, source, scale_x=scale_x, scale_y=scale_y).ravel()
    return info


def rectified_info(info: CameraInfo) -> CameraInfo:
    """
    Return the calibration of the rectified image: P holds, without distortion or rotation.

    For a rectified image beside the camera_info of the raw one, as image_proc publishes it.
    """
    rectified = CameraInfo(
        header=info.header,
        width=info.width,
        height=info.height,
        distortion_model=info.distortion_model,
        binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=info.roi,
        p=info.p,
    )
    rectified.d = array.array('d', [0.0] * len(info.d))
    has_projection = info.p[0] != 0
    rectified.k = np.reshape(info.p, (3, 4))[:, :3].ravel() if has_projection else info.k
    rectified.r = np.eye(3).ravel()
    return rectified


def _distortion(info: CameraInfo) -> tuple[str, tuple[float, ...]]:
    if len(info.d) > MAX_COEFFICIENTS:  # before a million of them is looked at
        raise ValueError(
            f'camera_info of frame {info.header.frame_id!r} has more than {MAX_COEFFICIENTS} '
            'coefficients in d, which no lens model has'
        )
    coefficients = tuple(info.d)
    if not any(coefficients):
        return '', ()
    model = info.distortion_model
    if model == 'fisheye':
        return 'equidistant', coefficients
    if model in ('', 'plumb_bob', 'rational_polynomial'):  # one family, mixed up by some drivers
        return 'plumb_bob' if len(coefficients) <= 5 else 'rational_polynomial', coefficients
    return model, coefficients


def _region(info: CameraInfo) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the image in pixels of the full resolution."""
    roi = info.roi
    if roi.width and roi.height:
        return roi.x_offset, roi.y_offset, roi.width, roi.height
    return 0, 0, info.width, info.height


def _binning(info: CameraInfo) -> tuple[int, int]:
    return max(info.binning_x, 1), max(info.binning_y, 1)


def _size(info: CameraInfo) -> tuple[int, int]:
    """Return width and height of the image: whole bins of the region of interest."""
    _, _, width, height = _region(info)
    bin_x, bin_y = _binning(info)
    return width // bin_x, height // bin_y


def _resampled(
    matrix: np.ndarray, info: CameraInfo, *, scale_x: float, scale_y: float
) -> np.ndarray:
    """Move K (3, 3) or P (3, 4) to the region of interest, resampled."""
    x, y, _, _ = _region(info)
    to_image = np.array(
        [
            [scale_x, 0, (0.5 - x) * scale_x - 0.5],
            [0, scale_y, (0.5 - y) * scale_y - 0.5],
            [0, 0, 1],
        ]
    )
    return to_image @ np.reshape(matrix, (3, -1))
