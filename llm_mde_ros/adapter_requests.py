"""Requests for another adapter, by the parameter `adapter` or by ~/load_adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rclpy.parameter import Parameter

from llm_mde_core.geometry import Camera
from llm_mde_ros.adapter_swap import AdapterSwap, Request
from llm_mde_ros.model_loading import check_allowed, expected_camera, load_model
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.told_text import TOLD_OF_FILES, in_utf8, shortened

if TYPE_CHECKING:
    from llm_mde_ros.depth_node import DepthNode

ANY_CAMERA = Camera.from_hfov(width=640, height=480, hfov_deg=60.0)


class AdapterRequests:
    """
    Hands them to an AdapterSwap, and lets the parameter say what serves when that is done.

    Belongs to the executor's thread.
    """

    def __init__(self, node: DepthNode) -> None:
        self._node = node
        self._swap = AdapterSwap(node.model, deliver=node.deliver)
        self.withdraw, self.join = self._swap.withdraw, self._swap.join

    @property
    def problem(self) -> str:
        """Why the adapter that was asked for last does not serve; empty: it does."""
        return _told(self._swap.problem)

    @property
    def loading(self) -> str:
        """What is being loaded, as a sentence; empty: nothing."""
        return _told(self._swap.loading)

    def load(self, adapter: str, done: Callable[[str], None]) -> None:
        """
        Let an adapter serve, if it passes its self-test; `done` is told why it does not, or ''.

        It is loaded anew when it serves already: its files may have changed. ValueError when it
        is not tried at all.
        """
        wanted = replace(self._node.settings, adapter=adapter)
        self._check_allowed(wanted)
        if self._node.model.loaded is None:
            raise ValueError('No model is loaded: configure the node first.')
        self._start(wanted, done)

    def follow(self, wanted: DepthNodeParameters) -> None:
        """Do the same for parameters that are about to hold; ValueError: they must not."""
        self._check_allowed(wanted)
        model = self._node.model
        if model.loaded is None or wanted.adapter == self._node.settings.adapter:
            return
        if self._swap.loading or wanted.adapter != model.adapter:
            self._start(wanted, lambda _problem: None)

    def _check_allowed(self, wanted: DepthNodeParameters) -> None:
        settings = self._node.settings
        check_allowed(wanted, known={settings.model, settings.adapter, self._node.model.adapter})

    def _start(self, wanted: DepthNodeParameters, done: Callable[[str], None]) -> None:
        def end(problem: str) -> None:
            problem = _told(problem)
            self._tell(problem)
            done(problem)

        request = Request(
            wanted.adapter,
            load=partial(load_model, wanted, self._node.get_logger()),
            camera=self._node.model.camera or expected_camera(wanted) or ANY_CAMERA,
            done=end,
            went_back=self._tell_went_back,
        )
        self._swap.start(request)

    def _tell(self, problem: str) -> None:
        """Say what came of a request: in the log, and the parameter what serves now."""
        node = self._node
        if self._swap.problem:
            node.get_logger().error(problem)
        elif problem:  # withdrawn, which was asked for
            node.get_logger().info(problem)
        else:
            node.get_logger().info(f'Serving with adapter {node.model.adapter or "none"}.')
            for warning in node.model.loaded.warnings:
                node.get_logger().warning(warning)
        self._show_serving()

    def _tell_went_back(self, problem: str) -> None:
        """Say that an adapter served, and why it no longer does."""
        self._node.get_logger().error(_told(problem))
        if not self._swap.loading:  # otherwise the parameter says already what is being loaded
            self._show_serving()

    def _show_serving(self) -> None:
        """Let the parameter say what serves."""
        if self._node.settings.adapter != self._node.model.adapter:
            self._node.set_parameters([Parameter('adapter', value=self._node.model.adapter)])


def _told(problem: str) -> str:
    return shortened(in_utf8(problem), TOLD_OF_FILES)
