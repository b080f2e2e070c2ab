"""
Run a network that `llm-mde export` wrote: the same two doors, the work done by onnxruntime.

Shapes: H and W pixels of the network's input, fixed when it was exported; T prompt length.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import hashlib
import logging
import math
from pathlib import Path
import shlex
from typing import Any

import torch
from torch import nn

from llm_mde_core.config import LLMMDEConfig
from llm_mde_core.device import choose_device
from llm_mde_core.geometry import Camera
from llm_mde_core.image import Fit
from llm_mde_core.model import LLMMDEOutput
from llm_mde_core.private_cache import private_folder
from llm_mde_core.tokenizer_file import read_tokenizer

logger = logging.getLogger(__name__)

FILE = 'network.onnx'
INPUTS = ('pixel_values', 'focal_px')
# Of LLMMDEOutput; without a language model the first two are all there is.
OUTPUTS = ('predicted_depth', 'log_spread', 'depth_class', 'prompt_ids')
GPU_PROVIDERS = ('TensorrtExecutionProvider', 'CUDAExecutionProvider')  # the faster one first
CPU_PROVIDER = 'CPUExecutionProvider'


@dataclass(frozen=True)
class Origin:
    """What a network was exported from, for which camera: `exported_from` in its config.json."""

    model: str
    adapter: str
    width: int
    height: int
    hfov_deg: float
    parameters: dict[str, int]  # of each part

    @property
    def camera(self) -> Camera:
        """Return the camera, its optical centre in the middle."""
        return Camera.from_hfov(width=self.width, height=self.height, hfov_deg=self.hfov_deg)

    def command_for(self, camera: Camera) -> str:
        """Return what exports the same model for another camera."""
        words = ['llm-mde', 'export', self.model]
        words += ['--adapter', self.adapter] if self.adapter else []
        words += ['--width', str(camera.width), '--height', str(camera.height)]
        return shlex.join([*words, '--hfov-deg', f'{hfov_deg_of(camera):.4f}', '--out', 'FOLDER'])


class ExportedNetwork(nn.Module):
    """Stands where `LLMMDEForDepthEstimation` does, for inputs of one size and batches of one."""

    def __init__(self, folder: str | Path, *, device: str = 'auto') -> None:
        super().__init__()
        self.file = Path(folder) / FILE
        self.config = LLMMDEConfig.from_pretrained(folder)
        try:
            self.origin = Origin(**self.config.exported_from)
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f'the config.json in {folder} does not say what was exported: export it again'
            ) from error
        self.tokenizer = None
        if self.config.language != 'none':
            self.tokenizer = read_tokenizer(folder)
        self.session = open_session(self.file, device=device)
        *_, self.height, self.width = self.session.get_inputs()[0].shape

    @property
    def on_gpu(self) -> bool:
        """Return whether onnxruntime runs it on a GPU."""
        return self.session.get_providers()[0] in GPU_PROVIDERS

    def constants(self) -> None:
        """Return nothing: what every image shares is in the file."""

    def forward(
        self, pixel_values: torch.Tensor, focal_px: torch.Tensor, constants: None = None
    ) -> LLMMDEOutput:
        """
        Estimate the depth of an image (1, 3, H, W), RGB in 0 to 1, with focal length (1,) px.

        The outputs are on the device of the image. Raises ValueError for another size.
        """
        if tuple(pixel_values.shape) != (1, 3, self.height, self.width):
            raise ValueError(
                f'{self.file} takes images of shape (1, 3, {self.height}, {self.width}), '
                f'not {tuple(pixel_values.shape)}'
            )
        values = (pixel_values.float().cpu().numpy(), focal_px.float().cpu().numpy())
        with _errors_of_onnxruntime(self.file):
            arrays = self.session.run(None, dict(zip(INPUTS, values, strict=True)))
        tensors = (torch.from_numpy(array).to(pixel_values.device) for array in arrays)
        return LLMMDEOutput(**dict(zip(OUTPUTS, tensors, strict=False)))

    def check_fit(self, fit: Fit, camera: Camera) -> None:
        """Raise ValueError, with the command that mends it, when images do not get its size."""
        if (fit.padded_height, fit.padded_width) != (self.height, self.width):
            made_for = self.origin.camera
            raise ValueError(
                f'{self.file} was made for {_described(made_for)}, not for {_described(camera)}: '
                f'{self.origin.command_for(camera)}'
            )


def is_exported(folder: str | Path) -> bool:
    """Return whether a model folder holds an exported network instead of weights."""
    return (Path(folder) / FILE).is_file()


def load_exported(
    folder: str | Path, *, adapter: str | Path | None, device: str, precision: str, compile: str
) -> ExportedNetwork:
    """
    Open the network in a folder; ValueError for what was decided when it was exported.

    `device` 'auto' takes a GPU where onnxruntime has one. RuntimeError without onnxruntime.
    """
    if adapter:
        raise ValueError(
            f'{folder} is an exported network, which takes no adapter: give it to llm-mde export'
        )
    if precision not in ('auto', 'fp32'):
        raise ValueError(f"{folder} is an exported network of precision 'fp32', not {precision!r}")
    if compile not in ('auto', 'off'):
        raise ValueError(f"{folder} is an exported network: compile is 'auto' or 'off' with it")
    network = ExportedNetwork(folder, device=device)
    if device.startswith('cuda') and not network.on_gpu:
        raise ValueError(
            f'device {device!r} was asked for but onnxruntime could not use it (see its '
            "log): mend its CUDA libraries, or use 'cpu' or 'auto'"
        )
    return network


def open_session(file: Path, *, device: str) -> Any:
    """Return an onnxruntime.InferenceSession; RuntimeError when it cannot run the file."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Else its threads keep the cores busy that decode and publish while they wait.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    available = onnxruntime.get_available_providers()
    providers = choose_providers(device, available=available, file=file)
    with _errors_of_onnxruntime(file):
        return onnxruntime.InferenceSession(str(file), options, providers=providers)


def choose_providers(
    device: str, *, available: list[str], file: Path
) -> list[tuple[str, dict[str, Any]]]:
    """
    Return what may run the network in `file`, fastest first, with options.

    ValueError when a GPU was asked for and there is none.
    """
    chosen = choose_device(device)
    providers: list[tuple[str, dict[str, Any]]] = []
    if device == 'auto' or chosen.type == 'cuda':
        number: dict[str, Any] = {'device_id': chosen.index or 0}
        providers = [(name, dict(number)) for name in GPU_PROVIDERS if name in available]
        if GPU_PROVIDERS[0] in available:
            providers[0][1].update(_engine_cache(file))
    if device != 'auto' and chosen.type == 'cuda' and not providers:
        raise ValueError(
            f'device {device!r} was asked for but this onnxruntime has no CUDA: '
            "pip install onnxruntime-gpu, or use 'cpu' or 'auto'"
        )
    return [*providers, (CPU_PROVIDER, {})]


def _engine_cache(file: Path) -> dict[str, Any]:
    """
    Return the options with which TensorRT keeps what takes it minutes to build.

    Not beside the network: an engine is a program, and whoever wrote the folder could bring one.
    """
    digest = hashlib.sha256()
    for part in sorted(file.parent.glob(f'{file.name}*')):  # large weights are beside it
        digest.update(part.read_bytes())
    try:
        folder = private_folder('engines', digest.hexdigest())
    except OSError as error:
        logger.warning('TensorRT builds its engine anew at every start: %s', error)
        return {}
    return {'trt_engine_cache_enable': True, 'trt_engine_cache_path': str(folder)}


def import_onnxruntime() -> Any:
    """Return the module; RuntimeError that says how to get it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(
            f'an exported network needs onnxruntime ({error}): pip install onnxruntime, or '
            'onnxruntime-gpu'
        ) from error
    return onnxruntime


def hfov_deg_of(camera: Camera) -> float:
    """Return the field of view that gives a camera its focal length."""
    return math.degrees(2 * math.atan(camera.width / 2 / camera.focal_px))


@contextmanager
def _errors_of_onnxruntime(file: Path) -> Iterator[None]:
    """Turn its errors, which derive from nothing but Exception, into a RuntimeError."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = [kind for kind in vars(state).values() if isinstance(kind, type)]
    try:
        yield
    except tuple(kind for kind in kinds if issubclass(kind, Exception)) as error:
        raise RuntimeError(f'onnxruntime cannot run {file}: {error}') from error


def _described(camera: Camera) -> str:
    return f'{camera.width} x {camera.height} pixels at {hfov_deg_of(camera):.1f} degrees'
