"""The door for users: an RGB image and its camera in, depth in metres out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
import threading
import time
from typing import Any

import numpy as np
from safetensors import SafetensorError
import torch
from transformers.utils import logging

from llm_mde_core.compiled import RunFrame, compile_frame
from llm_mde_core.device import (
    PRECISIONS,
    choose_compile,
    choose_device,
    choose_precision,
    lay_out,
)
from llm_mde_core.digests import check_sums
from llm_mde_core.exported import ExportedNetwork, is_exported, load_exported
from llm_mde_core.frame import Frame, FrameOutput
from llm_mde_core.geometry import Camera
from llm_mde_core.image import Fit, LLMMDEImageProcessor
from llm_mde_core.lora import count_trainable, load_adapter
from llm_mde_core.model import LLMMDEForDepthEstimation
from llm_mde_core.model_files import find_model
from llm_mde_core.prediction import DepthPrediction
from llm_mde_core.prompt import CLASS_WORDS, decode_prompt
from llm_mde_core.threads import fewest_threads, using_threads

LOADING = threading.Lock()  # transformers changes what all threads share: torch's default dtype
KEPT_FRAMES = 8  # of cameras; a zoom lens has a new one with every step


class DepthEstimator:
    """
    Estimate metric depth; holds a model on a device at a precision, ready for inference.

    The model is taken over: moved, and cast where the precision is a reduced one.
    """

    def __init__(
        self,
        model: LLMMDEForDepthEstimation | ExportedNetwork,
        *,
        name: str = '',
        device: str = 'auto',
        precision: str = 'auto',
        compile: str = 'auto',
    ) -> None:
        self.name = name
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.compiles = choose_compile(compile, self.device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        lay_out(self.model, dtype=PRECISIONS[self.precision])
        self.processor = LLMMDEImageProcessor.from_config(model.config)
        self._frames: dict[tuple[Fit, int, int], RunFrame] = {}
        self._threads = 0  # of torch on a CPU; 0: as many as it uses anyway

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = 'tiny',
        *,
        adapter: str | Path | None = None,
        device: str = 'auto',
        precision: str = 'auto',
        compile: str = 'auto',
        allow_download: bool = False,
    ) -> DepthEstimator:
        """
        Load a bundled model by name, a model folder or, if `allow_download`, owner/name@commit.

        `adapter` is a peft adapter folder made by few-shot adaptation. Raises FileNotFoundError
        when there is no such model and ValueError when it does not fit, or is not the one that its
        SHA256SUMS, if it has one, was written for.
        """
        source = find_model(model, allow_download=allow_download)
        check_sums(Path(source))
        if is_exported(source):
            exported = load_exported(
                source, adapter=adapter, device=device, precision=precision, compile=compile
            )
            # Without a GPU in onnxruntime, torch's would only see the image come and go.
            device = device if exported.on_gpu else 'cpu'
            LLMMDEImageProcessor.from_config(exported.config).check_file(source)
            return cls(exported, name=str(model), device=device, precision='fp32', compile='off')
        try:
            with LOADING, _no_progress_bar():
                network = LLMMDEForDepthEstimation.from_pretrained(source, local_files_only=True)
                LLMMDEImageProcessor.from_config(network.config).check_file(source)
                if adapter:
                    network = load_adapter(network, adapter)
            _check_finite(network, adapter or source)
        except (OSError, ValueError):
            raise
        except SafetensorError as error:
            raise ValueError(
                f'the weights of {adapter or source} are damaged ({error}): get them again'
            ) from error
        except Exception as error:  # transformers and peft check little of what they read
            raise ValueError(
                f'{adapter or source} cannot be read, it is damaged or of other versions '
                f'({type(error).__name__}: {error})'
            ) from error
        return cls(network, name=str(model), device=device, precision=precision, compile=compile)

    @torch.inference_mode()
    def infer(self, rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        """
        Estimate the depth of one image, uint8 (H, W, 3) RGB, taken by `camera`.

        What is beyond the depth that the model can see is unknown, NaN.
        Raises ValueError when the image is of another type, or of another size than the camera.
        """
        _check_image(rgb, camera)
        start = time.perf_counter()
        image = _to_device(rgb, self.device)
        self._wait()
        prepared = time.perf_counter()

        size = {'height': camera.height, 'width': camera.width}
        fit = self.processor.fit(**size, focal_px=camera.focal_px)
        with using_threads(self._threads or torch.get_num_threads()), self._autocast():
            output = self._run(image, camera, fit)
        self._wait()
        estimated = time.perf_counter()
        return DepthPrediction(
            depth=output.depth,
            read_certainty=lambda: fit.to_image(output.certainty[None], **size)[0],
            stage_s={
                'preprocess': prepared - start,
                'network': estimated - prepared,
                'postprocess': time.perf_counter() - estimated,
            },
            read_prompt=partial(self._read_prompt, output),
        )

    def warm_up(self, camera: Camera) -> float:
        """
        Run, and first compile, black frames of this camera; return the seconds it took.

        On a CPU it finds out how many of torch's threads are worth using, and uses no more.
        """
        if isinstance(self.model, ExportedNetwork):
            camera = self.model.origin.camera  # it takes no other size
        black = np.zeros((camera.height, camera.width, 3), np.uint8)
        start = time.perf_counter()
        self.infer(black, camera)
        if self.device.type == 'cpu' and not isinstance(self.model, ExportedNetwork):
            self._threads = 0
            self._threads = fewest_threads(lambda: self.infer(black, camera))
        return time.perf_counter() - start

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """The least and the largest depth that the model can see."""
        return self.model.config.min_depth_m, self.model.config.max_depth_m

    def on_cpu(self) -> DepthEstimator:
        """Return an estimator of the same weights on the CPU; this one's model is taken over."""
        if isinstance(self.model, ExportedNetwork):  # onnxruntime opens it anew, and moves nothing
            exported = ExportedNetwork(self.model.file.parent, device='cpu')
            return DepthEstimator(
                exported, name=self.name, device='cpu', precision='fp32', compile='off'
            )
        model = self.model.to('cpu').float()  # in this order: its own device has no memory left
        return DepthEstimator(model, name=self.name, device='cpu', compile='off')

    def info(self) -> dict[str, Any]:
        """Describe the model: parts, parameters, sizes, depth range, training data, licence."""
        config = self.model.config
        trainable, parts = _count_parameters(self.model)
        return {
            'model': self.name,
            'device': str(self.device),
            'precision': self.precision,
            'threads': self._threads or torch.get_num_threads(),
            'vision': config.vision_config.model_type,
            'language': 'none'
            if config.language == 'none'
            else f'{config.language_config.model_type} ({config.language})',
            'prompt': config.prompt,
            'parameters': parts,
            'parameters_total': sum(parts.values()),
            'parameters_trainable': trainable,
            'image_size_px': config.image_size,
            'patch_px': config.patch_px,
            'canonical_focal_px': config.canonical_focal_px,
            'depth_range_m': [config.min_depth_m, config.max_depth_m],
            'training_data': getattr(config, 'training_data', 'not stated'),
            'license': getattr(config, 'weights_license', 'not stated'),
        }

    def _run(self, image: torch.Tensor, camera: Camera, fit: Fit) -> FrameOutput:
        """Compute one frame; the first one of a camera is compiled before."""
        height, width = camera.height, camera.width
        focal_px = camera.resized(width=fit.width, height=fit.height).focal_px
        inputs = (
            image,
            torch.full((1,), focal_px, dtype=torch.float32, device=self.device),
            self.model.constants(),
        )
        key = (fit, height, width)
        if key not in self._frames:
            if isinstance(self.model, ExportedNetwork):
                self.model.check_fit(fit, camera)
            if len(self._frames) == KEPT_FRAMES:  # a compiled one may hold memory of the device
                self._frames.pop(next(iter(self._frames)))
            frame = Frame(self.model, fit, height=height, width=width)
            self._frames[key] = compile_frame(frame, *inputs) if self.compiles else frame
        return self._frames[key](*inputs)

    def _read_prompt(self, output: FrameOutput) -> tuple[str, str]:
        if output.prompt_ids is None or output.depth_class is None:
            return '', ''
        prompt = decode_prompt(self.model.tokenizer, output.prompt_ids.cpu())
        return CLASS_WORDS[int(output.depth_class)], prompt

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        dtype = PRECISIONS[self.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
            yield

    def _wait(self) -> None:
        """Let the device finish, so that the stage times are true."""
        if self.device.type == 'cuda':
            # Not the whole device: another thread may be recording another network on it.
            torch.cuda.current_stream(self.device).synchronize()
        elif self.device.type == 'mps':
            torch.mps.synchronize()


def _count_parameters(
    model: LLMMDEForDepthEstimation | ExportedNetwork,
) -> tuple[int, dict[str, int]]:
    """Return how many adaptation would train, and how many each part has."""
    if isinstance(model, ExportedNetwork):
        return 0, model.origin.parameters
    parts = model.named_children()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts}
    return count_trainable(model), counts


def _to_device(rgb: np.ndarray, device: torch.device) -> torch.Tensor:
    """Share the image's memory on the CPU, where torch can; copy it once to any other device."""
    image = torch.from_numpy(np.require(rgb, requirements=['C', 'W']))  # not read-only or mirrored
    if device.type == 'cuda':
        return image.pin_memory().to(device, non_blocking=True)
    return image.to(device)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers' progress bar out of a node's log."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _check_finite(network: LLMMDEForDepthEstimation, source: str | Path) -> None:
    """Refuse weights that would make every depth unknown, or worse."""
    weights = network.state_dict().items()
    bad = [name for name, weight in weights if not weight.isfinite().all()]
    if bad:
        raise ValueError(
            f'the weights of {source} are damaged ({len(bad)} are not finite, {bad[0]} first): '
            'get them again'
        )


def _check_image(rgb: np.ndarray, camera: Camera) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f'an image must be uint8 (H, W, 3) RGB, got {rgb.dtype} {rgb.shape}')
    if rgb.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f'the image is {rgb.shape[1]} x {rgb.shape[0]} '
            f'but the camera is {camera.width} x {camera.height}'
        )
