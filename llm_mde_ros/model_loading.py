"""From the parameters of the node to a model that is as fast on the first image as later."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import cached_property
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llm_mde_core.device import is_out_of_memory
from llm_mde_core.digests import sha256_of
from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.exported import FILE, is_exported
from llm_mde_core.geometry import Camera
from llm_mde_core.model_files import CHECKPOINTS, find_model, read_object
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.told_text import in_utf8

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger

METRICS = 'metrics.json'  # what few-shot adaptation found out about its adapter
ON_THE_CPU = 'The GPU ran out of memory, so that the network is on the CPU, which is slower.'


@dataclass(frozen=True)
class LoadedModel:
    """A network that can serve, the adapter that is folded into it, and what to know about it."""

    estimator: DepthEstimator
    adapter: str = ''  # folder; empty: none
    adapter_sha256: str = ''  # of its weights: one folder may hold another adapter every day
    warnings: tuple[str, ...] = ()
    model_sha256: str = ''  # of the model's weights, without the adapter

    @cached_property  # asked for with every report
    def identity(self) -> dict[str, Any]:
        """Describe the model, ready for JSON and for messages."""
        identity = self.estimator.info() | {'model_sha256': self.model_sha256}
        identity |= {'adapter': self.adapter or 'none'}
        identity |= {'adapter_sha256': self.adapter_sha256} if self.adapter else {}
        return {k: in_utf8(v) if isinstance(v, str) else v for k, v in identity.items()}

    @cached_property
    def made_by(self) -> tuple[str, str]:
        """Name model and adapter, in an object of this LoadedModel alone that does not hold it."""
        return self.identity['model'], self.adapter

    def on_cpu(self) -> LoadedModel:
        """Return the same on the CPU; the estimator of this one is of no use any more."""
        return replace(
            self, estimator=self.estimator.on_cpu(), warnings=(*self.warnings, ON_THE_CPU)
        )


def load_model(
    parameters: DepthNodeParameters,
    log: RcutilsLogger,
    *,
    announced: Callable[[], Camera | None] = lambda: None,
) -> LoadedModel:
    """
    Load the model and its adapter and warm them up; OSError, ValueError, RuntimeError if it fails.

    `announced` is asked for the camera when the network is compiled, because that is done anew
    for every size and focal length; None: it is the one that the parameters describe. Where a
    GPU has too little memory, it is the CPU if `cpu_fallback` says so.
    """
    warnings = adapter_warnings(parameters.adapter)
    try:
        estimator = _load_estimator(parameters, log, announced)
    except RuntimeError as error:
        if not (parameters.cpu_fallback and is_out_of_memory(error)):
            raise
    else:
        return _loaded(estimator, parameters, warnings)
    # Not above: the error holds on to what was loaded.
    torch.cuda.empty_cache()
    slower = replace(parameters, device='cpu', precision='auto', compile='off')
    estimator = _load_estimator(slower, log, announced)
    return _loaded(estimator, parameters, (*warnings, ON_THE_CPU))


def check_allowed(parameters: DepthNodeParameters, *, known: Container[str]) -> None:
    """
    Raise ValueError when what is asked for at run time is no folder inside of `allowed_folder`.

    Neither the folder nor a file in it may be a link that leads out. `known` are those that the
    node has already; the operator named them when it was started.
    """
    if not parameters.allowed_folder:
        return
    allowed = os.path.realpath(parameters.allowed_folder)  # Path.resolve() raises at a loop
    bundled = {folder.name for folder in CHECKPOINTS.iterdir()}
    for name in ('model', 'adapter'):
        asked = getattr(parameters, name)
        if not asked or asked in known or (name == 'model' and asked in bundled):
            continue
        _check_inside(asked, allowed, what=f'{name} {asked!r}')


def _check_inside(folder: str, allowed: str, *, what: str) -> None:
    found = Path(os.path.realpath(folder))
    if not found.is_relative_to(allowed):
        raise ValueError(f'{what} is outside of allowed_folder ({allowed}).')
    try:
        entries = sorted(found.iterdir())
    except OSError as error:  # a model of the hub, too
        raise ValueError(f'{what} is no folder inside of allowed_folder ({allowed}).') from error
    for entry in entries:
        if not Path(os.path.realpath(entry)).is_relative_to(allowed):
            raise ValueError(
                f'{what} has a link, {entry.name!r}, out of allowed_folder ({allowed}).'
            )


def adapter_warnings(adapter: str) -> tuple[str, ...]:
    """Return what few-shot adaptation has against its adapter, as sentences; mostly nothing."""
    try:
        worthwhile = read_object(Path(adapter) / METRICS).get('worthwhile')
    except (OSError, ValueError):
        return ()  # an adapter from elsewhere
    if worthwhile is not False:
        return ()
    return (f'{adapter} was judged not worthwhile when it was made (its {METRICS}).',)


def expected_camera(parameters: DepthNodeParameters) -> Camera | None:
    """Return the camera that warm_up.width, warm_up.height and hfov_deg describe, if they do."""
    if not (parameters.warm_up_width and parameters.warm_up_height):
        return None
    return Camera.from_hfov(
        width=parameters.warm_up_width,
        height=parameters.warm_up_height,
        hfov_deg=parameters.hfov_deg,
    )


def _loaded(
    estimator: DepthEstimator, parameters: DepthNodeParameters, warnings: tuple[str, ...]
) -> LoadedModel:
    adapter = parameters.adapter
    folder = find_model(parameters.model, allow_download=parameters.allow_download)
    return LoadedModel(
        estimator,
        adapter,
        adapter_sha256=sha256_of([Path(adapter) / 'adapter_model.safetensors']) if adapter else '',
        warnings=warnings,
        model_sha256=sha256_of(_weights(Path(folder))),
    )


def _weights(folder: Path) -> list[Path]:
    """Return the files of a model's weights: one, but for a large model."""
    if is_exported(folder):
        return sorted(folder.glob(f'{FILE}*'))
    whole = folder / 'model.safetensors'
    return [whole] if whole.is_file() else sorted(folder.glob('*.safetensors'))


def _load_estimator(
    parameters: DepthNodeParameters, log: RcutilsLogger, announced: Callable[[], Camera | None]
) -> DepthEstimator:
    estimator = DepthEstimator.from_pretrained(
        parameters.model,
        adapter=parameters.adapter or None,
        device=parameters.device,
        precision=parameters.precision,
        compile=parameters.compile,
        allow_download=parameters.allow_download,
    )
    expected = expected_camera(parameters)
    if expected is not None:
        camera = announced() if estimator.compiles else None
        _warm_up(estimator, camera or expected, log)
    return estimator


def _warm_up(estimator: DepthEstimator, camera: Camera, log: RcutilsLogger) -> None:
    log.info(f'Warming up with an image of {camera.width}x{camera.height} pixels …')
    try:
        log.info(f'Warm after {estimator.warm_up(camera):.1f} s.')
    except ValueError as error:  # an exported network has one size
        log.warning(in_utf8(f'Not warmed up: {error}'))
