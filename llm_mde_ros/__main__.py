"""The executable depth_node, also `python -m llm_mde_ros`."""

from __future__ import annotations

from contextlib import ExitStack
import gc
import signal
import sys
import threading

from llm_mde_ros.freed_memory import keep_freed_memory

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(args: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM; a second one ends it at once."""
    stop = threading.Event()

    def request_stop(_number: int, _frame: object) -> None:
        stop.set()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, request_stop)
    keep_freed_memory()
    # Only now: libraries start threads when they are imported, each with memory of its own.
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.signals import SignalHandlerOptions

    # rclpy's own handlers would take the context away under the frame in work.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except rclpy_implementation.RCLError as error:  # of a parameter file or an argument
        sys.exit(f'depth_node: {error}')
    try:
        run(stop)
    finally:
        rclpy.shutdown()


def run(stop: threading.Event) -> None:
    """Start the node and let it work; a bad parameter ends the process with a sentence."""
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.logging import get_logger

    get_logger('depth_node').info('Loading libraries, then the model …')
    from llm_mde_ros.core_log import core_log
    from llm_mde_ros.depth_node import DepthNode

    gc.freeze()  # libraries stay; looking for garbage among them takes 0.3 s each time
    try:
        node = DepthNode()
    except ValueError as error:
        sys.exit(f'depth_node: {error}')
    executor = SingleThreadedExecutor()
    with ExitStack() as at_the_end:  # from the last line up, even when one raises
        at_the_end.callback(node.destroy_node)
        at_the_end.callback(executor.shutdown)
        at_the_end.callback(node.join)
        at_the_end.callback(node.close)
        at_the_end.enter_context(core_log(node.get_logger()))
        executor.add_node(node)
        node.autostart()
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)


if __name__ == '__main__':
    main()
