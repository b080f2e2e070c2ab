"""
Write a model as ONNX for the images of one camera; only what says the same is left in place.

Shapes: H and W pixels of the network's input, T prompt length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import copy
from dataclasses import asdict
import logging
from pathlib import Path
import tempfile
from typing import Any
import warnings

import torch
from torch import nn
from torch.nn import functional

from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.exported import (
    FILE,
    INPUTS,
    OUTPUTS,
    ExportedNetwork,
    Origin,
    hfov_deg_of,
    import_onnxruntime,
)
from llm_mde_core.geometry import Camera
from llm_mde_core.image import LLMMDEImageProcessor
from llm_mde_core.model import LLMMDEForDepthEstimation

TOLERANCE = 1e-3  # largest relative difference of depth and spread; rounding gives 1e-6 to 1e-4
TRIALS = 3


def export(
    model: str | Path,
    camera: Camera,
    out: Path,
    *,
    adapter: str = '',
    allow_download: bool = False,
) -> float:
    """
    Export a model for the images of a camera into the folder `out`, which must not exist.

    Returns the largest relative difference of its outputs to torch's. Raises ValueError, and
    leaves nothing behind, when that is more than rounding; RuntimeError without ONNX.
    """
    _check_requirements()
    if out.exists():
        raise FileExistsError(f'{out} exists: remove it, or name another folder')
    estimator = DepthEstimator.from_pretrained(
        model,
        adapter=adapter or None,
        device='cpu',
        precision='fp32',
        compile='off',
        allow_download=allow_download,
    )
    network = estimator.model
    if isinstance(network, ExportedNetwork):
        raise ValueError(f'{model} is exported already: export {network.origin.model}')
    origin = Origin(
        model=str(model),
        adapter=adapter,
        width=camera.width,
        height=camera.height,
        hfov_deg=hfov_deg_of(camera),
        parameters=estimator.info()['parameters'],
    )
    fit = estimator.processor.fit(
        height=camera.height, width=camera.width, focal_px=camera.focal_px
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}') as scratch:
        folder = Path(scratch) / 'model'
        write_folder(network, folder, origin=origin, size=(fit.padded_height, fit.padded_width))
        difference = compare(network, ExportedNetwork(folder, device='cpu'))
        if not difference <= TOLERANCE:  # also when it is NaN
            raise ValueError(
                f'the exported network differs from torch by {difference:.1%}, more than '
                f'{TOLERANCE:.1%}: not written'
            )
        folder.rename(out)
    return difference


def write_folder(
    network: LLMMDEForDepthEstimation, folder: Path, *, origin: Origin, size: tuple[int, int]
) -> None:
    """Write network.onnx for inputs of `size` (H, W), and all that a model folder holds beside."""
    config = copy.deepcopy(network.config)
    config.exported_from = asdict(origin)
    config.save_pretrained(folder)
    LLMMDEImageProcessor.from_config(config).save_pretrained(folder)
    if network.tokenizer is not None:
        network.tokenizer.save_pretrained(folder)
    to_onnx(network, size).save(folder / FILE)


def to_onnx(network: LLMMDEForDepthEstimation, size: tuple[int, int]) -> Any:
    """Return the torch.onnx.ONNXProgram of a network for images (1, 3, H, W) of this size."""
    arguments = (torch.zeros(1, 3, *size), torch.ones(1))
    outputs = OUTPUTS if network.config.language != 'none' else OUTPUTS[:2]
    with torch.no_grad(), _quiet():
        return torch.onnx.export(
            _NamedOutputs(network, outputs),
            arguments,
            dynamo=True,
            verbose=False,
            input_names=INPUTS,
            output_names=outputs,
            custom_translation_table={torch.ops.aten.median.dim: _median},  # torch lacks it
        )


def compare(network: LLMMDEForDepthEstimation, exported: ExportedNetwork) -> float:
    """Return the largest relative difference of depth and of spread, over random images."""
    generator = torch.Generator().manual_seed(0)
    focal_px = torch.tensor([network.config.canonical_focal_px])
    height, width = exported.height, exported.width
    differences = []
    for _ in range(TRIALS):
        coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
        image = functional.interpolate(coarse, size=(height, width), mode='bilinear')
        with torch.no_grad():
            ours, theirs = network(image, focal_px), exported(image, focal_px)
        differences += [
            theirs.predicted_depth / ours.predicted_depth - 1.0,
            (theirs.log_spread - ours.log_spread).expm1(),
        ]
    return float(torch.stack(differences).abs().max())  # NaN when one of them is


class _NamedOutputs(nn.Module):
    """A network with its constants, that returns what ONNX can name: a tuple without None."""

    def __init__(self, network: LLMMDEForDepthEstimation, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.constants = network.constants()
        self.names = names

    def forward(
        self, pixel_values: torch.Tensor, focal_px: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        output = self.network(pixel_values, focal_px, self.constants)
        return tuple(output[name] for name in self.names)


def _median(values: Any, dim: int) -> Any:
    """Say the median in ONNX, as torch has it: the lower of the two in the middle."""
    from onnxscript import opset20

    op: Any = opset20
    count = (values.shape[dim] + 1) // 2
    smallest, places = op.TopK(values, op.Constant(value_ints=[count]), axis=dim, largest=0)
    last = op.Constant(value_int=count - 1)
    return op.Gather(smallest, last, axis=dim), op.Gather(places, last, axis=dim)


def _check_requirements() -> None:
    import_onnxruntime()
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RuntimeError(
            f'export needs onnx and onnxscript ({error}): pip install onnx onnxscript'
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says of torchvision and of its own deprecations."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
