"""The first images of another adapter, and the way back."""

from __future__ import annotations

from threading import Event
import weakref

from adapter_bench import Bench, Estimator
import numpy as np
import pytest
import torch

from llm_mde_ros import served_model
from llm_mde_ros.model_loading import (
    LoadedModel,
)
from llm_mde_ros.served_model import OUT_OF_MEMORY, TRIAL_FRAMES


@pytest.mark.parametrize('image', range(TRIAL_FRAMES))
@pytest.mark.parametrize(
    ('error', 'depth_m', 'reason'),
    [
        (KeyError(7), 3.0, 'KeyError: 7'),
        (None, float('nan'), 'it saw no depth where what served before it does'),
    ],
)
def test_one_that_fails_at_its_first_images_goes_and_no_image_is_lost(
    bench: Bench, image: int, error: Exception | None, depth_m: float, reason: str
):
    new = Estimator(depth_m=3.0)
    assert bench.serving_after(new) == 'new'
    assert [bench.depth_m() for _ in range(image)] == [3.0] * image
    new.errors += [error] if error else []
    new.depth = torch.full((6, 8), depth_m)
    assert bench.depth_m() == 2.0
    assert (bench.model.loaded, bench.model.made_by) == (bench.old, ('wall', 'old'))
    bench.finish()
    told = f'The adapter new failed at its first images: {reason}. The adapter old serves again.'
    assert (bench.swap.problem, bench.told, bench.went_back) == (told, [''], [told])
    assert bench.depth_m() == 2.0
    assert bench.serving_after(Estimator(depth_m=4.0)) == 'new'
    assert (bench.swap.problem, bench.depth_m()) == ('', 4.0)


def test_one_that_has_answered_its_first_images_stays_and_the_old_one_is_let_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    new = Estimator(depth_m=3.0)
    old, bench.old = weakref.ref(bench.old.estimator), None
    assert bench.serving_after(new) == 'new'
    assert {bench.depth_m() for _ in range(TRIAL_FRAMES - 1)} == {3.0}
    assert old() is not None
    held: list[object] = []  # when memory is given back
    monkeypatch.setattr(served_model, 'give_back_freed_memory', lambda: held.append(old()))
    bench.depth_m()
    assert held == [None]
    new.errors.append(KeyError(7))
    with pytest.raises(KeyError):
        bench.depth_m()
    assert (bench.depth_m(), bench.went_back) == (3.0, [])


def test_an_image_that_the_old_one_cannot_answer_either_is_no_fault_of_the_new_one(bench: Bench):
    new = Estimator(depth_m=3.0)
    assert bench.serving_after(new) == 'new'
    for estimator in (new, bench.old.estimator):
        estimator.errors.append(ValueError('no image'))
    with pytest.raises(ValueError, match='no image'):
        bench.depth_m()
    dark = torch.full((6, 8), float('nan'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(new, 'depth', dark)
        patch.setattr(bench.old.estimator, 'depth', dark)
        assert np.isnan(bench.depth_m())
    assert (bench.depth_m(), bench.model.adapter) == (3.0, 'new')


def test_after_one_on_trial_failed_its_successor_goes_back_to_what_was_proven(bench: Bench):
    assert bench.serving_after(Estimator(depth_m=3.0)) == 'new'
    newest = Estimator(depth_m=4.0)
    assert bench.serving_after(newest) == 'new'
    newest.errors.append(KeyError(7))
    assert bench.depth_m() == 2.0


def test_one_that_goes_while_another_is_loaded_does_not_disturb_it(bench: Bench):
    new, go_on = Estimator(depth_m=3.0), Event()
    assert bench.serving_after(new) == 'new'

    def load() -> LoadedModel:
        assert go_on.wait(60)
        return LoadedModel(Estimator(depth_m=4.0), 'newest')

    bench.start(load)
    new.errors.append(KeyError(7))
    assert bench.depth_m() == 2.0
    bench.finish()
    assert (len(bench.went_back), bench.swap.problem) == (1, '')
    go_on.set()
    bench.finish()
    assert (bench.model.adapter, bench.depth_m()) == ('newest', 4.0)


def test_without_memory_for_two_the_old_one_is_let_go_and_the_new_one_stays(bench: Bench):
    bench.model._cpu_fallback = lambda: True
    new = Estimator(depth_m=3.0)
    assert bench.serving_after(new) == 'new'
    new.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
    with pytest.raises(torch.OutOfMemoryError):
        bench.depth_m()
    assert bench.model.error == OUT_OF_MEMORY
    assert bench.depth_m() == 3.0
    new.errors.append(KeyError(7))
    with pytest.raises(KeyError):
        bench.depth_m()


def test_what_let_go_of_its_models_holds_none_and_does_not_go_back_to_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    new = Estimator(depth_m=3.0)
    old, bench.old = weakref.ref(bench.old.estimator), None
    bench.serving_after(new)
    bench.depth_m()
    newest, new = weakref.ref(new), None
    held: list[object] = []
    monkeypatch.setattr(
        served_model, 'give_back_freed_memory', lambda: held.append((old(), newest()))
    )
    bench.model.serve(None)
    assert held == [(None, None)]
    loaded = Estimator(depth_m=5.0)
    bench.model.serve(LoadedModel(loaded))
    loaded.errors.append(KeyError(7))
    with pytest.raises(KeyError):
        bench.depth_m()
