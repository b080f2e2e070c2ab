"""One frame as one graph: traced on a CPU; on CUDA compiled, recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable
import logging
import time

import torch
from torch._dynamo import config as dynamo
from torch._dynamo.exc import FailOnRecompileLimitHit

from llm_mde_core.constants import Constants
from llm_mde_core.device import is_out_of_memory
from llm_mde_core.frame import Frame, FrameOutput
from llm_mde_core.private_cache import compile_privately

logger = logging.getLogger(__name__)
# Frames share their code, and torch gives up after eight compilations of the same code; every
# camera and every adapter is one.
MOST_COMPILATIONS = 200
RunFrame = Callable[[torch.Tensor, torch.Tensor, Constants | None], FrameOutput]


def compile_frame(
    frame: Frame, rgb: torch.Tensor, focal_px: torch.Tensor, constants: Constants | None
) -> RunFrame:
    """
    Compile a frame for inputs like these; where that is not possible, say why and return it as is.

    RuntimeError when there is too little memory even for that: later there may be enough.

    On a CPU this takes seconds and saves the way through Python; inductor would take minutes there
    and save no more. On CUDA the first time takes up to minutes, and torch keeps what it compiled
    in TORCHINDUCTOR_CACHE_DIR.
    """
    inputs = (rgb, focal_px, constants)
    frame(*inputs)  # so that what fails below is the compiler; transformers prepares itself, too
    start = time.monotonic()
    logger.info('Compiling the network for images of %d x %d …', frame.width, frame.height)
    backend = 'eager' if rgb.device.type == 'cpu' else 'inductor'
    compile_privately()
    compiled = torch.compile(frame, backend=backend, fullgraph=True, dynamic=False)
    try:
        with dynamo.patch(recompile_limit=MOST_COMPILATIONS):
            compiled(*inputs)
            run: RunFrame = RecordedFrame(compiled, *inputs) if rgb.is_cuda else compiled
    except (RuntimeError, FailOnRecompileLimitHit) as error:
        needs_memory = is_out_of_memory(error)
        reason = 'out of memory' if needs_memory else str(error).strip().splitlines()[0]
        logger.warning('The network is not compiled, which is slower: %s', reason)
    else:
        logger.info('Compiled in %.0f s.', time.monotonic() - start)
        return run
    if needs_memory:  # not above: the error holds on to what was compiled
        torch.cuda.empty_cache()
        frame(*inputs)
    return frame


class RecordedFrame:
    """A CUDA graph: one launch for everything, from any thread; outputs are copies."""

    def __init__(
        self,
        run: RunFrame,
        rgb: torch.Tensor,
        focal_px: torch.Tensor,
        constants: Constants | None,
    ) -> None:
        self._run = run
        self._rgb, self._focal_px = rgb.clone(), focal_px.clone()
        self._record(constants)

    def __call__(
        self, rgb: torch.Tensor, focal_px: torch.Tensor, constants: Constants | None
    ) -> FrameOutput:
        """Do what the recorded frame does; it reads from where it was recorded."""
        if constants is not self._constants:
            self._record(constants)
        with torch.cuda.device(self._rgb.device):
            self._rgb.copy_(rgb)
            self._focal_px.copy_(focal_px)
            self._graph.replay()
            return _copy_of(self._output)

    def _record(self, constants: Constants | None) -> None:
        inputs = (self._rgb, self._focal_px, constants)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._rgb.device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # libraries allocate in their first calls
                for _ in range(3):
                    self._run(*inputs)
            torch.cuda.current_stream().wait_stream(aside)
            # thread_local: another network may serve meanwhile, in a thread of its own.
            with torch.cuda.graph(graph, stream=aside, capture_error_mode='thread_local'):
                output = self._run(*inputs)
        self._graph, self._output, self._constants = graph, output, constants


def _copy_of(output: FrameOutput) -> FrameOutput:
    """Save what the next replay overwrites."""
    ids, chosen = output.prompt_ids, output.depth_class
    return FrameOutput(
        depth=output.depth.clone(),
        certainty=output.certainty.clone(),
        prompt_ids=None if ids is None else ids.clone(),
        depth_class=None if chosen is None else chosen.clone(),
    )
