"""Batches of few shots and of what must not be forgotten, each time differently cut and lit."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from llm_mde_core import Camera, LLMMDEConfig
from llm_mde_core.image import Fit, LLMMDEImageProcessor
from llm_mde_train.augment import change_light, crop_to
from llm_mde_train.batches import LENS_SIGMA, Batch, collate
from llm_mde_train.samples import Sample

LARGEST_ZOOM = 0.15  # of the logarithm of the focal length
ROTATION_DEG = 8.0  # of all images; few shots show but few ways in which the camera is held
CHANGED_LIGHT = 0.5  # part of the images; the others are shown as the camera took them
DENSITY = 2.0  # pixels that are kept for each of the network's, along each side


class ShotBatches:
    """
    Endless batches in the shape in which the network will see the shots' camera.

    Every shot is drawn once before any is drawn again. It is shown through its own lens or up
    to a sixth longer, replay through lenses around the canonical one.
    """

    def __init__(
        self,
        shots: list[Sample],
        replay: list[Sample],
        *,
        config: LLMMDEConfig,
        shots_per_batch: int,
        replay_per_batch: int,
        seed: int,
    ) -> None:
        self.processor = LLMMDEImageProcessor.from_config(config)
        self.canonical_focal_px = config.canonical_focal_px
        fits = [self._fit(shot.camera) for shot in shots]
        self.shots = [(_shrunk(shot, fit), fit) for shot, fit in zip(shots, fits, strict=True)]
        self.replay = replay
        self.shots_per_batch = shots_per_batch
        self.replay_per_batch = replay_per_batch if replay else 0
        self._rng = np.random.default_rng(seed)
        self._waiting: list[int] = []

    def next(self) -> Batch:
        """Draw a batch of one shape, that of a random one of its shots."""
        shots = [self._next_shot() for _ in range(self.shots_per_batch)]
        fit = shots[0][1]
        images = []
        for shot, seen in shots:
            focal_px = shot.camera.resized(width=seen.width, height=seen.height).focal_px
            zoom = np.exp(self._rng.uniform(0.0, LARGEST_ZOOM))
            images.append(self._draw(shot, fit, focal_px=focal_px * zoom))
        for _ in range(self.replay_per_batch):
            room = self.replay[self._rng.integers(len(self.replay))]
            lens = np.exp(LENS_SIGMA * self._rng.standard_normal())
            images.append(self._draw(room, fit, focal_px=self.canonical_focal_px * lens))
        return collate(images)

    def _next_shot(self) -> tuple[Sample, Fit]:
        if not self._waiting:
            self._waiting = self._rng.permutation(len(self.shots)).tolist()
        return self.shots[self._waiting.pop()]

    def _fit(self, camera: Camera) -> Fit:
        return self.processor.fit(
            height=camera.height, width=camera.width, focal_px=camera.focal_px
        )

    def _draw(
        self, sample: Sample, fit: Fit, *, focal_px: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        rgb, depth_m, result_px = crop_to(
            sample,
            self._rng,
            height=fit.padded_height,
            width=fit.padded_width,
            focal_px=focal_px,
            rotation_deg=ROTATION_DEG,
        )
        known = np.where(depth_m <= sample.max_depth_m, depth_m, np.float32(np.nan))
        if self._rng.random() < CHANGED_LIGHT:
            rgb = change_light(rgb, self._rng)
        return rgb, known, result_px


def _shrunk(shot: Sample, fit: Fit) -> Sample:
    """Drop most of what the network would not see, once: every batch costs less."""
    width, height = round(DENSITY * fit.width), round(DENSITY * fit.height)
    if width >= shot.camera.width or height >= shot.camera.height:
        return shot
    size = (width, height)
    return replace(
        shot,
        rgb=cv2.resize(shot.rgb, size, interpolation=cv2.INTER_AREA),
        depth_m=cv2.resize(shot.depth_m, size, interpolation=cv2.INTER_NEAREST_EXACT),
        camera=shot.camera.resized(width=width, height=height),
    )
