"""Calibrations that no camera has: a focal length in millimetres, a transposed matrix."""

import numpy as np
import numpy.typing as npt

from llm_mde_core.geometry import Camera

MAX_REACH = 50.0  # from the principal point to an edge, in focal lengths: 89 degrees to the side
MAX_FOCAL_LENGTH = 1e4  # in long sides of the image: a field of view of 0.006 degrees
MAX_ASPECT = 2.5  # of fx and fy: 2 is an anamorphic lens, or binning of 1 x 2, and hardly exact
MAX_SKEW = 0.01  # of the focal length


def check_calibration(camera: Camera, matrix: npt.NDArray[np.float64], *, of: str) -> None:
    """
    Raise ValueError for a camera that is none, or whose K (3, 3) or P (3, 4) means something else.

    of: what the calibration is, to begin the sentence with.
    """
    reach = max(
        abs(camera.cx) / camera.fx,
        abs(camera.width - camera.cx) / camera.fx,
        abs(camera.cy) / camera.fy,
        abs(camera.height - camera.cy) / camera.fy,
    )
    smaller, larger = sorted((camera.fx, camera.fy))
    is_long = larger > MAX_FOCAL_LENGTH * max(camera.width, camera.height)
    if reach > MAX_REACH or is_long or larger > MAX_ASPECT * smaller:
        raise ValueError(
            f'{of} is implausible for {camera.width} x {camera.height} pixels: fx={camera.fx:g}, '
            f'fy={camera.fy:g}, cx={camera.cx:g}, cy={camera.cy:g}; they are to be in pixels'
        )
    name = 'K' if matrix.shape == (3, 3) else 'P'
    last_row = np.eye(*matrix.shape)[2]
    if not np.allclose(matrix[2], last_row, rtol=0, atol=1e-6):
        raise ValueError(
            f'{of} has the last row {_spaced(matrix[2])} in {name}, expected {_spaced(last_row)}'
        )
    fx, fy, skew = matrix[0, 0], matrix[1, 1], matrix[[0, 1], [1, 0]]
    if np.any(np.abs(skew) > MAX_SKEW * np.array([fx, fy])):
        raise ValueError(
            f'{of} has {_spaced(skew)} in {name} beside fx={fx:g}, fy={fy:g}, expected 0 0: depth '
            'knows no skewed pixels'
        )


def _spaced(numbers: npt.NDArray[np.float64]) -> str:
    return ' '.join(f'{number:g}' for number in numbers)
