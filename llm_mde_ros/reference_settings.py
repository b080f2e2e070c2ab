"""How depth is compared with another sensor."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_full_topic_name import validate_full_topic_name

from llm_mde_ros.extrinsics import parse_extrinsics


@dataclass(frozen=True)
class ReferenceSettings:
    """How depth is compared; these are the defaults of the node."""

    reference_topic: str = ''
    reference_extrinsics: str = ''  # see parse_extrinsics(); empty: from /tf
    reference_tolerance_s: float = 0.05
    reference_correct: bool = False
    reference_max_factor: float = 1.25

    def __post_init__(self) -> None:
        if self.reference_topic:
            _check_topic(self.reference_topic)
        if self.reference_extrinsics:
            parse_extrinsics(self.reference_extrinsics)
        if not self.reference_tolerance_s >= 0:
            raise ValueError(
                f'reference_tolerance_s is {self.reference_tolerance_s}, expected 0 or more'
            )
        if not 1 <= self.reference_max_factor <= 2:
            raise ValueError(
                f'reference_max_factor is {self.reference_max_factor}, expected 1 to 2'
            )


def _check_topic(topic: str) -> None:
    """Raise ValueError for what is no name of a topic."""
    try:
        validate_full_topic_name(expand_topic_name(topic, 'node', '/'))
    except (InvalidTopicNameException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'reference.topic {topic!r} is no name of a topic: {reason}') from error
