"""
One thing to measure, and what every one needs: a camera, an image, a precision, a compiler.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._dynamo import config as dynamo

from llm_mde_core.bench.clock import Stages
from llm_mde_core.compiled import MOST_COMPILATIONS
from llm_mde_core.device import PRECISIONS
from llm_mde_core.geometry import Camera

AUTHORS = 'authors'
AUTHORS_AT_OUR_INPUT = 'authors-at-our-input'  # the network's: that of `paper`
DEPTH_ANYTHING = 'depth-anything-v2-small'
HFOV_DEG = 60.0
WAYS = {'off': '', 'on': ' compiled', 'onnx': ' onnxruntime'}


@dataclass(frozen=True)
class Case:
    """
    One thing to measure.

    Door 'frame': an image, uint8 (height, width, 3) in the host's memory, to its depth there.
    Door 'network': `batch` inputs of the network, (B, 3, height, width), made whole patches, to
    their depth, both on the device.
    """

    model: str  # a preset, a bundled name, a folder or one of the three references
    width: int
    height: int
    door: str = 'frame'
    batch: int = 1
    precision: str = 'fp32'
    compile: str = 'off'  # of WAYS
    device: str = 'cpu'

    def __str__(self) -> str:
        return (
            f'{self.model} {self.door} {self.width}x{self.height} batch {self.batch} '
            f'{self.precision}{WAYS[self.compile]}'
        )


@dataclass(frozen=True)
class Contender:
    """A case that is ready to run."""

    run: Callable[[], Stages]
    input_size: tuple[int, int]  # width and height of the network's input


def camera_of(case: Case) -> Camera:
    """Return a camera of the case's size."""
    return Camera.from_hfov(width=case.width, height=case.height, hfov_deg=HFOV_DEG)


def image_of(case: Case) -> np.ndarray:
    """Return an image like any other: smooth, with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : case.height, 0 : case.width]
    smooth = np.stack([rows, columns, rows + columns], axis=2) % 200
    return (smooth + random.integers(0, 56, smooth.shape)).astype(np.uint8)


def compiled(network: nn.Module, case: Case) -> Callable[..., Any]:
    """Return a network, compiled if the case says so."""
    if case.compile == 'off':
        return network
    # Every size and batch is a compilation of the same code; after eight torch would stay eager.
    dynamo.recompile_limit = MOST_COMPILATIONS
    mode = 'reduce-overhead' if torch.device(case.device).type == 'cuda' else 'default'
    return torch.compile(network, mode=mode, dynamic=False)


def autocast_of(case: Case) -> torch.autocast:
    """Return the context of the case's precision."""
    dtype = PRECISIONS[case.precision]
    kind = torch.device(case.device).type
    return torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32)
