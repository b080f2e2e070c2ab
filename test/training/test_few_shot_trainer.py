"""Few-shot training: it learns, keeps what validation found best and ends in time."""

from __future__ import annotations

from dataclasses import replace
import math

import pytest
import torch

from llm_mde_core import LLMMDEForDepthEstimation
from llm_mde_train.adapted_parts import make_adaptable
from llm_mde_train.few_shot_trainer import FewShotTrainer, Tuning, Validation, best_of
from llm_mde_train.held_out import judge, predictor
from llm_mde_train.shot_batches import ShotBatches

QUICK = Tuning(
    steps=6,
    validations=3,
    ema_decay=0.8,
    shots_per_batch=2,
    warmup_steps=1,
    lora_rate=0.01,
    rate=0.01,
)


@pytest.fixture
def trainer_with(tiny_model_dir):
    def make(tuning: Tuning) -> FewShotTrainer:
        torch.manual_seed(0)
        model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
        return FewShotTrainer(make_adaptable(model, train='lora_head'), tuning)

    return make


@pytest.fixture
def batches(tiny_model, rooms) -> ShotBatches:
    return ShotBatches(
        rooms, [], config=tiny_model.config, shots_per_batch=2, replay_per_batch=0, seed=0
    )


def head_of(network: torch.nn.Module) -> torch.Tensor:
    return network.get_base_model().head.modules_to_save['default'].norm.bias.detach().clone()


def test_it_learns_the_shots_and_nothing_frozen_moves(trainer_with, batches, rooms):
    trainer = trainer_with(replace(QUICK, steps=24))
    frozen = {
        name: weight.detach().clone()
        for name, weight in trainer.network.named_parameters()
        if not weight.requires_grad
    }
    history = trainer.run(
        batches.next, lambda estimator: judge(predictor(estimator), rooms).mean('abs_rel')
    )
    assert history[-1].abs_rel < 0.8 * history[0].abs_rel
    assert len(frozen) > 20
    for network in (trainer.network, trainer.best()):
        now = dict(network.named_parameters())
        for name, weight in frozen.items():
            assert now[name].equal(weight), name


def test_the_best_validation_is_kept(trainer_with, batches):
    figures, seen = iter([0.9, 0.5, 0.2, 0.7]), []
    trainer = trainer_with(QUICK)

    def validate(_: object) -> float:
        seen.append(head_of(trainer.averaged))
        return next(figures)

    history = trainer.run(batches.next, validate)
    assert [validation.step for validation in history] == [0, 2, 4, 6]
    assert math.isnan(history[0].loss)
    assert all(math.isfinite(validation.loss) for validation in history[1:])
    assert head_of(trainer.best()).equal(seen[2])
    assert not seen[2].equal(seen[3])


@pytest.mark.parametrize(
    ('figures', 'step'),
    [
        ([0.9, 0.50, 0.58, 0.62], 2),  # nearly as good, and later
        ([0.9, 0.50, 0.30, 0.31], 3),
        ([0.50, 0.505, 0.51, 0.7], 0),  # none beats the start
        ([0.50, 0.49, 0.51, 0.7], 1),
    ],
)
def test_of_nearly_equal_validations_the_last_counts(figures, step):
    history = [Validation(number, math.nan, figure) for number, figure in enumerate(figures)]
    assert best_of(history).step == step


def test_what_only_harms_is_not_kept(trainer_with, batches, tiny_model_dir):
    figures = iter([0.1, 0.5, 0.5, 0.5])
    trainer = trainer_with(QUICK)
    trainer.run(batches.next, lambda _: next(figures))
    start = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir).head.norm.bias
    assert head_of(trainer.best()).equal(start)


def test_it_stops_when_validation_gains_no_more(trainer_with, batches):
    figures = iter([0.9, 0.3, 0.2, 0.5, 0.6, 0.7])
    trainer, parts = trainer_with(replace(QUICK, steps=9, validations=9, patience=2)), []
    history = trainer.run(
        batches.next, lambda _: next(figures), notify=lambda done, _: parts.append(done)
    )
    assert [validation.abs_rel for validation in history] == [0.9, 0.3, 0.2, 0.5, 0.6]
    assert best_of(history).step == 2
    assert parts[-1] == 1.0


def test_a_slow_machine_ends_in_time_with_small_steps(trainer_with, batches, monkeypatch):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr('time.monotonic', lambda: next(clock))
    trainer, parts = trainer_with(replace(QUICK, steps=1000, minutes=2.0)), []
    history = trainer.run(batches.next, lambda _: 0.5, notify=lambda done, _: parts.append(done))
    assert history[-1].step == 4  # of half a minute each
    assert parts == [0.25, 0.5, 0.75, 1.0]
    assert trainer.optimizer.param_groups[0]['lr'] < 0.35 * QUICK.lora_rate


def test_divergence_is_an_error(trainer_with, batches):
    trainer = trainer_with(QUICK)
    with torch.no_grad():
        trainer.trained[0].fill_(float('nan'))
    with pytest.raises(RuntimeError, match='non-finite'):
        trainer.run(batches.next, lambda _: 0.5)


@pytest.mark.parametrize('budget', [{'steps': 0}, {'minutes': 0.0}])
def test_no_budget_is_a_sentence(budget):
    with pytest.raises(ValueError, match='training needs time'):
        Tuning(**budget)
