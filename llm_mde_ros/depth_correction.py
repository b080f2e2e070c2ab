"""A scale and a shift of depth, held from another sensor: robust, slow and bounded."""

from __future__ import annotations

from dataclasses import dataclass, replace
import math

import numpy as np
import torch

TIME_CONSTANT_S = 10.0  # after this long, 63 % of an error is taken out
MAX_STEP_S = 1.0  # a pause does not count for more
MIN_SAMPLES = 50  # below that, nothing is learned
MIN_SPREAD = 1.5  # far over near reference (90 over 10 %), below which a shift cannot be told
MIN_GAIN = 0.3  # of the error: what a shift has to take out to be believed


@dataclass(frozen=True)
class DepthCorrection:
    """depth -> scale * depth + shift_m, but changed by at most max_factor, up or down."""

    scale: float = 1.0
    shift_m: float = 0.0
    max_factor: float = 1.25
    at_limit: bool = False  # the sensor asks for more than max_factor allows

    @property
    def changes_depth(self) -> bool:
        """Tell whether apply() does anything."""
        return (self.scale, self.shift_m) != (1.0, 0.0)

    def apply(self, depth: torch.Tensor) -> torch.Tensor:
        """Return corrected depth, metres of any shape on its device; NaN stays NaN."""
        corrected = depth * self.scale + self.shift_m
        return corrected.clamp(depth / self.max_factor, depth * self.max_factor)

    def towards(
        self, predicted_m: np.ndarray, reference_m: np.ndarray, *, elapsed_s: float
    ) -> DepthCorrection:
        """
        Return what holds this long later: an exponential step towards the fit of the samples.

        predicted_m, reference_m: float (N,), positive. With too few samples nothing changes.
        """
        if len(predicted_m) < MIN_SAMPLES:
            return self
        scale, shift_m = fit(predicted_m, reference_m)
        middle_m = float(np.median(predicted_m))
        factor = scale + shift_m / middle_m  # in the middle of what was seen
        bounded = min(max(factor, 1 / self.max_factor), self.max_factor)
        if factor != bounded:
            scale, shift_m = bounded, 0.0
        weight = 1 - math.exp(-min(max(elapsed_s, 0.0), MAX_STEP_S) / TIME_CONSTANT_S)
        return replace(
            self,
            scale=self.scale + weight * (scale - self.scale),
            shift_m=self.shift_m + weight * (shift_m - self.shift_m),
            at_limit=factor != bounded,
        )

    def __str__(self) -> str:
        return f'depth x {self.scale:.3f} {self.shift_m:+.3f} m'


def fit(predicted_m: np.ndarray, reference_m: np.ndarray) -> tuple[float, float]:
    """
    Return scale and shift (metres) that bring predictions to the reference; half may be outliers.

    By medians and median absolute deviations; a scale alone where the reference spans too little
    to tell both, or where it does nearly as well: a shift carries the errors of the few pixels
    that a scan sees to all others.
    """
    ratio = float(np.median(reference_m / predicted_m))
    near_m, far_m = np.percentile(reference_m, (10, 90))
    spread_m = _deviation(predicted_m)
    if far_m < MIN_SPREAD * near_m or spread_m == 0:
        return ratio, 0.0
    scale = _deviation(reference_m) / spread_m
    shift_m = float(np.median(reference_m) - scale * np.median(predicted_m))
    shifted_error = _relative_error(scale * predicted_m + shift_m, reference_m)
    scaled_error = _relative_error(ratio * predicted_m, reference_m)
    return (scale, shift_m) if shifted_error < (1 - MIN_GAIN) * scaled_error else (ratio, 0.0)


def _deviation(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _relative_error(predicted_m: np.ndarray, reference_m: np.ndarray) -> float:
    return float(np.median(np.abs(predicted_m - reference_m) / reference_m))
