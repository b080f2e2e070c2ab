"""Another adapter beside the one that serves: with networks in name."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Lock

from adapter_bench import CAMERA, RGB, Bench, Estimator
import numpy as np
import pytest
import torch

from llm_mde_core.estimator import DepthEstimator, DepthPrediction
from llm_mde_core.geometry import Camera
from llm_mde_ros import adapter_swap
from llm_mde_ros.adapter_swap import Request, compare
from llm_mde_ros.model_loading import (
    LoadedModel,
)


def test_a_good_one_serves(bench: Bench):
    assert bench.serving_after(Estimator(seconds=(5.0, 0.019))) == 'new'  # the first prepares
    assert (bench.told, bench.swap.problem, bench.swap.loading) == ([''], '', '')


@pytest.mark.parametrize('depth_m', [float('nan'), float('inf'), 0.0, 0.09, 10.1])
def test_one_that_sees_what_cannot_be_does_not_serve(bench: Bench, depth_m: float):
    assert bench.serving_after(Estimator(depth_m=depth_m)) == 'old'
    assert bench.told == [bench.swap.problem]
    assert 'it sees depth from 0.1 to 10 m in only 0% of a test image' in bench.swap.problem
    assert bench.serving_after(Estimator()) == 'new'
    assert bench.swap.problem == ''
    assert bench.serving_after(Estimator(depth_m=depth_m)) == 'new'
    bench.swap.withdraw('Cleaned up.')
    assert bench.swap.problem == ''
    assert len(bench.told) == 3


@pytest.mark.parametrize('pushed', [50.0, -50.0])
def test_a_real_network_whose_depth_is_at_its_bound_everywhere_does_not_serve(
    tiny_model_dir: Path, pushed: float
):
    serving, candidate = (
        DepthEstimator.from_pretrained(tiny_model_dir, device='cpu', compile='off')
        for _ in range(2)
    )
    request = Request('new', lambda: None, CAMERA, print, print)
    compare(serving, serving, request=request, turn=Lock())
    candidate.model.head.out[-1].bias[0] += pushed
    with pytest.raises(ValueError, match='in only 0% of a test image'):
        compare(candidate, serving, request=request, turn=Lock())


def test_one_that_is_slower_than_twice_does_not_serve(bench: Bench):
    assert bench.serving_after(Estimator(seconds=(0.021,))) == 'old'
    assert '21 ms for a test image, what serves 10 ms' in bench.swap.problem


def test_one_that_was_slow_for_a_moment_serves(bench: Bench):
    assert bench.serving_after(Estimator(seconds=(0.01, 0.5, 0.5, 0.5, 0.01))) == 'new'


@pytest.mark.parametrize(
    ('error', 'told'),
    [
        (
            FileNotFoundError('no adapter in new.'),
            'The adapter new cannot serve: no adapter in new.',
        ),
        (KeyError('r'), "The adapter new cannot serve: KeyError: 'r'."),
    ],
)
def test_whatever_loading_raises_the_old_one_goes_on(bench: Bench, error: Exception, told: str):
    def fail() -> LoadedModel:
        raise error

    bench.start(fail)
    bench.finish()
    assert (bench.model.loaded, bench.told) == (bench.old, [told])


def test_a_second_request_is_refused_until_the_first_has_ended(bench: Bench):
    go_on = Event()

    def load() -> LoadedModel:
        assert go_on.wait(60)
        return LoadedModel(Estimator(), 'new')

    bench.start(load)
    with pytest.raises(ValueError, match='The adapter new is being loaded'):
        bench.start(load)
    go_on.set()
    bench.finish()
    assert bench.told == ['']
    bench.start(load)
    bench.finish()


def test_a_request_that_is_withdrawn_changes_nothing_and_holds_nothing_up(bench: Bench):
    go_on = Event()

    def load() -> LoadedModel:
        assert go_on.wait(60)
        return LoadedModel(Estimator(), 'late')

    bench.start(load)
    bench.swap.withdraw('Cleaned up.')
    bench.swap.withdraw('Again.')
    assert bench.told == ['Cleaned up.']
    bench.start(lambda: LoadedModel(Estimator(), 'new'))
    go_on.set()
    bench.finish()  # of the first
    assert bench.model.adapter == 'old'
    bench.finish()
    assert (bench.model.adapter, bench.told) == ('new', ['Cleaned up.', ''])


def test_a_test_that_is_withdrawn_ends_at_once(bench: Bench):
    new = Estimator(seconds=(9.0,))
    request = Request('new', lambda: LoadedModel(new, 'new'), CAMERA, bench.told.append, print)
    infer = new.infer

    def withdraw(rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        request.withdrawn.set()
        return infer(rgb, camera)

    new.infer = withdraw
    bench.swap.start(request)
    bench.finish()
    assert new.runs == 1


def test_what_serves_goes_on_while_another_one_is_prepared_for_the_camera(bench: Bench):
    new, was_held = Estimator(), []

    def compile_for_long(_camera: Camera) -> float:
        was_held.append(bench.model.turn.locked())
        return 60.0

    new.warm_up = compile_for_long
    assert bench.serving_after(new) == 'new'
    assert was_held == [False]


def test_a_gpu_too_small_for_two_ends_the_trial_and_what_serves_stays_on_it(bench: Bench):
    bench.model._cpu_fallback = lambda: True
    new = Estimator()

    def fill_the_memory(_camera: Camera) -> float:
        bench.old.estimator.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
        with pytest.raises(torch.OutOfMemoryError):
            bench.model.infer(RGB, CAMERA)
        return 0.0

    new.warm_up = fill_the_memory
    assert bench.serving_after(new) == 'old'
    assert bench.told[-1].endswith(
        'cannot serve: the GPU has no memory for it beside what serves.'
    )
    assert bench.model.loaded is bench.old
    assert float(bench.model.infer(RGB, CAMERA).depth[0, 0]) == 2.0
    assert new.runs == 0


def test_the_test_images_are_black_white_and_coloured():
    images = [adapter_swap.self_test_image(CAMERA, number=number) for number in range(4)]
    assert {(image.shape, image.dtype) for image in images} == {((6, 8, 3), np.dtype('uint8'))}
    assert images[0].max() == 0
    assert images[1].min() == 255
    assert len(np.unique(images[2].reshape(-1, 3), axis=0)) == 48
    assert not np.array_equal(images[2], images[3])
