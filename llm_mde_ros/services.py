"""What the node does when it is asked to: the services of topics.py."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.timer import Timer
from rclpy.utilities import get_rmw_implementation_identifier
import torch

from llm_mde_core.bench.machine import describe_versions
from llm_mde_ros.late_service import Answer, LateService
from llm_mde_ros.parameters import SPECS
from llm_mde_ros.saved_frame import WorkedFrame, save_frame
from llm_mde_ros.topics import SERVICES

if TYPE_CHECKING:
    from std_srvs.srv import SetBool, Trigger

    from llm_mde_msgs.srv import LoadAdapter
    from llm_mde_ros.depth_node import DepthNode

SAVE_WAIT_S = 15.0  # for an image that is worked on; /diagnostics says earlier what is wrong
MAX_PERIOD_S = 3600.0  # of max_rate_hz, which can be next to nothing


class NodeServices:
    """Answers for a node, in every state of its lifecycle; belongs to the executor's thread."""

    def __init__(self, node: DepthNode) -> None:
        self.enabled = True
        self._node = node
        self._saving: Answer | None = None  # who waits for a frame
        self._patience: Timer | None = None
        self._written: Future[Path] | None = None  # the frame that was saved last
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix='save')
        for service in SERVICES:
            if service.service_type is not None:
                callback = getattr(self, f'_{service.name.removeprefix("~/")}')
                LateService(node, service.service_type, service.name, callback)

    def wants_image(self, *, listened: bool) -> bool:
        """Tell whether images are to be received, when somebody listens to an output or not."""
        return self.enabled and (listened or self._saving is not None)

    def on_deactivate(self) -> None:
        """Before there is no worker any more."""
        self._give_up('The node was deactivated.')

    def join(self) -> None:
        """Wait for what is being written and answer; nothing is saved after it."""
        self._disk.shutdown()
        if self._saving is not None and self._written is not None:
            self._report(self._written, self._saving)

    def about(self) -> dict[str, Any]:
        """Return what a report of a fault has to tell, ready for JSON."""
        node = self._node
        return {
            'node': node.get_fully_qualified_name(),
            'state': node.state_label,
            'enabled': self.enabled,
            'model': node.model.loaded.identity if node.model.loaded else None,
            'parameters': {
                name: getattr(node.settings, spec.name) for name, spec in SPECS.items()
            },
            'versions': _versions(),
        }

    # One for each of topics.SERVICES

    def _load_adapter(self, request: LoadAdapter.Request, answer: Answer) -> None:
        adapter = request.adapter

        def done(problem: str) -> None:
            serving = f'{adapter or "The model without an adapter"} serves.'
            answer(not problem, problem or ' '.join([serving, *self._node.model.loaded.warnings]))

        try:
            self._node.adapters.load(adapter, done)
        except ValueError as error:
            answer(False, str(error))

    def _enable(self, request: SetBool.Request, answer: Answer) -> None:
        self.enabled = request.data
        if self._node.worker is not None:
            self._node.worker.enabled = self.enabled
            self._node.poll()
        if not self.enabled:
            self._give_up('The node was switched off.')
        answer(True, 'Switched on.' if self.enabled else 'Switched off.')

    def _reset_filters(self, _request: Trigger.Request, answer: Answer) -> None:
        if self._node.worker is not None:
            self._node.worker.reset_filters()
        answer(True, 'They begin anew with the next image.')

    def _info(self, _request: Trigger.Request, answer: Answer) -> None:
        answer(True, json.dumps(self.about()))

    def _save_frame(self, _request: Trigger.Request, answer: Answer) -> None:
        worker = self._node.worker
        if worker is None or not self.enabled:
            answer(False, f'The node is {"switched off" if worker else "not active"}.')
        elif self._saving is not None:
            answer(False, 'Another frame is being saved.')
        else:
            self._saving = answer
            max_rate_hz = self._node.settings.max_rate_hz
            period_s = min(1 / max_rate_hz, MAX_PERIOD_S) if max_rate_hz else 0.0
            wait_s = SAVE_WAIT_S + period_s
            reason = f'No image was worked on within {wait_s:g} s: /diagnostics says why.'
            self._patience = self._node.create_timer(
                wait_s, partial(self._give_up, reason), clock=self._node.steady_clock
            )
            deliver = self._node.deliver
            worker.show_next(lambda frame: deliver(partial(self._write, frame, answer)))
            self._node.poll()

    def _give_up(self, reason: str) -> None:
        """Tell whoever still waits for an image that none comes."""
        if self._patience is not None:
            self._node.worker.show_next(None)
            self._end_saving(False, reason)

    def _write(self, frame: WorkedFrame, answer: Answer) -> None:
        if answer is not self._saving:
            return  # who asked was told that it takes too long
        self._stop_timer()
        folder = Path(self._node.settings.save_folder)
        self._written = self._disk.submit(save_frame, frame, folder=folder, about=self.about())
        deliver = self._node.deliver
        self._written.add_done_callback(lambda w: deliver(partial(self._report, w, answer)))

    def _report(self, written: Future[Path], answer: Answer) -> None:
        if answer is not self._saving:
            return
        error = written.exception()
        if error is not None:
            self._node.get_logger().error(f'A frame cannot be saved: {error!r}')
        self._end_saving(
            error is None, f'It cannot be saved: {error}.' if error else str(written.result())
        )

    def _end_saving(self, success: bool, message: str) -> None:
        self._stop_timer()
        answer, self._saving = self._saving, None
        if answer is not None:
            answer(success, message)

    def _stop_timer(self) -> None:
        if self._patience is not None:
            self._node.destroy_timer(self._patience)
            self._patience = None


def _versions() -> dict[str, str]:
    try:
        own = version('llm_mde_ros')
    except PackageNotFoundError:  # neither colcon nor pip installed it
        own = 'unknown'
    return {
        'llm_mde_ros': own,
        'ros': os.environ.get('ROS_DISTRO', 'unknown'),
        'rmw': get_rmw_implementation_identifier(),
        **describe_versions(torch.device('cuda' if torch.version.cuda else 'cpu')),
    }
