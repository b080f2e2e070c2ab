"""What to measure, and the cases that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

from llm_mde_core.bench.case import AUTHORS, AUTHORS_AT_OUR_INPUT, DEPTH_ANYTHING, Case
from llm_mde_core.device import choose_compile, choose_device, choose_precision


@dataclass(frozen=True)
class BenchOptions:
    """
    The one place for the benchmark's defaults.

    Without `precisions` and `compile`, fp32 without compilation is measured, and what the
    estimator would choose on the device. `compile` knows 'onnx', too: the network is exported
    (fp32) and run by onnxruntime.
    """

    models: tuple[str, ...] = ('tiny', 'paper')  # presets, bundled names or folders
    sizes: tuple[int, ...] = (640,)  # widths of 4:3 camera images, pixels
    inputs: tuple[int, ...] = ()  # widths of 4:3 inputs of the network, pixels
    batches: tuple[int, ...] = (1,)  # of those inputs
    precisions: tuple[str, ...] = ()
    compile: tuple[str, ...] = ()
    device: str = 'auto'
    seconds: float = 5.0  # for each case
    memory: bool = True  # measure the peak of each case in a process of its own


def plan_cases(options: BenchOptions) -> list[Case]:
    """
    Return every case; ValueError for a wrong option.

    At the first size `paper` comes with the authors' way, at their input and at that of `paper`;
    `tiny` comes with Depth Anything.
    """
    device = choose_device(options.device)
    ways = _ways(options, device)
    first = options.sizes[:1]
    authors = (AUTHORS, AUTHORS_AT_OUR_INPUT) if 'paper' in options.models else ()
    anything = (DEPTH_ANYTHING,) if 'tiny' in options.models else ()
    one, plain = (1,), [('fp32', 'off')]
    by_torch = [way for way in ways if way[1] != 'onnx']
    return [
        *_grid('frame', device, authors, first, one, plain),
        *_grid('frame', device, anything, first, one, by_torch),
        *_grid('frame', device, options.models, options.sizes, one, ways),
        *_grid('network', device, options.models, options.inputs, options.batches, by_torch),
    ]


def _grid(
    door: str,
    device: torch.device,
    models: tuple[str, ...],
    widths: tuple[int, ...],
    batches: tuple[int, ...],
    ways: list[tuple[str, str]],
) -> list[Case]:
    return [
        Case(
            model=model,
            width=width,
            height=width * 3 // 4,
            door=door,
            batch=batch,
            precision=precision,
            compile=compile,
            device=str(device),
        )
        for width, batch, (precision, compile), model in product(widths, batches, ways, models)
    ]


def _ways(options: BenchOptions, device: torch.device) -> list[tuple[str, str]]:
    """Return pairs of precision and compile."""
    if options.precisions or options.compile:
        ways = [*product(options.precisions or ('fp32',), options.compile or ('off',))]
    else:
        ways = [('fp32', 'off'), ('auto', 'auto')]
    chosen = [(choose_precision(p, device), _way(c, device)) for p, c in ways]
    return [way for way in dict.fromkeys(chosen) if way[1] != 'onnx' or way[0] == 'fp32']


def _way(compile: str, device: torch.device) -> str:
    if compile == 'onnx':
        return compile
    return 'on' if choose_compile(compile, device) else 'off'


def usual_case(options: BenchOptions) -> Case:
    """Return a frame of the first model and size, run as the estimator chooses."""
    if not options.models or not options.sizes:
        raise ValueError('name a model and a size')
    device = choose_device(options.device)
    return Case(
        model=options.models[0],
        width=options.sizes[0],
        height=options.sizes[0] * 3 // 4,
        precision=choose_precision('auto', device),
        compile=_way('auto', device),
        device=str(device),
    )


def names(text: str) -> tuple[str, ...]:
    """Read 'a,b'."""
    return tuple(filter(None, text.split(',')))


def numbers(text: str) -> tuple[int, ...]:
    """Read '1,2'; ValueError for what is no positive number."""
    values = tuple(map(int, names(text)))
    if any(value < 1 for value in values):
        raise ValueError(f'numbers must be positive, got {text}')
    return values
