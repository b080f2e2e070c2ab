"""Batches of shots and replay: shapes, lenses, and each shot in its turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training.conftest import plain_sample

from llm_mde_core import LLMMDEConfig
from llm_mde_train.samples import Sample
from llm_mde_train.shot_batches import LARGEST_ZOOM, ROTATION_DEG, ShotBatches


@pytest.fixture
def config(tiny_model) -> LLMMDEConfig:
    return tiny_model.config


def batches(shots: list[Sample], replay: list[Sample], config: LLMMDEConfig, **changes: int):
    counts = {'shots_per_batch': 2, 'replay_per_batch': 1, 'seed': 0} | changes
    return ShotBatches(shots, replay, config=config, **counts)


def depths(batch) -> list[float]:
    return [float(np.nanmedian(depth_m)) for depth_m in batch.depth_m.numpy()]


def test_every_shot_has_its_turn_and_replay_its_place(config):
    source = batches([plain_sample(float(d)) for d in (1, 2, 3, 4)], [plain_sample(9.0)], config)
    for _ in range(3):
        first, second = depths(source.next()), depths(source.next())
        assert sorted(first[:2] + second[:2]) == [1.0, 2.0, 3.0, 4.0]
        assert first[2] == second[2] == 9.0


def test_shape_and_lens_are_those_of_inference(config):
    shot = plain_sample(2.0)  # 64 x 48 at 55 pixels: nothing to resize for 60 at 64
    batch = batches([shot], [], config).next()
    assert batch.rgb.shape == (2, 48, 64, 3)
    assert batch.rgb.dtype == torch.uint8
    for focal_px in batch.focal_px.tolist():
        zoom = focal_px / shot.camera.focal_px
        assert 0.97 < zoom < 1.03 * np.exp(LARGEST_ZOOM)


def test_shots_are_turned_more_than_where_images_are_many(config):
    shot = plain_sample(2.0, width=320, height=240)
    shot.depth_m[:120] = 1.0  # the border between them is level
    source = batches([shot], [], config, shots_per_batch=1)
    angles_deg = []
    for _ in range(60):
        depth_m = source.next().depth_m[0].numpy()
        near = (depth_m < 1.5) & np.isfinite(depth_m)
        left, right = near[:, 16:24].sum(), near[:, -24:-16].sum()
        span = depth_m.shape[1] - 40
        angles_deg.append(abs(np.degrees(np.arctan((right - left) / 8 / span))))
    assert ROTATION_DEG - 2.0 < max(angles_deg) < ROTATION_DEG + 1.0


def test_a_large_camera_is_shrunk_once_and_its_lens_stays_right(config):
    shot = plain_sample(2.0, width=640, height=480)
    source = batches([shot], [], config)
    kept, fit = source.shots[0]
    assert kept.rgb.shape[:2] == kept.depth_m.shape == (2 * fit.height, 2 * fit.width)
    own_px = shot.camera.resized(width=fit.width, height=fit.height).focal_px
    for focal_px in source.next().focal_px.tolist():
        assert 0.97 < focal_px / own_px < 1.03 * np.exp(LARGEST_ZOOM)


def test_depth_out_of_range_teaches_nothing(config):
    batch = batches([plain_sample(5.0, max_depth_m=4.0)], [], config).next()
    assert batch.depth_m.isnan().all()


def test_upright_and_wide_cameras_take_turns(config):
    shots = [plain_sample(1.0), plain_sample(2.0, width=48, height=64)]
    source = batches(shots, [], config, shots_per_batch=1)
    assert {tuple(source.next().rgb.shape[1:3]) for _ in range(4)} == {(48, 64), (64, 48)}


def test_the_same_seed_gives_the_same_batches(config):
    shots = [replace(plain_sample(2.0), stamp_ns=i) for i in range(3)]
    one, same, other = (batches(shots, shots, config, seed=seed) for seed in (4, 4, 5))
    for _ in range(2):
        a, b, c = one.next(), same.next(), other.next()
        assert a.rgb.equal(b.rgb)
        assert a.focal_px.equal(b.focal_px)
        assert not a.focal_px.equal(c.focal_px)
