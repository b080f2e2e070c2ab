"""Small samples and a small index of colour and depth images."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from llm_mde_core import Camera
from llm_mde_train.recipe import Recipe
from llm_mde_train.samples import Sample

COLUMNS = ('set', 'tier', 'rgb', 'depth', 'width', 'height', 'fx', 'fy', 'cx', 'cy', 'scene')
PAIRS = (  # set, tier, scene, depth in millimetres
    ('kitchen_train', 'A', 'kitchen', 1000),
    ('kitchen_train', 'B', 'kitchen', 2000),
    ('kitchen_train', 'C', 'kitchen', 9000),
    ('office', 'A', 'office', 4000),
)


def plain_sample(
    depth_m: float | np.ndarray = 2.0,
    *,
    width: int = 64,
    height: int = 48,
    scene: str = 'room',
    max_depth_m: float = 10.0,
) -> Sample:
    """Return a grey image with one depth, or with the depths (height, width) given."""
    depths = np.broadcast_to(np.asarray(depth_m, np.float32), (height, width)).copy()
    return Sample(
        rgb=np.full((height, width, 3), 128, np.uint8),
        depth_m=depths,
        camera=Camera.from_hfov(width=width, height=height, hfov_deg=60.0),
        scene=scene,
        max_depth_m=max_depth_m,
    )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Return an index of four pairs of 64 x 48, their first column of unknown depth."""
    path = tmp_path / 'data' / 'index.csv'
    path.parent.mkdir()
    rows = []
    for number, (name, tier, scene, depth_mm) in enumerate(PAIRS):
        depth = np.full((48, 64), depth_mm, np.uint16)
        depth[:, 0] = 0
        bgr = np.zeros((48, 64, 3), np.uint8)
        bgr[..., 2] = 200  # red
        cv2.imwrite(str(path.parent / f'{number}_rgb.png'), bgr)
        cv2.imwrite(str(path.parent / f'{number}_depth.png'), depth)
        files = (f'{number}_rgb.png', f'{number}_depth.png')
        values = (name, tier, *files, 64, 48, 55.0, 56.0, 31.5, 23.5, scene)
        row = dict(zip(COLUMNS, values, strict=True))
        rows.append(row | {'recommended_max_depth_m': 8.0})
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def small_rooms(seed: int, count: int, *, device: str = 'cpu') -> list[Sample]:
    """Return samples whose depth shows in their colour; another seed gives another depth."""
    generator = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        depth_m = np.tile(np.linspace(1.0, 4.0, 64, dtype=np.float32), (48, 1))
        depth_m[10:30, 20:40] = generator.uniform(0.5, 1.0)
        rgb = np.repeat((depth_m * 60).astype(np.uint8)[..., None], 3, axis=2)
        camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
        samples.append(Sample(rgb=rgb, depth_m=depth_m, camera=camera, scene='rendered'))
    return samples


@pytest.fixture
def rooms() -> list[Sample]:
    """Return two samples whose depth shows in their colour."""
    return small_rooms(0, 2)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path) -> Recipe:
    """Return a recipe for a small model on rooms that cost nothing."""
    monkeypatch.setattr('llm_mde_train.batches.rendered_samples', small_rooms)
    monkeypatch.setattr('llm_mde_train.fit.rendered_samples', small_rooms)
    return Recipe(
        start_from=str(tiny_model_dir),
        steps=2,
        batch_size=2,
        warmup_steps=0,
        learning_rate=3e-3,
        validation_rooms=1,
        workers=0,
        training_data='two rooms',
    )
