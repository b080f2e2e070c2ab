"""How many threads are worth using, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from llm_mde_core import Camera, DepthEstimator, threads
from llm_mde_core.threads import fewest_threads, using_threads


@pytest.fixture
def six_threads() -> Iterator[None]:
    with using_threads(6):
        yield


@pytest.fixture
def run_taking(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], Callable]:
    """Return a function of seconds by number of threads that gives what takes so long."""
    now_s = [0.0]
    monkeypatch.setattr(threads.time, 'perf_counter', lambda: now_s[0])

    def taking(seconds: dict[int, float]) -> Callable[[], None]:
        def run() -> None:
            now_s[0] += seconds[torch.get_num_threads()]

        return run

    return taking


@pytest.mark.parametrize(
    ('seconds', 'count'),
    [
        ({1: 0.05, 2: 0.05, 4: 0.05, 6: 0.05}, 1),
        ({1: 0.054, 2: 0.05, 4: 0.05, 6: 0.06}, 1),  # hardly longer
        ({1: 0.06, 2: 0.05, 4: 0.048, 6: 0.06}, 2),
        ({1: 0.6, 2: 0.3, 4: 0.15, 6: 0.1}, 6),
    ],
)
def test_no_core_is_taken_that_gains_little(six_threads, run_taking, seconds, count):
    assert fewest_threads(run_taking(seconds)) == count
    assert torch.get_num_threads() == 6


def test_one_core_is_one_thread(run_taking):
    with using_threads(1):
        assert fewest_threads(run_taking({1: 1.0})) == 1


def test_a_warm_estimator_uses_what_it_found_and_leaves_others_as_they_were(
    tiny_model_dir, rgb, monkeypatch
):
    estimator = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu', compile='off')
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    expected_m = estimator.infer(rgb, camera).depth_m
    monkeypatch.setattr('llm_mde_core.estimator.fewest_threads', lambda run: run() and 3)
    estimator.warm_up(camera)
    used = []
    estimator.model.register_forward_hook(lambda *_: used.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    np.testing.assert_allclose(estimator.infer(rgb, camera).depth_m, expected_m, rtol=1e-4)
    assert used == [3]
    assert estimator.info()['threads'] == 3
    assert torch.get_num_threads() == before
