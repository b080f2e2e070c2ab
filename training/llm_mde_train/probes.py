"""What a model's metres depend on, by rendered rooms: the lens, and its language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
import math

import numpy as np
import torch

from llm_mde_core import Camera, DepthEstimator
from llm_mde_train.room_layouts import sample_scene
from llm_mde_train.room_scene import Dice
from llm_mde_train.room_sensor import expose, sample_sensor
from llm_mde_train.rooms import render_rooms, render_scenes

WIDTH, HEIGHT = 320, 240
LENS = Camera.from_hfov(width=WIDTH, height=HEIGHT, hfov_deg=65.0)
LONGER = 4 / 3
BLIND = math.log(LONGER)  # `lens_change` of a model that ignores the lens


def lens_change(estimator: DepthEstimator, *, rooms: int, seed: int = 0) -> float:
    """
    Return how much a third longer lens changes the metres of the same room from the same place.

    The median over rooms of a room's median log ratio, without its sign: 0 is perfect.
    """
    longer = replace(LENS, fx=LENS.fx * LONGER, fy=LENS.fy * LONGER)
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    # where the shorter lens has the ray of each pixel of the longer one
    row = np.rint((row - LENS.cy) / LONGER + LENS.cy).astype(int)
    column = np.rint((column - LENS.cx) / LONGER + LENS.cx).astype(int)
    changes = []
    for number in range(rooms):
        rng = Dice(f'lens {seed} {number}')
        scene, pose = sample_scene(rng)
        light, _ = render_scenes([scene] * 2, [pose] * 2, [LENS, longer])
        pictures = expose(light, [sample_sensor(rng)] * 2, [rng] * 2).numpy()
        short_m = estimator.infer(pictures[0], LENS).depth_m[row, column]
        long_m = estimator.infer(pictures[1], longer).depth_m
        changes.append(abs(np.nanmedian(np.log(long_m / short_m))))
    return float(np.nanmedian(changes))


def language_change(estimator: DepthEstimator, *, rooms: int, seed: int = 0) -> float:
    """
    Return by what part depth changes when the language model says its mean for every patch.

    The mean over pixels and rooms of |changed / depth - 1|: 0 is a language model that is not
    heard. Raises ValueError for a model without one.
    """
    if estimator.model.config.language == 'none':
        raise ValueError('this model has no language model')
    changes = []
    for number in range(rooms):
        room = render_rooms(seed=seed + number, batch=1, height=HEIGHT, width=WIDTH)
        rgb, camera = room.rgb[0].numpy(), room.cameras[0]
        depth_m = estimator.infer(rgb, camera).depth_m
        with _the_same_for_all_patches(estimator.model.language):
            changed_m = estimator.infer(rgb, camera).depth_m
        changes.append(np.nanmean(np.abs(changed_m / depth_m - 1)))
    return float(np.nanmean(changes))


@contextmanager
def _the_same_for_all_patches(language: torch.nn.Module) -> Iterator[None]:
    """Let a language model give (B, N, D) tokens that are all their mean."""
    hook = language.register_forward_hook(
        lambda _module, _inputs, tokens: tokens.mean(1, keepdim=True).expand_as(tokens)
    )
    try:
        yield
    finally:
        hook.remove()
