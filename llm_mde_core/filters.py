"""
Filters of depth, float32 (H, W) metres, NaN where unknown, on whatever device it is.

    depth ─▶ Smoother (flicker) ─▶ median3 (specks) ─▶ drop_edges (flying pixels) ─▶ depth

Nothing here waits for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import torch
from torch.nn import functional

from llm_mde_core.geometry import Camera

EDGE_REACH = 1 / 45  # of the width: as far as networks blur an edge, about a cell of their output
BESIDE = 0.2  # part of the way between two surfaces that still counts as one of them
CUT_SHARE = 0.5  # when more of the pixels jump, it is another scene


@dataclass(frozen=True)
class FilterSettings:
    """Which filters act, and how; these are the defaults of the node."""

    edge_enable: bool = False
    edge_max_step: float = 0.1  # of the depth: surfaces that are closer together are one
    median_enable: bool = False
    temporal_enable: bool = False
    temporal_time_s: float = 0.2  # after it, 63 % of a small change is followed
    temporal_max_step: float = 0.2  # of the depth: a larger change is followed at once

    def __post_init__(self) -> None:
        for name in ('edge_max_step', 'temporal_time_s', 'temporal_max_step'):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f'{name} is {value}, expected a number greater than 0')


class DepthFilters:
    """The filters that are enabled, in their order; what is known of a stream lives here."""

    def __init__(self) -> None:
        self._smoother = Smoother()

    def __call__(
        self, depth: torch.Tensor, *, camera: Camera, stamp_ns: int, settings: FilterSettings
    ) -> torch.Tensor:
        """Filter the depth of the image that `camera` took at `stamp_ns`."""
        if settings.temporal_enable:
            depth = self._smoother(
                depth,
                camera=camera,
                stamp_ns=stamp_ns,
                time_s=settings.temporal_time_s,
                max_step=settings.temporal_max_step,
            )
        else:
            self.reset()
        if settings.median_enable:
            depth = median3(depth)
        if settings.edge_enable:
            depth = drop_edges(depth, max_step=settings.edge_max_step)
        return depth

    def reset(self) -> None:
        """Forget the images before; from any thread, also while one is in work."""
        self._smoother = Smoother()


def drop_edges(
    depth: torch.Tensor, *, max_step: float, reach_px: int | None = None
) -> torch.Tensor:
    """
    Return depth with NaN where a point flies between a near and a far surface.

    In each row and column, two pixels on either side continue their surface to the middle one,
    straight in 1/z as planes are. A pixel that lies on one of the two, beyond both or level with
    a nearer neighbour stays: so do planes at any slant, creases and thin things. `max_step`: how
    far apart, relative to the depth, two surfaces have to be. `reach_px`: how far away the nearer
    pixels are, by default EDGE_REACH. Over the border the outermost pixel goes on.
    """
    height, width = depth.shape
    reach = reach_px or max(1, round(EDGE_REACH * width))
    stays = torch.ones_like(depth)  # 1.0 or 0.0: on a CPU bool and torch.where take far longer
    for axis, size in enumerate((height, width)):
        shift = min(reach, size)  # from there on all is border, and a thin image stays small
        pad = (0, 0, 2 * shift, 2 * shift) if axis == 0 else (2 * shift, 2 * shift, 0, 0)
        nearness = functional.pad(1 / depth[None], pad, mode='replicate')[0]
        first, second, here, fourth, last = (
            nearness.narrow(axis, step * shift, size) for step in range(5)
        )
        before, after = 2 * second - first, 2 * fourth - last  # the surfaces, continued
        flies = _between(before, here, after).mul_(_between(second, here, fourth))
        stays -= flies.mul_((before - after).abs_().gt_(max_step * here))
    stays.clamp_(min=0)  # a pixel may fly both ways
    return (depth / stays).mul_(stays)  # 0.0: infinity, then NaN


def _between(one: torch.Tensor, middle: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return 1.0 where the middle one is between both and beside neither, else 0.0."""
    aside = (2 * middle - one).sub_(other).abs_()  # twice the way from half-way
    return aside.lt_((one - other).abs_().mul_(1 - 2 * BESIDE))


def median3(depth: torch.Tensor) -> torch.Tensor:
    """
    Return the median of each pixel and its eight neighbours; over the border it repeats itself.

    Unknown stays unknown, and a pixel beside an unknown one stays as it is.
    """
    padded = functional.pad(depth[None], (1, 1, 1, 1), mode='replicate')[0]
    above, here, below = padded[:-2], padded[1:-1], padded[2:]
    # Each column of three in order: the median of nine is the median of the greatest low, the
    # middle middle and the least high one. NaN goes through minimum and maximum.
    low, high = torch.minimum(above, below), torch.maximum(above, below)
    middle = torch.maximum(low, torch.minimum(here, high))
    low, high = torch.minimum(low, here), torch.maximum(high, here)
    lowest = torch.maximum(torch.maximum(low[:, :-2], low[:, 1:-1]), low[:, 2:])
    highest = torch.minimum(torch.minimum(high[:, :-2], high[:, 1:-1]), high[:, 2:])
    median = _median(lowest, _median(middle[:, :-2], middle[:, 1:-1], middle[:, 2:]), highest)
    return torch.where(median.isnan(), depth, median)


def _median(first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> torch.Tensor:
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return torch.maximum(low, torch.minimum(high, third))


class Smoother:
    """
    Exponential mean of the logarithm of depth over time, pixel by pixel, against flicker.

    What changes by more than a step is followed at once, so that the result is never farther than
    that step from what the network says. It begins anew when time stands still or goes back,
    when the camera is another one and when more than CUT_SHARE of the pixels jump; after a gap
    of several times `time_s` nothing is left of what was before it.
    """

    def __init__(self) -> None:
        self._mean: torch.Tensor | None = None  # (H, W), logarithm of metres
        self._camera: Camera | None = None
        self._stamp_ns = 0

    def __call__(
        self,
        depth: torch.Tensor,
        *,
        camera: Camera,
        stamp_ns: int,
        time_s: float,
        max_step: float,
    ) -> torch.Tensor:
        """
        Return the depth of the image of `stamp_ns`, smoothed; unknown stays unknown.

        time_s: in which 63 % of a change are followed. max_step: the largest that is smoothed,
        relative to the depth.
        """
        elapsed_s = (stamp_ns - self._stamp_ns) * 1e-9
        before = self._mean if camera == self._camera and elapsed_s > 0 else None
        now = depth.log()
        self._mean, self._camera, self._stamp_ns = now, camera, stamp_ns
        if before is None:
            return depth
        change = now - before
        known = change.eq(change).sum()
        change.nan_to_num_(0.0, 0.0, 0.0)  # where either is unknown
        jumps = change.abs().gt_(math.log1p(max_step))
        same_scene = jumps.sum() <= CUT_SHARE * known  # on the device: nobody waits for it
        held_back = change.mul_(math.exp(-elapsed_s / time_s)).mul_((1 - jumps).mul_(same_scene))
        now -= held_back
        return depth * held_back.neg_().exp_()
