"""A domain with a participant in it is not taken for a free one."""

import random

import pytest
import rclpy
from rclpy.context import Context

from llm_mde_ros import dds_domain
from llm_mde_ros.dds_domain import free_domain_id


@pytest.fixture
def taken_domain(own_domain: None, monkeypatch: pytest.MonkeyPatch) -> int:
    other = Context()
    rclpy.init(context=other, domain_id=free_domain_id())
    other_node = rclpy.create_node('other', context=other)  # takes the process's first number
    domain = free_domain_id()
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('participant', context=context)
    yield domain
    node.destroy_node()
    context.try_shutdown()
    other_node.destroy_node()
    other.try_shutdown()


def test_a_taken_domain_is_left_out(taken_domain: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(domains: range, count: int) -> list[int]:
        return [taken_domain, *(d for d in domains if d != taken_domain)][:count]

    monkeypatch.setattr(random, 'sample', sample)
    assert free_domain_id() != taken_domain


def test_when_all_domains_are_taken_one_is_shared(
    taken_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dds_domain, 'LAST_DOMAIN_ID', 1)
    monkeypatch.setattr(dds_domain, 'PORTS_OF_A_DOMAIN', 250 * taken_domain)
    assert free_domain_id() == 1
