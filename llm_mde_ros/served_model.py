"""The model that serves: used by the worker for every frame, replaced between two of them."""

from __future__ import annotations

from collections.abc import Callable
import threading

import numpy as np

from llm_mde_core.device import is_out_of_memory
from llm_mde_core.geometry import Camera
from llm_mde_core.prediction import DepthPrediction
from llm_mde_ros.freed_memory import give_back_freed_memory
from llm_mde_ros.model_loading import LoadedModel

OUT_OF_MEMORY = (
    'The GPU is out of memory, so that frames are dropped: end what else runs on it, take a '
    'smaller model or smaller images, or set cpu_fallback.'
)


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
        self.made_by = ('', '')  # the last frame: model and adapter; others may serve by now
        # Lets go of another model, that may serve next, and of its memory; None: there is none.
        self.end_trial: Callable[[], None] | None = None
        self._cpu_fallback = cpu_fallback

    @property
    def adapter(self) -> str:
        """The folder of the adapter that serves; empty: none."""
        return self.loaded.adapter if self.loaded else ''

    def serve(self, loaded: LoadedModel | None) -> None:
        """Let another model serve from the next frame on; None: none."""
        with self.turn:
            self.loaded, self.error = loaded, ''
        give_back_freed_memory()

    def infer(self, rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        """
        Estimate the depth of one image, as DepthEstimator does.

        A GPU without memory raises RuntimeError for this frame alone; with cpu_fallback the model
        moves to the CPU instead, unless it is another model on trial that takes the memory.
        """
        with self.turn:
            self.camera = camera
            try:
                prediction = self.loaded.estimator.infer(rgb, camera)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.error = OUT_OF_MEMORY
                end_trial = self.end_trial  # its thread may take it away
                if end_trial is not None:
                    end_trial()
                    raise
                if not self._cpu_fallback():
                    raise
            else:
                self._done()
                return prediction
            # Not above: the error holds on to memory of the GPU.
            self.loaded = self.loaded.on_cpu()
            prediction = self.loaded.estimator.infer(rgb, camera)
            self._done()
            return prediction

    def _done(self) -> None:
        self.error = ''
        self.made_by = self.loaded.identity['model'], self.loaded.adapter
