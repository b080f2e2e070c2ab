"""A service whose answer comes later, while the node goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

Answer = Callable[[bool, str], None]  # success and message


class LateService:
    """
    Calls back with a request and what answers it, once: with `success` and `message`.

    rclpy's own way is a coroutine, for which its executors spin without a pause until it ends.
    Callback and answer belong to the thread of the executor.
    """

    def __init__(
        self,
        node: Node,
        service_type: type,
        name: str,
        callback: Callable[[Any, Answer], None],
    ) -> None:
        # The executor hands what the callback returns to send_response, with the one who asked.
        service = node.create_service(service_type, name, lambda *request: request)
        send = service.send_response

        def receive(pair: tuple[Any, Any], header: Any) -> None:
            request, response = pair

            def answer(success: bool, message: str) -> None:
                response.success, response.message = success, message
                try:
                    send(response, header)
                except rclpy_implementation.RCLError as error:  # whoever asked has gone
                    node.get_logger().warning(f'No answer of {name} could be sent: {error}')

            callback(request, answer)

        service.send_response = receive
