"""The benchmark without ROS: python -m llm_mde_core.bench."""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

from llm_mde_core.bench.command import bench, compare, profile, soak_frames
from llm_mde_core.bench.options import BenchOptions, names, numbers

DEFAULTS = BenchOptions()


def parser() -> argparse.ArgumentParser:
    """Describe the options; lists are separated by commas."""
    result = argparse.ArgumentParser('python -m llm_mde_core.bench', description=__doc__)
    add = result.add_argument
    add('--models', type=names, default=DEFAULTS.models, help='presets, names or folders')
    add('--sizes', type=numbers, default=DEFAULTS.sizes, help='widths of 4:3 images')
    add('--inputs', type=numbers, default=DEFAULTS.inputs, help='widths of network inputs')
    add('--batches', type=numbers, default=DEFAULTS.batches, help='of network inputs')
    add('--precisions', type=names, default=DEFAULTS.precisions, help='fp32, bf16, fp16, auto')
    add('--compile', type=names, default=DEFAULTS.compile, help='off, on, onnx, auto')
    add('--device', default=DEFAULTS.device, help='auto, cpu, cuda, cuda:N or mps')
    add('--seconds', type=float, default=DEFAULTS.seconds, help='for each case')
    add('--no-memory', action='store_true', help='leave out the peak memory')
    add('--json', type=Path, help='write the report')
    add('--compare', type=Path, nargs=2, metavar='JSON', help='print ratios of two reports')
    add('--soak', type=int, metavar='FRAMES', help='print the memory while frames go through')
    add('--profile', action='store_true', help='print what takes the time of every case')
    return result


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; what users can mend ends with a sentence."""
    given = parser().parse_args(arguments)
    options = BenchOptions(
        models=given.models,
        sizes=given.sizes,
        inputs=given.inputs,
        batches=given.batches,
        precisions=given.precisions,
        compile=given.compile,
        device=given.device,
        seconds=given.seconds,
        memory=not given.no_memory,
    )
    try:
        if given.compare:
            compare(*given.compare)
        elif given.soak is not None:
            soak_frames(options, frames=given.soak)
        elif given.profile:
            profile(options)
        else:
            bench(options, out=given.json, say=lambda text: print(text, file=sys.stderr))
    except (ValueError, OSError) as error:
        sys.exit(f'Error: {error}')


if __name__ == '__main__':
    main()
