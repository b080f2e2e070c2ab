"""The lifecycle node: images and camera_info come in; depth, preview and cloud go out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
import time
import traceback

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from llm_mde_ros.adapter_requests import AdapterRequests
from llm_mde_ros.announced_camera import announced_camera
from llm_mde_ros.diagnostics import NodeSituation, diagnostic_statuses
from llm_mde_ros.frame_counters import FrameCounters
from llm_mde_ros.frame_slot import Frame, RateLimiter
from llm_mde_ros.frame_worker import FrameWorker
from llm_mde_ros.freed_memory import give_back_freed_memory
from llm_mde_ros.image_messages import sound_cv_bridge
from llm_mde_ros.matched_subscription import MatchedSubscription
from llm_mde_ros.model_loading import load_model
from llm_mde_ros.output_publishers import OutputPublishers
from llm_mde_ros.parameters import declare, read_on_configure
from llm_mde_ros.reference_input import ReferenceInput
from llm_mde_ros.served_model import ServedModel
from llm_mde_ros.services import NodeServices
from llm_mde_ros.told_text import TOLD_OF_FILES, in_utf8, shortened
from llm_mde_ros.topics import DIAGNOSTICS

POLL_PERIOD_S = 0.2  # looks for listeners and publishers
WARN_PERIOD_S = 5.0  # between two warnings of the same kind


def configure_again(node: LifecycleNode) -> str:
    """Return what to do after a failed transition."""
    name = node.get_fully_qualified_name()
    return (
        f'Set what is wrong (ros2 param set {name} …) and configure again: '
        f'ros2 lifecycle set {name} configure; or start the node anew.'
    )


def reported(transition: Callable) -> Callable:
    """Tell what a lifecycle callback raises: rclpy turns it into an ERROR and forgets it."""

    @wraps(transition)
    def call(self: LifecycleNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:  # whatever it is: it is told and raised again
            self.get_logger().error(in_utf8(traceback.format_exc()))
            told = shortened(in_utf8(f'{type(error).__name__}: {error}'), TOLD_OF_FILES)
            self._configure_error = (
                f'{transition.__name__} failed ({told}), the log says where. '
                f'{configure_again(self)}'
            )
            raise

    return call


class DepthNode(LifecycleNode):
    """
    Estimates depth for the newest image.

    Callbacks only store messages: parameters and lifecycle services answer while the network runs
    in the thread of a FrameWorker, which exists while the node is active.
    """

    def __init__(self) -> None:
        # declare() needs the overrides of the parameter file
        super().__init__('depth_node', automatically_declare_parameters_from_overrides=True)
        self.settings = declare(self)
        self.model = ServedModel(cpu_fallback=lambda: self.settings.cpu_fallback)
        self.adapters = AdapterRequests(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._configure_error = ''
        self._outputs: OutputPublishers | None = None
        self.worker: FrameWorker | None = None
        self._reference: ReferenceInput | None = None
        self._counters = FrameCounters()
        self._image_input = MatchedSubscription(
            self, self._on_image, mend='remap image, or set image_transport'
        )
        self._info_input = MatchedSubscription(
            self, self._on_camera_info, mend='remap camera_info'
        )
        self._image_limiter = RateLimiter()
        self._warned_s: dict[str, float] = {}
        # Steady time: these run under use_sim_time without a /clock, too.
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._poll_timer: Timer | None = None
        self._service_desk = NodeServices(self)
        self._diagnostics = self.create_publisher(DiagnosticArray, DIAGNOSTICS.name, 10)
        self._diagnostics_timer = self.create_timer(
            self.settings.diagnostics_period_s,
            self._publish_diagnostics,
            clock=self.steady_clock,
        )

    # Lifecycle

    def autostart(self) -> None:
        """Configure and activate, if wanted; after a failure the node waits to be mended."""
        wanted = self.settings.autostart
        if wanted and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and warm it up."""
        p = self.settings
        try:
            loaded = load_model(
                p,
                self.get_logger(),
                announced=lambda: announced_camera(
                    self, timeout_s=p.camera_info_timeout_s, rectified=p.image_rectified
                ),
            )
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: torch, out of memory
            told = shortened(in_utf8(str(error).rstrip('.')), TOLD_OF_FILES)
            self._configure_error = f'Cannot load the model: {told}. {configure_again(self)}'
            self.get_logger().error(self._configure_error)
            return TransitionCallbackReturn.FAILURE
        self._configure_error = ''
        self.model.serve(loaded)
        for warning in loaded.warnings:
            self.get_logger().warning(warning)
        sound_cv_bridge()  # tried now, because it can take a second, rather than with a frame
        self._outputs = OutputPublishers(
            self, reliability=p.output_reliability, depth=p.output_depth
        )
        return super().on_configure(state)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and look for images."""
        self._counters = FrameCounters()
        self._image_limiter = RateLimiter()
        self._reference = ReferenceInput(self)
        self.worker = FrameWorker(
            estimator=self.model,
            publishers=self._outputs,
            counters=self._counters,
            accuracy=self._reference.accuracy,
            parameters=lambda: self.settings,
            now_ns=lambda: self.get_clock().now().nanoseconds,
            warn=self._warn,
        )
        self._poll_timer = self.create_timer(POLL_PERIOD_S, self.poll, clock=self.steady_clock)
        self.poll()
        self.get_logger().info(
            f"Ready: model '{self.settings.model}' on {self.model.loaded.estimator.device}, "
            f'images from {self._image_input.topic}.'
        )
        return super().on_activate(state)

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the worker."""
        self._stop()
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model."""
        self._release()
        return super().on_cleanup(state)

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and let go of everything."""
        self.close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after a transition that raised."""
        self.get_logger().error(f'A transition from {state.label} failed; configure again.')
        return self.on_shutdown(state)

    def close(self) -> None:
        """Stop the worker and let go of the model, in any state."""
        try:
            self._stop()
        finally:
            self._release()

    def _stop(self) -> None:
        if self.worker is None:
            return
        self._service_desk.on_deactivate()
        self.destroy_timer(self._poll_timer)
        self._image_input.close()
        self._info_input.close()
        worker, self.worker = self.worker, None
        try:
            worker.stop()  # raises what ended it
        finally:
            self._reference.close()  # after the worker, which reads from it
            give_back_freed_memory()

    def _release(self) -> None:
        self.adapters.withdraw('The node let go of its model.')
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self.model.serve(None)

    def join(self) -> None:
        """Wait for what other threads still do after close(); nothing can be started again."""
        self.adapters.join()
        self._service_desk.join()

    @property
    def state_label(self) -> str:
        """What the lifecycle calls the state."""
        return 'active' if self.worker else 'inactive' if self.model.loaded else 'unconfigured'

    def deliver(self, function: Callable[[], None]) -> None:
        """Let the executor call it; from any thread."""
        if self.executor is not None:
            self.executor.create_task(function)

    # Inputs

    def _on_image(self, message: Image | CompressedImage) -> None:
        frame = Frame(message, received_s=time.monotonic())
        if self._counters.count_received(frame):
            self.worker.infos.keep_newest()
            self._warn(
                'time',
                'An image is older than the one before it (a bag that starts again?); it is used, '
                'and limited rates count from it.',
            )
        max_rate_hz = self.settings.max_rate_hz
        if not self._image_limiter.allows(frame.stamp_ns, max_rate_hz=max_rate_hz):
            self._counters.rate_limited += 1
        elif self.worker.slot.put(frame):
            self._counters.count_skipped()

    def _on_camera_info(self, message: CameraInfo) -> None:
        self.worker.infos.add(message)

    def poll(self) -> None:
        """Receive images while somebody listens, with the QoS that their publishers offer."""
        self.worker.check()
        p = self.settings
        self._info_input.follow(CameraInfo, 'camera_info', reliability=p.image_reliability)
        message_type, topic = Image, self.resolve_topic_name('image')
        if p.image_transport == 'compressed':
            message_type, topic = CompressedImage, f'{topic}/compressed'
        is_listened_to = any(self._outputs.subscribers().values())
        receive = self._service_desk.wants_image(listened=is_listened_to)
        self._reference.follow(p.reference_topic, receive=receive)
        self._image_input.follow(
            message_type,
            topic,
            reliability=p.image_reliability,
            receive=receive,
        )

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            changed = self.settings.changed(parameters)
            names = read_on_configure(self.settings, changed)
            if names and self.model.loaded is not None:
                raise ValueError(
                    f'{", ".join(names)} cannot change while a model is loaded: deactivate and '
                    'clean up the node, set it, then configure and activate.'
                )
            self.adapters.follow(changed)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._diagnostics_timer.timer_period_ns = round(1e9 * changed.diagnostics_period_s)
        self.settings = changed
        return SetParametersResult(successful=True)

    # Reports

    def _warn(self, kind: str, sentence: str) -> None:
        """Log a warning, but not the same kind again at once."""
        now_s = time.monotonic()
        if now_s - self._warned_s.get(kind, -WARN_PERIOD_S) >= WARN_PERIOD_S:
            self._warned_s[kind] = now_s
            self.get_logger().warning(sentence)

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray(status=diagnostic_statuses(self._situation(), self._counters))
        message.header.stamp = self.get_clock().now().to_msg()  # a report, not a measurement
        try:
            self._diagnostics.publish(message)
        except rclpy_implementation.RCLError:  # a reliable reader that cannot keep up
            return
        self._counters.mark_reported()

    def _situation(self) -> NodeSituation:
        worker, outputs, loaded = self.worker, self._outputs, self.model.loaded
        is_compared = worker is not None and self.settings.reference_topic
        return NodeSituation(
            node=self.get_fully_qualified_name(),
            state=self.state_label,
            enabled=self._service_desk.enabled,
            configure_error=self._configure_error,
            image_topic=self._image_input.topic,
            image_publishers=self._image_input.publishers,
            receives_since_s=self._image_input.receives_since_s,
            input_problem=self._image_input.problem,
            info_problem=self._info_input.problem,
            output_problem=outputs.problem() if outputs else '',
            target_rate_hz=self.settings.target_rate_hz,
            max_rate_hz=self.settings.max_rate_hz,
            subscribers=outputs.subscribers() if outputs else {},
            camera_state=worker.cameras.state if worker else '',
            camera_warning=worker.cameras.warning if worker else '',
            model=loaded.identity if loaded else {},
            model_error=self.model.error,
            model_warnings=(*(loaded.warnings if loaded else ()), self.adapters.problem),
            model_loading=self.adapters.loading,
            accuracy=self._reference.accuracy if is_compared else None,
        )
