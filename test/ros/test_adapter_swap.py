"""Another adapter beside the one that serves, and a GPU without memory: with networks in name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from threading import Event, Lock
from types import SimpleNamespace
from typing import Any
import weakref

import numpy as np
import pytest
import torch

from llm_mde_core.estimator import DepthEstimator, DepthPrediction
from llm_mde_core.geometry import Camera
from llm_mde_ros import adapter_swap, served_model
from llm_mde_ros.adapter_swap import AdapterSwap, Request, compare
from llm_mde_ros.model_loading import (
    ON_THE_CPU,
    LoadedModel,
    adapter_warnings,
    check_allowed,
    load_model,
)
from llm_mde_ros.parameters import DepthNodeParameters
from llm_mde_ros.served_model import OUT_OF_MEMORY, TRIAL_FRAMES, ServedModel

CAMERA = Camera.from_hfov(width=8, height=6, hfov_deg=60.0)
RGB = np.zeros((6, 8, 3), np.uint8)
LOG = SimpleNamespace(info=lambda _: None, warning=lambda _: None)


class Estimator:
    """Sees a wall; what it takes for it is told one run after the other."""

    depth_range_m = (0.1, 10.0)

    def __init__(self, *, depth_m: float = 2.0, seconds: tuple[float, ...] = (0.01,)) -> None:
        self.depth = torch.full((6, 8), depth_m)
        self.seconds = seconds
        self.runs = 0
        self.errors: list[Exception] = []

    def infer(self, rgb: np.ndarray, camera: Camera) -> DepthPrediction:
        if self.errors:
            raise self.errors.pop()
        seconds = self.seconds[min(self.runs, len(self.seconds) - 1)]
        self.runs += 1
        return DepthPrediction(self.depth, lambda: torch.ones(6, 8), {'network': seconds})

    def warm_up(self, camera: Camera) -> float:
        return sum(self.infer(RGB, camera).stage_s.values())

    def on_cpu(self) -> Estimator:
        return Estimator(depth_m=3.0)

    def info(self) -> dict[str, str]:
        return {'model': 'wall'}


class Bench:
    """A model that serves, and the thread that asks for another."""

    def __init__(self) -> None:
        self.model = ServedModel(cpu_fallback=lambda: False)
        self.old, self.told, self.went_back = LoadedModel(Estimator(), 'old'), [], []
        self.model.serve(self.old)
        self.calls: Queue[Callable[[], None]] = Queue()
        self.swap = AdapterSwap(self.model, deliver=self.calls.put)

    def start(self, load: Callable[[], LoadedModel]) -> None:
        self.swap.start(Request('new', load, CAMERA, self.told.append, self.went_back.append))

    def finish(self) -> None:
        """Take what the thread hands over."""
        self.calls.get(timeout=60)()

    def serving_after(self, new: Any) -> str:
        self.start(lambda: LoadedModel(new, 'new'))
        self.finish()
        return self.model.adapter

    def depth_m(self) -> float:
        """Return what a real image gets."""
        return float(self.model.infer(RGB, CAMERA).depth[0, 0])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(adapter_swap, 'PAUSE_S', 0.0)
    bench = Bench()
    yield bench
    bench.swap.join()


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


# The first images of a new one


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


# Out of memory


def test_out_of_memory_is_an_error_until_a_frame_succeeds():
    model, estimator = ServedModel(cpu_fallback=lambda: False), Estimator()
    model.serve(LoadedModel(estimator))
    estimator.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
    with pytest.raises(RuntimeError, match='out of memory'):
        model.infer(RGB, CAMERA)
    assert model.error == OUT_OF_MEMORY
    assert float(model.infer(RGB, CAMERA).depth[0, 0]) == 2.0
    assert model.error == ''


def test_with_cpu_fallback_the_same_frame_gets_its_depth_from_the_cpu():
    model, estimator = ServedModel(cpu_fallback=lambda: True), Estimator()
    model.serve(LoadedModel(estimator, 'mine', warnings=('Beware.',)))
    estimator.errors.append(torch.OutOfMemoryError('CUDA out of memory'))
    assert float(model.infer(RGB, CAMERA).depth[0, 0]) == 3.0
    assert model.error == ''
    assert model.adapter == 'mine'
    assert model.loaded.warnings == ('Beware.', ON_THE_CPU)
    assert float(model.infer(RGB, CAMERA).depth[0, 0]) == 3.0


def test_a_network_that_moves_to_the_cpu_sees_the_same(tiny_model_dir: Path, rgb: np.ndarray):
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    reduced = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu', precision='bf16')
    before_m = reduced.infer(rgb, camera).depth_m
    after = reduced.on_cpu()
    assert {weight.dtype for weight in after.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(after.infer(rgb, camera).depth_m, before_m, rtol=0.05)


@pytest.mark.parametrize('allowed', [False, True])
def test_a_gpu_that_is_too_small_for_the_model(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
):
    load, devices = DepthEstimator.from_pretrained, []

    def too_large(model: str, *, device: str, **more: object) -> DepthEstimator:
        devices.append(device)
        if device != 'cpu':
            raise torch.OutOfMemoryError('CUDA out of memory')
        return load(model, device=device, **more)

    monkeypatch.setattr(DepthEstimator, 'from_pretrained', too_large)
    parameters = DepthNodeParameters(
        model=str(tiny_model_dir), device='cuda', cpu_fallback=allowed, warm_up_width=0
    )
    if not allowed:
        with pytest.raises(RuntimeError, match='out of memory'):
            load_model(parameters, LOG)
        return
    assert load_model(parameters, LOG).warnings == (ON_THE_CPU,)
    assert devices == ['cuda', 'cpu']


# What is known of an adapter, and where it may be


@pytest.mark.parametrize(
    ('metrics', 'warned'),
    [
        ('{"worthwhile": false}', True),
        ('{"worthwhile": true}', False),
        ('{"worthwhile": null}', False),
        ('{}', False),
        ('[]', False),
        ('{"worthwhile": fal', False),
        ('[' * 100_000, False),
        ('\N{GREEK SMALL LETTER DELTA}', False),
    ],
)
def test_only_a_clear_verdict_warns(tmp_path: Path, metrics: str, warned: bool):
    assert adapter_warnings(str(tmp_path)) == ()
    (tmp_path / 'metrics.json').write_text(metrics)
    assert bool(adapter_warnings(str(tmp_path))) == warned


def test_only_folders_inside_of_the_allowed_one_can_be_asked_for(tmp_path: Path):
    allowed, outside = tmp_path / 'allowed', tmp_path / 'allowed_not'
    (allowed / 'inside').mkdir(parents=True)
    outside.mkdir()
    (allowed / 'way_out').symlink_to(outside)
    (tmp_path / 'way_in').symlink_to(allowed / 'inside')
    anywhere = DepthNodeParameters()
    bounded = DepthNodeParameters(allowed_folder=str(allowed))

    def refused(settings: DepthNodeParameters, **asked: str) -> bool:
        try:
            check_allowed(replace(settings, **asked), known={'started_with'})
        except ValueError as error:
            return f'allowed_folder ({allowed})' in str(error)
        return False

    for good in ('inside', 'inside/../inside'):
        assert not refused(bounded, adapter=str(allowed / good))
    for bad in (outside, allowed / 'way_out', allowed / '..', allowed / 'inside/../..', '/', '~'):
        assert refused(bounded, adapter=str(bad)), bad
        assert refused(bounded, model=str(bad)), bad
        assert not refused(anywhere, adapter=str(bad), model=str(bad))
    assert not refused(bounded, adapter=str(tmp_path / 'way_in'))
    assert not refused(bounded, adapter='', model='tiny')
    assert not refused(bounded, adapter='started_with', model='started_with')
    assert refused(bounded, adapter='tiny')


def test_what_is_no_folder_of_its_own_files_cannot_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    allowed = tmp_path / 'allowed'
    for name in ('good', 'mixed'):
        (allowed / name).mkdir(parents=True)
        (allowed / name / 'config.json').symlink_to(allowed / 'file')
    (allowed / 'file').touch()
    (allowed / 'mixed' / 'model.safetensors').symlink_to(tmp_path / 'secret')
    (allowed / 'loop').symlink_to(allowed / 'loop')
    bounded = DepthNodeParameters(allowed_folder=str(allowed))
    monkeypatch.chdir(allowed)

    check_allowed(replace(bounded, model='good'), known=())
    of_the_hub = 'someone/model@' + 'f' * 40
    for name in ('mixed', 'loop', 'file', 'missing', of_the_hub, '~nobody', 'x' * 5000):
        with pytest.raises(ValueError, match='allowed_folder'):
            check_allowed(replace(bounded, model=name), known=())
        with pytest.raises(ValueError, match='allowed_folder'):
            check_allowed(replace(bounded, adapter=str(allowed / name)), known=())
