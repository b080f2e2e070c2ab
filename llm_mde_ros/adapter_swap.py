"""
Another adapter beside the one that serves: load, test, and only then let it serve.

No ROS in here: what comes of the thread is handed to `deliver`, which calls it where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median
import threading
import time

import numpy as np
import torch

from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.geometry import Camera
from llm_mde_ros.model_loading import LoadedModel
from llm_mde_ros.served_model import ServedModel

ENOUGH_RUNS = 3  # of each network, in turns
MAX_RUNS = 15  # before it is too slow: the machine may have been busy
MAX_SLOWDOWN = 2.0
PAUSE_S = 0.01  # between two runs, so that a frame that waits gets its turn
LEAST_SEEN = 0.5  # of a test image: what sees less is no model of any room
BLOCKS = (6, 8)  # rows and columns of a test image
PLAIN = (0, 255)  # grey of the first test images: a covered lens, and a lamp
EXPECTED_ERRORS = (OSError, ValueError, RuntimeError)  # RuntimeError: torch, out of memory


@dataclass(eq=False)
class Request:
    """
    Somebody wants an adapter to serve; `done` is told why it does not, or nothing: ''.

    `went_back` is told, after that, when it served but could not answer its first images.
    """

    adapter: str  # folder; empty: none
    load: Callable[[], LoadedModel]
    camera: Camera  # of the test image
    done: Callable[[str], None]
    went_back: Callable[[str], None]
    withdrawn: threading.Event = field(default_factory=threading.Event)


class AdapterSwap:
    """
    Works on one request at a time, in a thread; what serves goes on until its successor does.

    The methods, and what `deliver` calls, belong to one thread.
    """

    def __init__(
        self, model: ServedModel, *, deliver: Callable[[Callable[[], None]], object]
    ) -> None:
        self.problem = ''  # why the last adapter that was asked for does not serve
        self._model = model
        self._deliver = deliver
        self._request: Request | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix='adapter')

    @property
    def loading(self) -> str:
        """What is being done, as a sentence; empty: nothing."""
        return f'{_named(self._request.adapter)} is being loaded.' if self._request else ''

    def start(self, request: Request) -> None:
        """Load an adapter, test it and let it serve; ValueError while another is being loaded."""
        if self._request is not None:
            raise ValueError(f'{self.loading} Ask again when it is done.')
        self.problem, self._request = '', request
        trial = self._pool.submit(_load_and_test, request, self._model)
        trial.add_done_callback(lambda trial: self._deliver(partial(self._end, request, trial)))

    def withdraw(self, reason: str) -> None:
        """Forget the last request; one without an answer gets the reason for one."""
        request, self._request, self.problem = self._request, None, ''
        if request is not None:
            request.withdrawn.set()
            request.done(reason)

    def join(self) -> None:
        """Wait for the thread; nothing can be started after it."""
        self._pool.shutdown()

    def _end(self, request: Request, trial: Future[LoadedModel]) -> None:
        if request is not self._request:
            return
        error = trial.exception()
        # Whatever a damaged adapter made peft or torch raise: what serves goes on.
        if error is None:
            self._model.serve(
                trial.result(),
                failed=lambda reason: self._deliver(partial(self._go_back, request, reason)),
            )
        else:
            kind = '' if isinstance(error, EXPECTED_ERRORS) else f'{type(error).__name__}: '
            reason = f'{kind}{error}'.rstrip('.')
            self.problem = f'{_named(request.adapter)} cannot serve: {reason}.'
        self._request = None
        request.done(self.problem)

    def _go_back(self, request: Request, reason: str) -> None:
        problem = (
            f'{_named(request.adapter)} failed at its first images: {reason.rstrip(".")}. '
            f'{_named(self._model.adapter)} serves again.'
        )
        if self._request is None:
            self.problem = problem
        request.went_back(problem)


def _load_and_test(request: Request, model: ServedModel) -> LoadedModel:
    serving = model.loaded
    model.end_trial = request.withdrawn.set
    try:
        loaded = request.load()
        if serving is not None and not request.withdrawn.is_set():
            compare(loaded.estimator, serving.estimator, request=request, turn=model.turn)
    finally:
        model.end_trial = None
    if request.withdrawn.is_set():
        raise ValueError('the GPU has no memory for it beside what serves')
    return loaded


def compare(
    candidate: DepthEstimator, serving: DepthEstimator, *, request: Request, turn: threading.Lock
) -> None:
    """Raise ValueError unless the candidate passes the self-test beside what serves."""
    candidate.warm_up(request.camera)  # not in a turn: it may be compiled for minutes
    new_s, old_s = [], []
    for runs in range(1 + MAX_RUNS):  # the first ones are not counted
        rgb = self_test_image(request.camera, number=runs)
        for estimator, taken_s in ((candidate, new_s), (serving, old_s)):
            if request.withdrawn.is_set():
                return
            with turn:
                prediction = estimator.infer(rgb, request.camera)
            taken_s.append(sum(prediction.stage_s.values()))
            if estimator is candidate:
                _check_depth(prediction.depth, *candidate.depth_range_m)
            time.sleep(PAUSE_S)
        if runs >= ENOUGH_RUNS and median(new_s[1:]) <= MAX_SLOWDOWN * median(old_s[1:]):
            return
    raise ValueError(
        f'it takes {1e3 * median(new_s[1:]):.0f} ms for a test image, what serves '
        f'{1e3 * median(old_s[1:]):.0f} ms'
    )


def self_test_image(camera: Camera, *, number: int) -> np.ndarray:
    """Return black, white, or blocks of random colours, the same each time: uint8 (H, W, 3)."""
    rows, columns = BLOCKS
    blocks = np.random.default_rng(number).integers(0, 256, (rows, columns, 3), np.uint8)
    if number < len(PLAIN):
        blocks[:] = PLAIN[number]
    row = np.arange(camera.height) * rows // camera.height
    column = np.arange(camera.width) * columns // camera.width
    return blocks[row][:, column]


def _check_depth(depth: torch.Tensor, min_m: float, max_m: float) -> None:
    seen = float(((depth >= min_m) & (depth <= max_m)).float().mean())  # NaN is neither
    if seen < LEAST_SEEN:
        raise ValueError(
            f'it sees depth from {min_m:g} to {max_m:g} m in only {seen:.0%} of a test image'
        )


def _named(adapter: str) -> str:
    return f'The adapter {adapter}' if adapter else 'The model without an adapter'
