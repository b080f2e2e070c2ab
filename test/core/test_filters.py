"""Filters on geometry whose answer is known: planes, steps, creases, thin things, flicker."""

import math

from fuzzing import little_memory
import numpy as np
import pytest
import torch
from torch.nn import functional

from llm_mde_core.filters import DepthFilters, FilterSettings, Smoother, drop_edges, median3
from llm_mde_core.geometry import Camera

HEIGHT, WIDTH = 60, 90
CAMERA = Camera.from_hfov(width=WIDTH, height=HEIGHT, hfov_deg=60.0)
COLUMNS = torch.arange(WIDTH, dtype=torch.float32).expand(HEIGHT, WIDTH)
ROWS = torch.arange(HEIGHT, dtype=torch.float32)[:, None].expand(HEIGHT, WIDTH)
NAN = math.nan
FRAME_NS = 33_000_000


def flying(depth: torch.Tensor, *, max_step: float = 0.1, reach_px: int = 3) -> torch.Tensor:
    """Return where depth was known and is no longer."""
    filtered = drop_edges(depth, max_step=max_step, reach_px=reach_px)
    stays = filtered.isfinite()
    assert torch.equal(filtered[stays], depth[stays])
    return depth.isfinite() & ~stays


def ramp(near_m: float, far_m: float, *, start: int, length: int) -> torch.Tensor:
    """Return a near and a far wall, joined by `length` columns as bilinear 1/z joins them."""
    way = ((COLUMNS - start + 1) / (length + 1)).clamp(0, 1)
    return 1 / (1 / near_m + way * (1 / far_m - 1 / near_m))


@pytest.mark.parametrize('turned', [False, True])
def test_points_between_two_walls_are_dropped_and_the_walls_stay(turned: bool):
    depth = ramp(1.0, 3.0, start=40, length=3)
    depth = depth.T.contiguous() if turned else depth
    gone = flying(depth).T if turned else flying(depth)
    assert gone[:, 40:43].all()
    assert not gone[:, :40].any()
    assert not gone[:, 43:].any()


def test_a_sharp_step_loses_nothing():
    depth = torch.where(COLUMNS < 40, 1.0, 3.0)
    assert not flying(depth).any()


@pytest.mark.parametrize('slope', [0.0, 0.01, -0.02, 0.032])
@pytest.mark.parametrize('along', [COLUMNS, ROWS, (COLUMNS - ROWS) / 2])
def test_a_plane_loses_nothing_at_any_slant(slope: float, along: torch.Tensor):
    nearness = 1.0 + slope * (along - along.min())
    depth = 1 / (nearness - nearness.min() + 0.05)  # up to 20 m, steps of 60 % at the far end
    assert not flying(depth, max_step=0.01).any()


def test_a_crease_between_two_planes_loses_nothing():
    nearness = 0.2 + 0.02 * (COLUMNS - 45).abs()
    assert not flying(1 / nearness, max_step=0.01).any()


@pytest.mark.parametrize('width', [1, 2, 5])
@pytest.mark.parametrize('distance_m', [1.0, 9.0])
def test_a_thin_thing_and_a_thin_gap_stay(width: int, distance_m: float):
    depth = torch.full((HEIGHT, WIDTH), 3.0)
    depth[:, 40 : 40 + width] = distance_m
    assert not flying(depth).any()


def test_a_thing_on_a_slanted_floor_is_cut_out_of_it():
    floor = 0.1 + 0.005 * ROWS  # 1/z
    thing = torch.full_like(floor, 1.0)
    way = ((COLUMNS - 39) / 4).clamp(0, 1)
    gone = flying(1 / (floor + way * (thing - floor)))
    assert gone[:, 40:43].all()
    assert gone.sum() == 3 * HEIGHT


def test_points_that_fly_along_rows_and_columns_are_dropped():
    way = ((COLUMNS + ROWS - 69) / 4).clamp(0, 1)
    inner = (slice(10, 50), slice(10, 80))  # borders go on otherwise
    gone = flying(1 / (1 - way * 2 / 3))
    assert torch.equal(gone[inner], ((way > 0) & (way < 1))[inner])


def test_surfaces_that_are_closer_than_the_step_are_one():
    depth = ramp(3.0, 3.2, start=40, length=3)
    assert not flying(depth, max_step=0.1).any()
    assert flying(depth, max_step=0.05).any()


def test_unknown_depth_is_no_surface_and_stays_unknown():
    depth = ramp(1.0, 3.0, start=40, length=3)
    depth[:, 43:] = NAN
    assert not flying(depth).any()
    depth[20, 10] = NAN
    assert drop_edges(depth, max_step=0.1).isnan()[20, 10]


def test_the_usual_reach_fits_the_blur_of_a_network_at_any_size():
    step = torch.where(torch.arange(45.0) < 20, 1.0, 1 / 3)  # 1/z on a grid of 45 x 30 cells
    step = step.expand(1, 1, 30, 45)
    for width in (90, 640):
        size = (width * 2 // 3, width)
        blurred = functional.interpolate(step, size=size, mode='bilinear')[0, 0]
        middle = (blurred > 0.45) & (blurred < 0.88)
        gone = drop_edges(1 / blurred, max_step=0.1).isnan()
        assert middle.any()
        assert gone[middle].all()
        assert gone.sum() <= 1.5 * middle.sum()


@pytest.mark.parametrize('shape', [(8, 4000), (4000, 8), (1, 90), (90, 1)])
@pytest.mark.parametrize('reach_px', [None, 1, 7, 8, 50])
def test_a_reach_beyond_the_image_finds_its_border(shape: tuple[int, int], reach_px: int | None):
    depth = torch.rand(shape, generator=torch.Generator().manual_seed(5)) + 1
    reach = reach_px or max(1, round(shape[1] / 45))
    stays = torch.ones(shape, dtype=torch.bool)
    for axis, size in enumerate(shape):
        steps = (torch.arange(size) + step * reach for step in range(-2, 3))
        first, second, here, fourth, last = (
            (1 / depth).index_select(axis, at.clamp(0, size - 1)) for at in steps
        )
        before, after = 2 * second - first, 2 * fourth - last
        flies = (before - after).abs() > 0.1 * here
        for one, other in ((before, after), (second, fourth)):
            flies &= (2 * here - one - other).abs() < (one - other).abs() * 0.6
        stays &= ~flies
    expected = torch.where(stays, depth, NAN)
    filtered = drop_edges(depth, max_step=0.1, reach_px=reach_px)
    assert torch.equal(filtered.nan_to_num(), expected.nan_to_num())
    assert stays.any()


def test_a_long_thin_image_takes_little_memory():
    depth = torch.ones(8, 200_000)  # 6 MB; its reach is 4444 pixels
    with little_memory(1.0):
        assert torch.equal(drop_edges(depth, max_step=0.1), depth)


def test_median_removes_a_speck_and_keeps_an_edge():
    depth = torch.where(COLUMNS < 40, 1.0, 3.0)
    speckled = depth.clone()
    speckled[10, 10], speckled[30, 60] = 9.0, 0.2
    assert torch.equal(median3(speckled), depth)


def test_median_is_that_of_numpy_and_leaves_the_unknown_alone():
    depth = torch.rand(20, 30, generator=torch.Generator().manual_seed(3)) + 1
    depth[7, 9] = NAN
    padded = np.pad(depth.numpy(), 1, mode='edge')
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(20, 30, 9)
    expected = np.median(windows, axis=-1)  # NaN where any is
    expected[np.isnan(expected)] = depth.numpy()[np.isnan(expected)]
    np.testing.assert_array_equal(median3(depth).numpy(), expected)
    assert np.isnan(expected).sum() == 1


class Stream:
    """Images of one camera, FRAME_NS apart, through one smoother."""

    def __init__(self, *, time_s: float = 0.1, max_step: float = 0.1) -> None:
        self.smoother = Smoother()
        self.settings = {'time_s': time_s, 'max_step': max_step}
        self.stamp_ns = 10**18

    def __call__(
        self, depth: torch.Tensor, *, after_ns: int = FRAME_NS, camera: Camera = CAMERA
    ) -> torch.Tensor:
        self.stamp_ns += after_ns
        return self.smoother(depth, camera=camera, stamp_ns=self.stamp_ns, **self.settings)


def wall(distance_m: float) -> torch.Tensor:
    """Return the depth of a wall that fills the image."""
    return torch.full((HEIGHT, WIDTH), distance_m)


def test_flicker_is_smoothed_to_what_an_exponential_mean_leaves():
    generator, stream, time_s = torch.Generator().manual_seed(0), Stream(time_s=0.3), 0.3
    noise = 0.01 * torch.randn(80, HEIGHT, WIDTH, generator=generator)
    for one in noise:
        smooth = stream(2 * one.exp()).log()
    weight = 1 - math.exp(-FRAME_NS * 1e-9 / time_s)
    expected = 0.01 * math.sqrt(weight / (2 - weight))
    assert float(smooth.std()) == pytest.approx(expected, rel=0.05)
    assert float(smooth.mean().exp()) == pytest.approx(2.0, rel=1e-3)


def test_a_small_change_is_followed_in_the_time_whatever_the_rate():
    for frames in (1, 2, 10):
        stream = Stream(time_s=0.1)
        stream(wall(2.0))
        for _ in range(frames):
            smooth = stream(wall(2.1), after_ns=round(1e8 / frames))
        followed = float((smooth / 2.0).log().mean()) / math.log(2.1 / 2.0)
        assert followed == pytest.approx(1 - math.exp(-1), abs=1e-3)


def test_what_moves_is_followed_at_once_and_the_rest_is_smoothed():
    stream = Stream()
    stream(wall(2.0))
    moved = wall(2.1)
    moved[:20, :20] = 1.0
    smooth = stream(moved)
    assert (smooth[:20, :20] == 1.0).all()
    rest = torch.cat([smooth[20:].flatten(), smooth[:20, 20:].flatten()])
    assert ((rest > 2.0) & (rest < 2.05)).all()


def test_the_result_is_never_farther_from_the_network_than_the_step():
    generator, stream = torch.Generator().manual_seed(1), Stream(time_s=5.0, max_step=0.1)
    depth = wall(2.0)
    for _ in range(50):
        depth = depth * (1 + 0.05 * torch.rand(HEIGHT, WIDTH, generator=generator))
        ratio = stream(depth) / depth
        assert ratio.max() < 1.1001
        assert ratio.min() > 1 / 1.1001


@pytest.mark.parametrize(
    'change',
    [
        dict(after_ns=0),
        dict(after_ns=-FRAME_NS),
        dict(after_ns=5 * 10**9),  # fifty times the time
        dict(camera=Camera.from_hfov(width=WIDTH, height=HEIGHT, hfov_deg=61.0)),
    ],
)
def test_it_begins_anew_when_time_or_camera_jump(change: dict):
    stream = Stream()
    stream(wall(2.0))
    assert torch.equal(stream(wall(2.1), **change), wall(2.1))


def test_it_begins_anew_at_another_size():
    stream = Stream()
    stream(wall(2.0))
    small = Camera.from_hfov(width=8, height=6, hfov_deg=60.0)
    assert torch.equal(stream(torch.ones(6, 8), camera=small), torch.ones(6, 8))


def test_it_begins_anew_when_most_of_the_image_jumps():
    stream = Stream()
    stream(wall(2.0))
    depth = wall(2.1)
    depth[:40] = 5.0  # two thirds
    assert torch.equal(stream(depth), depth)
    stream = Stream()
    stream(wall(2.0))
    depth[20:40] = 2.1  # one third: no cut
    assert not torch.equal(stream(depth), depth)


def test_unknown_depth_does_not_spread_in_time():
    stream = Stream()
    depth = wall(2.0)
    depth[5, 5] = NAN
    first = stream(depth)
    assert first.isnan().sum() == 1
    second = stream(wall(2.1))
    assert second.isfinite().all()
    assert second[5, 5] == 2.1  # nothing to smooth it with
    depth = wall(2.1)
    depth[7, 7] = NAN
    third = stream(depth)
    assert torch.equal(third.isnan(), depth.isnan())


def test_all_filters_act_in_their_order_and_none_by_default():
    depth = ramp(1.0, 3.0, start=40, length=1)
    depth[10, 10] = 5.0
    filters = DepthFilters()
    frame = dict(camera=CAMERA, stamp_ns=FRAME_NS)
    assert filters(depth, **frame, settings=FilterSettings()) is depth
    filtered = filters(depth, **frame, settings=FilterSettings(median_enable=True))
    assert filtered[10, 10] == 1.0
    both = FilterSettings(median_enable=True, edge_enable=True)
    filtered = filters(depth, **frame, settings=both)
    assert filtered[:, 40].isnan().all()
    assert filtered.isnan().sum() == HEIGHT


def test_smoothing_that_was_off_begins_anew():
    filters, on = DepthFilters(), FilterSettings(temporal_enable=True)
    for number, settings in enumerate((on, FilterSettings(), on)):
        depth = wall(2.0 + 0.05 * number)
        frame = dict(camera=CAMERA, stamp_ns=number * FRAME_NS)
        assert torch.equal(filters(depth, **frame, settings=settings), depth)
    depth = wall(2.0)
    frame = dict(camera=CAMERA, stamp_ns=3 * FRAME_NS)
    assert not torch.equal(filters(depth, **frame, settings=on), depth)
    filters.reset()
    frame = dict(camera=CAMERA, stamp_ns=4 * FRAME_NS)
    assert torch.equal(filters(wall(1.9), **frame, settings=on), wall(1.9))


@pytest.mark.parametrize('name', ['edge_max_step', 'temporal_time_s', 'temporal_max_step'])
@pytest.mark.parametrize('value', [0.0, -1.0, NAN, math.inf])
def test_a_setting_that_cannot_be_is_named(name: str, value: float):
    with pytest.raises(ValueError, match=f'{name} is'):
        FilterSettings(**{name: value})


def test_nothing_waits_for_the_device_or_changes_what_it_is_given():
    # A meta tensor has no values: reading one raises, as it would wait on a GPU.
    filters = DepthFilters()
    settings = FilterSettings(edge_enable=True, median_enable=True, temporal_enable=True)
    for number in (1, 2, 3):
        depth = torch.empty(HEIGHT, WIDTH, device='meta')
        frame = dict(camera=CAMERA, stamp_ns=number * FRAME_NS, settings=settings)
        assert filters(depth, **frame).device.type == 'meta'
    filters, depth = DepthFilters(), ramp(1.0, 3.0, start=40, length=3)
    for number in (1, 2, 3):
        filters(depth, camera=CAMERA, stamp_ns=number * FRAME_NS, settings=settings)
    assert torch.equal(depth, ramp(1.0, 3.0, start=40, length=3))


def test_depth_of_inference_mode_is_taken():
    with torch.inference_mode():
        frames = [wall(2.0), wall(2.1)]
    filters = DepthFilters()
    settings = FilterSettings(edge_enable=True, median_enable=True, temporal_enable=True)
    for number, depth in enumerate(frames):
        smooth = filters(depth, camera=CAMERA, stamp_ns=number * FRAME_NS, settings=settings)
    assert 2.0 < float(smooth.mean()) < 2.1
