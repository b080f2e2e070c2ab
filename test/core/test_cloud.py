import math

import numpy as np
import pytest
import torch

from llm_mde_core.cloud import limit_depth, pixel_rays, project
from llm_mde_core.geometry import Camera, back_project

CAMERA = Camera(9, 6, fx=10.0, fy=11.0, cx=4.25, cy=2.75)
DEPTH = torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) * 5 + 1


def rays_of(camera=CAMERA, *, min_range_m=0.0, max_range_m=math.inf):
    device = torch.device('cpu')
    return pixel_rays(camera, min_range_m=min_range_m, max_range_m=max_range_m, device=device)


RAYS = rays_of()


def test_points_are_those_of_back_project():
    depth = DEPTH.clone()
    depth[1, 2:6] = torch.tensor([math.nan, math.inf, 0.0, -1.0])
    points = project(depth, RAYS)
    np.testing.assert_array_equal(
        points.permute(1, 2, 0).numpy(), back_project(depth.numpy(), CAMERA)
    )
    assert points.isnan().all(dim=0).sum() == 4


def test_range_is_the_distance_from_the_camera():
    points = project(DEPTH, rays_of(min_range_m=2.0, max_range_m=5.0))
    distance = torch.tensor(back_project(DEPTH.numpy(), CAMERA)).norm(dim=-1)
    inside = (distance >= 2) & (distance <= 5)
    assert 0.2 < inside.float().mean() < 0.9
    assert torch.equal(points.isfinite().all(dim=0), inside)
    assert torch.equal(points.isnan().all(dim=0), ~inside)


def test_a_pixel_without_a_ray_has_no_point():
    camera = Camera(9, 6, 2.0, 2.0, 4.0, 2.5, 'equidistant', (0.0, 0.0, 0.0, 0.0))
    rays = rays_of(camera)
    none = rays.slopes.isnan().any(dim=0)
    assert 0 < none.sum() < 54
    points = project(DEPTH, rays)
    assert torch.equal(points.isnan().all(dim=0), none)


def test_depth_of_another_size_than_the_camera_is_refused():
    with pytest.raises(ValueError, match=r'\(6, 8\) does not belong to a camera of 6 rows and 9'):
        project(DEPTH[:, :8], RAYS)


@pytest.mark.parametrize('kind', [float, torch.tensor])
def test_depth_beyond_its_limits_is_unknown(kind):
    depth = torch.tensor([math.nan, -math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 3.5, math.inf])
    limited = limit_depth(depth, kind(1.0), kind(3.0))
    expected = torch.where((depth >= 1) & (depth <= 3), depth, math.nan)
    assert limited.numpy().tobytes() == expected.numpy().tobytes()  # every NaN is the usual one
    assert limited.isfinite().sum() == 3
    assert limit_depth(depth, kind(0.0), kind(math.inf)).isnan().sum() == 3
