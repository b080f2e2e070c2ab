"""
Distortion by OpenCV's lens models and back, in numpy.

Points are (N, 2) float64, in focal lengths from the principal point. The way back is solved by
Newton's method to convergence; NaN outside the circle where the model folds back.
"""

import math
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
import numpy.typing as npt

Points = npt.NDArray[np.float64]

COEFFICIENT_COUNTS = {
    '': (0,),
    'plumb_bob': (4, 5),  # k1 k2 p1 p2 [k3]
    'rational_polynomial': (8, 12, 14),  # ... k3 k4 k5 k6 [s1 s2 s3 s4 [tau_x tau_y]]
    'equidistant': (4,),  # k1 k2 k3 k4, also called fisheye or Kannala-Brandt
}
_TOLERANCE = 1e-9  # of an undistorted point, in focal lengths
_INSIDE = 0.999  # of the radius where a lens model folds back; its slope vanishes there


def undistort(points: Points, model: str, coefficients: tuple[float, ...]) -> Points:
    """Return where the rays of distorted points meet the plane z = 1."""
    if model == 'equidistant':
        return _undistort_equidistant(points, coefficients)
    if not any(coefficients):
        return points
    return _undistort_polynomial(points, coefficients)


def distort(points: Points, model: str, coefficients: tuple[float, ...]) -> Points:
    """Return where rays that meet the plane z = 1 at these points arrive; undoes undistort()."""
    radius = np.hypot(points[:, 0], points[:, 1])
    if model == 'equidistant':
        lens, limit = _equidistant(coefficients)
        theta = np.arctan(radius)
        theta[theta > limit] = np.nan
        stretch = np.where(radius > 1e-12, lens(theta) / np.maximum(radius, 1e-12), 1)
        return np.asarray(points * stretch[:, None])
    if not any(coefficients):
        return points
    padded = _padded(coefficients)
    inside = np.where((radius <= _INSIDE * _fold_radius(padded))[:, None], points, np.nan)
    return _tilt(_distort(inside.T, padded)[0].T, _tilt_matrix(*padded[12:]))


def _undistort_polynomial(distorted: Points, distortion: tuple[float, ...]) -> Points:
    """Invert plumb_bob and rational_polynomial."""
    coefficients = _padded(distortion)
    target = np.ascontiguousarray(
        _tilt(distorted, np.linalg.inv(_tilt_matrix(*coefficients[12:]))).T
    )
    limit = _INSIDE * _fold_radius(coefficients)
    result = np.full_like(target, np.nan)
    pending = np.arange(target.shape[1])
    point = _within(target, limit)
    with np.errstate(all='ignore'):  # points outside the model may run away; they stay NaN
        for _ in range(20):
            value, jacobian = _distort(point, coefficients)
            error = target - value
            done = np.maximum(*np.abs(error)) < _TOLERANCE
            if done.any():
                result[:, pending[done]] = point[:, done]
                if done.all():
                    break
                pending = pending[~done]
                point, target, error, jacobian = (
                    values[:, ~done] for values in (point, target, error, jacobian)
                )
            (u, v), (a, b, c, d) = error, jacobian
            step = np.stack([d * u - b * v, a * v - c * u]) / (a * d - b * c)
            point = _within(point + step, limit)
    return result.T


def _distort(points: Points, coefficients: Points) -> tuple[Points, Points]:
    """
    Apply the lens model without tilt to points (2, N).

    Also return its Jacobian du/dx, du/dy, dv/dx, dv/dy: (4, N).
    """
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = coefficients[:12]
    x, y = points
    r2 = x * x + y * y
    numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    denominator = 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = numerator / denominator
    radial_slope = (  # by r2
        k1 + r2 * (2 * k2 + r2 * 3 * k3) - radial * (k4 + r2 * (2 * k5 + r2 * 3 * k6))
    ) / denominator
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2)
    v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4)
    prism_u, prism_v = 2 * (s1 + 2 * s2 * r2), 2 * (s3 + 2 * s4 * r2)
    mixed = 2 * (x * y * radial_slope + p1 * x + p2 * y)
    du_dx = radial + 2 * x * x * radial_slope + 2 * p1 * y + 6 * p2 * x + x * prism_u
    dv_dy = radial + 2 * y * y * radial_slope + 6 * p1 * y + 2 * p2 * x + y * prism_v
    jacobian = np.stack([du_dx, mixed + y * prism_u, mixed + x * prism_v, dv_dy])
    return np.stack([u, v]), jacobian


def _padded(distortion: tuple[float, ...]) -> Points:
    """Return all 14 coefficients, zero where the model has fewer."""
    coefficients = np.zeros(14)
    coefficients[: len(distortion)] = distortion
    return coefficients


def _tilt_matrix(tau_x: float, tau_y: float) -> Points:
    """Return the homography of a sensor tilted against the lens (OpenCV's Scheimpflug terms)."""
    sin_x, cos_x, sin_y, cos_y = np.sin(tau_x), np.cos(tau_x), np.sin(tau_y), np.cos(tau_y)
    about_x = np.array([[1, 0, 0], [0, cos_x, sin_x], [0, -sin_x, cos_x]])
    about_y = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
    rotation = about_y @ about_x
    onto_sensor = np.eye(3)
    onto_sensor[0] = rotation[2, 2], 0, -rotation[0, 2]
    onto_sensor[1] = 0, rotation[2, 2], -rotation[1, 2]
    return np.asarray(onto_sensor @ rotation)


def _tilt(points: Points, matrix: npt.NDArray[np.floating[Any]]) -> Points:
    """Apply a homography, (3, 3)."""
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def _fold_radius(coefficients: Points) -> float:
    """Return the undistorted radius where the radial model stops growing, or infinity."""
    k1, k2, _, _, k3, k4, k5, k6 = coefficients[:8]
    numerator, denominator = Polynomial([1, k1, k2, k3]), Polynomial([1, k4, k5, k6])  # of r2
    slope = numerator * denominator + Polynomial([0, 2]) * (
        numerator.deriv() * denominator - numerator * denominator.deriv()
    )
    return math.sqrt(min(_first_positive_root(slope), _first_positive_root(denominator)))


def _first_positive_root(polynomial: Polynomial) -> float:
    roots = polynomial.roots()
    real = roots.real[np.abs(roots.imag) < 1e-6 * np.abs(roots)]
    return float(min(real[real > 0], default=math.inf))


def _within(points: Points, radius: float) -> Points:
    """Pull points (2, N) that lie outside a circle onto it."""
    if math.isinf(radius):
        return points
    return np.asarray(points * np.minimum(1, radius / np.maximum(np.hypot(*points), 1e-12)))


def _undistort_equidistant(distorted: Points, distortion: tuple[float, ...]) -> Points:
    """Invert theta_d = theta (1 + k1 theta^2 + ... + k4 theta^8)."""
    model, limit = _equidistant(distortion)
    slope = model.deriv()
    radius = np.hypot(distorted[:, 0], distorted[:, 1])
    table = np.linspace(0, limit, 1000)
    theta = np.interp(radius, model(table), table, right=np.nan)
    for _ in range(4):  # Newton from a start that is right to three digits
        theta = theta - (model(theta) - radius) / slope(theta)
    theta[~(np.abs(model(theta) - radius) < _TOLERANCE)] = np.nan
    stretch = np.where(radius > 1e-12, np.tan(theta) / np.maximum(radius, 1e-12), 1)
    return np.asarray(distorted * stretch[:, None])


def _equidistant(distortion: tuple[float, ...]) -> tuple[Polynomial, float]:
    """Return theta_d as a polynomial of theta, and the theta up to which it can be inverted."""
    k1, k2, k3, k4 = distortion
    model = Polynomial([0, 1, 0, k1, 0, k2, 0, k3, 0, k4])
    return model, _INSIDE * min(_first_positive_root(model.deriv()), math.pi / 2)
