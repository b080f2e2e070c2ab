"""Endless batches of rendered rooms and real frames, made in worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
import itertools

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from llm_mde_train.augment import change_light, crop_to, cut_depth
from llm_mde_train.rooms import render_rooms
from llm_mde_train.samples import Frame, Sample

# What cameras send, as (height, width) over the long side: 4:3 most often, 16:9, square, upright.
SHAPES = ((3, 4), (3, 4), (3, 4), (9, 16), (1, 1), (4, 3))
# Long sides over the largest: at one focal length a lens of 72, 62 or 53 degrees.
LONG_SIDES = (1.0, 6 / 7, 6 / 7, 6 / 7, 5 / 7)
LENS_SIGMA = 0.15  # of the logarithm of the focal length around the canonical one
RENDERED_SIZE = (240, 320)
FIRST_POOL_SIZE = 16
POOL_SIZE = 256
SHAPE, IMAGE, ROOMS, FIRST_ROOMS = range(4)  # what is drawn, each from a generator of its own


@dataclass(frozen=True)
class Batch:
    """Images (B, H, W, 3) uint8, depth (B, H, W) metres with NaN, focal lengths (B,) in pixels."""

    rgb: torch.Tensor
    depth_m: torch.Tensor
    focal_px: torch.Tensor


class MixedBatches(IterableDataset):
    """
    Yield batches of one random shape each, `real_fraction` of the images real, others rendered.

    A rendered room is used about `reuse` times, differently cropped and lit, because rendering
    costs more than training on it. Images are cut and resized to about the canonical focal
    length, as inference does; `cut_depth` of them get CutDepth. The first `first_steps` batches
    are made for `first_image_size`: the focal length shrinks with the image, so the metres stay
    right and early steps cost less.

    The same seed and number of workers give the same batches, also when a later stream begins at
    batch `start` of an earlier one. Of `processes` that train together, number `process` makes
    its share of every batch; however many share a batch, its real images are the same, while
    every process renders rooms of its own.
    """

    def __init__(
        self,
        real: list[Frame],
        *,
        seed: int,
        batch_size: int,
        image_size: int,
        canonical_focal_px: float,
        patch_px: int,
        real_fraction: float,
        reuse: int,
        first_image_size: int,
        first_steps: int,
        start: int = 0,
        cut_depth: float = 0.0,
        max_depth_m: float = 10.0,
        render_device: str = 'cpu',
        process: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.real = real
        self.seed = seed
        self.batch_size = batch_size
        self.image_size = image_size
        self.canonical_focal_px = canonical_focal_px
        self.patch_px = patch_px
        self.real_fraction = real_fraction if real else 0.0
        self.reuse = reuse
        self.first_image_size = first_image_size
        self.first_steps = first_steps
        self.start = start
        self.cut_depth = cut_depth
        self.max_depth_m = max_depth_m
        self.render_device = render_device
        self.process = process
        self.mine = range(process, batch_size, processes)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            cv2.setNumThreads(0)  # its threads do not survive the fork
        first = self.start + number
        pool = self._pool_before(first, workers=workers)
        for index in itertools.count(first, workers):  # workers take turns
            pool.extend(self._fresh_rooms(index))
            image_size = self.first_image_size if index < self.first_steps else self.image_size
            height, width = self._shape(self._rng(SHAPE, index), image_size)
            focal_px = self.canonical_focal_px * image_size / self.image_size
            yield collate(
                [
                    self._draw(
                        self._rng(IMAGE, index, image),
                        pool,
                        height=height,
                        width=width,
                        focal_px=focal_px,
                    )
                    for image in self.mine
                ]
            )

    def _rng(self, purpose: int, index: int, part: int = 0) -> np.random.Generator:
        return np.random.default_rng((self.seed, purpose, index, part))

    def _pool_before(self, index: int, *, workers: int) -> deque[Sample]:
        """Render the rooms that are in the pool of a batch's worker before that batch."""
        pool: deque[Sample] = deque(maxlen=POOL_SIZE)
        fresh = self._rooms_per_batch()
        if fresh:
            worker, enough = index % workers, -(-POOL_SIZE // fresh)
            earlier = range(worker, index, workers)
            if len(earlier) < enough:
                seed = _room_seed(self._rng(FIRST_ROOMS, worker, self.process))
                pool.extend(self._render(seed, FIRST_POOL_SIZE))
            for batch in earlier[-enough:]:
                pool.extend(self._fresh_rooms(batch))
        return pool

    def _fresh_rooms(self, index: int) -> list[Sample]:
        seed = _room_seed(self._rng(ROOMS, index, self.process))
        return self._render(seed, self._rooms_per_batch())

    def _render(self, seed: int, count: int) -> list[Sample]:
        return rendered_samples(seed, count, device=self.render_device)

    def _rooms_per_batch(self) -> int:
        if self.real_fraction == 1.0:
            return 0
        return max(1, round(len(self.mine) * (1.0 - self.real_fraction) / self.reuse))

    def _shape(self, rng: np.random.Generator, image_size: int) -> tuple[int, int]:
        rows, columns = SHAPES[rng.integers(len(SHAPES))]
        unit = image_size * LONG_SIDES[rng.integers(len(LONG_SIDES))] / max(rows, columns)
        height, width = (
            max(1, round(side * unit / self.patch_px)) * self.patch_px for side in (rows, columns)
        )
        return height, width

    def _draw(
        self,
        rng: np.random.Generator,
        pool: deque[Sample],
        *,
        height: int,
        width: int,
        focal_px: float,
    ) -> tuple[np.ndarray, np.ndarray, float]:
        source = self.real if rng.random() < self.real_fraction else pool
        sample = source[rng.integers(len(source))].load()
        wanted_px = focal_px * np.exp(LENS_SIGMA * rng.standard_normal())
        rgb, depth_m, result_px = crop_to(
            sample, rng, height=height, width=width, focal_px=wanted_px
        )
        rgb = change_light(rgb, rng)
        depth_m = np.where(depth_m <= sample.max_depth_m, depth_m, np.nan)
        if rng.random() < self.cut_depth:
            rgb = cut_depth(rgb, depth_m, rng, max_depth_m=self.max_depth_m)
        return rgb, depth_m, result_px


def _room_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def rendered_samples(seed: int, count: int, *, device: str = 'cpu') -> list[Sample]:
    """Render `count` rooms on a device; the samples are in main memory."""
    if not count:
        return []
    height, width = RENDERED_SIZE
    rooms = render_rooms(seed=seed, batch=count, height=height, width=width, device=device)
    return [
        Sample(rgb=rgb, depth_m=depth_m, camera=camera, scene='rendered')
        for rgb, depth_m, camera in zip(
            rooms.rgb.cpu().numpy(), rooms.depth_m.cpu().numpy(), rooms.cameras, strict=True
        )
    ]


def collate(images: list[tuple[np.ndarray, np.ndarray, float]]) -> Batch:
    """Stack (rgb, depth, focal length) of images of one size."""
    rgb, depth_m, focal_px = zip(*images, strict=True)
    return Batch(
        rgb=torch.from_numpy(np.stack(rgb)),
        depth_m=torch.from_numpy(np.stack(depth_m)),
        focal_px=torch.tensor(focal_px, dtype=torch.float32),
    )
