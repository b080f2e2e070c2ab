"""A model that serves, and another that shall: with networks in name."""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from typing import Any

import numpy as np
import torch

from llm_mde_core.estimator import DepthPrediction
from llm_mde_core.geometry import Camera
from llm_mde_ros.adapter_swap import AdapterSwap, Request
from llm_mde_ros.model_loading import LoadedModel
from llm_mde_ros.served_model import ServedModel

CAMERA = Camera.from_hfov(width=8, height=6, hfov_deg=60.0)
RGB = np.zeros((6, 8, 3), np.uint8)


class Estimator:
    """Sees a wall; what it takes for it is told one run after the other."""

    depth_range_m = (0.1, 10.0)

    def __init__(self, *, depth_m: float = 2.0, seconds: tuple[float, ...] = (0.01,)) -> None:
        self.depth = torch.full((6, 8), depth_m)
        self.seconds = seconds
        self.runs = 0
        self.errors: list[Exception] = []

    def infer(self, rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        if self.errors:
            raise self.errors.pop()
        seconds = self.seconds[min(self.runs, len(self.seconds) - 1)]
        self.runs += 1
        return DepthPrediction(self.depth, lambda: torch.ones(6, 8), {'network': seconds})

    def warm_up(self, camera: Camera) -> float:
        return sum(self.infer(RGB, camera).stage_s.values())

    def on_cpu(self) -> Estimator:
        return Estimator(depth_m=3.0)

    def info(self) -> dict[str, str]:
        return {'model': 'wall'}


class Bench:
    """A model that serves, and the thread that asks for another."""

    def __init__(self) -> None:
        self.model = ServedModel(cpu_fallback=lambda: False)
        self.old, self.told, self.went_back = LoadedModel(Estimator(), 'old'), [], []
        self.model.serve(self.old)
        self.calls: Queue[Callable[[], None]] = Queue()
        self.swap = AdapterSwap(self.model, deliver=self.calls.put)

    def start(self, load: Callable[[], LoadedModel]) -> None:
        self.swap.start(Request('new', load, CAMERA, self.told.append, self.went_back.append))

    def finish(self) -> None:
        """Take what the thread hands over."""
        self.calls.get(timeout=60)()

    def serving_after(self, new: Any) -> str:
        self.start(lambda: LoadedModel(new, 'new'))
        self.finish()
        return self.model.adapter

    def depth_m(self) -> float:
        """Return what a real image gets."""
        return float(self.model.infer(RGB, CAMERA).depth[0, 0])
