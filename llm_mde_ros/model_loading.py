"""From the parameters of the node to an estimator that is as fast on the first image as later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.geometry import Camera
from llm_mde_ros.parameters import DepthNodeParameters

if TYPE_CHECKING:
    from rclpy.impl.rcutils_logger import RcutilsLogger


def load_estimator(parameters: DepthNodeParameters, log: RcutilsLogger) -> DepthEstimator:
    """Load the model and warm it up; OSError, ValueError or RuntimeError when that fails."""
    estimator = DepthEstimator.from_pretrained(
        parameters.model,
        adapter=parameters.adapter or None,
        device=parameters.device,
        precision=parameters.precision,
        compile=parameters.compile,
        allow_download=parameters.allow_download,
    )
    if parameters.warm_up_width and parameters.warm_up_height:
        _warm_up(estimator, parameters, log)
    return estimator


def _warm_up(
    estimator: DepthEstimator, parameters: DepthNodeParameters, log: RcutilsLogger
) -> None:
    camera = Camera.from_hfov(
        width=parameters.warm_up_width,
        height=parameters.warm_up_height,
        hfov_deg=parameters.hfov_deg,
    )
    log.info(f'Warming up with an image of {camera.width}x{camera.height} pixels …')
    try:
        log.info(f'Warm after {estimator.warm_up(camera):.1f} s.')
    except ValueError as error:  # an exported network has one size
        log.warning(f'Not warmed up: {error}')
