"""A domain with a participant in it is not taken for a free one."""

from collections.abc import Iterator
import random
import subprocess
import sys

import pytest

from llm_mde_ros import dds_domain
from llm_mde_ros.dds_domain import free_domain_id

# In a new process: Fast DDS numbers the participants of one on, and only the first are looked for.
PARTICIPANTS = """
import sys
import rclpy

nodes = []
for domain in sys.argv[1:]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=int(domain))
    nodes.append(rclpy.create_node('participant', context=context))
print('there', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def taken_domain(own_domain: None) -> Iterator[int]:
    """Return a domain with a participant that is the second of its process."""
    other, domain = free_domain_id(), free_domain_id()
    with subprocess.Popen(
        [sys.executable, '-c', PARTICIPANTS, str(other), str(domain)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == 'there\n'
        yield domain
        process.stdin.close()
        assert process.wait(30) == 0


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
