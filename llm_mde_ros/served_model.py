"""The model that serves: used by the worker for every frame, replaced between two of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import threading

import numpy as np
import torch

from llm_mde_core.device import is_out_of_memory
from llm_mde_core.geometry import Camera
from llm_mde_core.prediction import DepthPrediction
from llm_mde_ros.freed_memory import give_back_freed_memory
from llm_mde_ros.model_loading import LoadedModel

OUT_OF_MEMORY = (
    'The GPU is out of memory, so that frames are dropped: end what else runs on it, take a '
    'smaller model or smaller images, or set cpu_fallback.'
)

TRIAL_FRAMES = 5  # that a new model has to answer before the one before it is let go


@dataclass
class Trial:
    """The first frames of a new model: what served before it still waits behind it."""

    before: LoadedModel
    failed: Callable[[str], None]  # told why the new one went
    frames_left: int = TRIAL_FRAMES


class ServedModel:
    """
    Holds what is loaded; `error` says why the last frame got no depth.

    Whoever runs a network takes `turn`: two at a time would only make both slower, and what is
    recorded for CUDA cannot run twice at once.
    """

    def __init__(self, *, cpu_fallback: Callable[[], bool]) -> None:
        self.turn = threading.Lock()
        self.loaded: LoadedModel | None = None
        self.error = ''
        self.camera: Camera | None = None  # of the last frame
        self.made_by: tuple[str, str] | None = None  # the last frame; another may serve by now
        # Lets go of another model, that may serve next, and of its memory; None: there is none.
        self.end_trial: Callable[[], None] | None = None
        self._cpu_fallback = cpu_fallback
        self._trial: Trial | None = None

    @property
    def adapter(self) -> str:
        """The folder of the adapter that serves; empty: none."""
        return self.loaded.adapter if self.loaded else ''

    def serve(
        self, loaded: LoadedModel | None, *, failed: Callable[[str], None] | None = None
    ) -> None:
        """
        Let another model serve from the next frame on; None: none.

        With `failed` it is on trial: if it cannot answer one of its first frames that what served
        before can answer, that one answers it and serves again, and `failed` is told why.
        """
        with self.turn:
            self._trial = self._trial_after(failed) if loaded and failed else None
            self.loaded, self.error = loaded, ''
        give_back_freed_memory()  # nothing here may still hold what served

    def _trial_after(self, failed: Callable[[str], None]) -> Trial | None:
        before = self._trial.before if self._trial else self.loaded
        return Trial(before, failed) if before else None

    def infer(self, rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        """
        Estimate the depth of one image, as DepthEstimator does.

        A GPU without memory raises RuntimeError for this frame alone; with cpu_fallback the model
        moves to the CPU instead, unless it is another model beside it that takes the memory.
        """
        with self.turn:
            self.camera = camera
            on_trial = self._trial is not None
            prediction = self._try(rgb, camera) if on_trial else self._infer(rgb, camera)
            self.error, self.made_by = '', self.loaded.made_by
            if on_trial and self._trial is None:
                give_back_freed_memory()
            return prediction

    def _try(self, rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        """Infer with a model on trial, or with the one before it, which then serves again."""
        trial = self._trial
        try:
            prediction = self._infer(rgb, camera)
        except Exception as error:  # whatever it is: what served before knew how
            if self._trial is None:  # it has let go of what served before, to have its memory
                raise
            reason = f'{type(error).__name__}: {error}'
            known = trial.before.estimator.infer(rgb, camera)  # raises where the image is at fault
        else:
            known = None if sees(prediction) else trial.before.estimator.infer(rgb, camera)
            if known is None or not sees(known):
                trial.frames_left -= 1
                if not trial.frames_left:
                    self._trial = None
                return prediction
            reason = 'it saw no depth where what served before it does'
        self.loaded, self._trial = trial.before, None
        trial.failed(reason)
        return known

    def _infer(self, rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        try:
            return self.loaded.estimator.infer(rgb, camera)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self.error = OUT_OF_MEMORY
            end_trial = self.end_trial  # its thread may take it away
            if end_trial is not None:
                end_trial()
                raise
            if self._trial is not None:
                self._trial = None
                raise
            if not self._cpu_fallback():
                raise
        # Not above: the error holds on to memory of the GPU.
        self.loaded = self.loaded.on_cpu()
        return self.loaded.estimator.infer(rgb, camera)


def sees(prediction: DepthPrediction) -> bool:
    """Return whether there is any depth."""
    return bool(torch.isfinite(prediction.depth).any())
