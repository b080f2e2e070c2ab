"""
Few-shot adaptation: a model learns a room from a few frames with depth.

    frames ─split_blocks─▶ shots, and replay ─▶ LoRA and head ─▶ adapter
                           validation ────────▶ when to stop
                           test ──────────────▶ before, baselines, after

What can be judged before training is, so that a recording that cannot be is refused at once.
"""

from __future__ import annotations

from collections.abc import Callable
import copy
from dataclasses import asdict, dataclass
import itertools
from pathlib import Path
import tempfile
import time
from typing import Any

import numpy as np
from peft import PeftModel
import torch

from llm_mde_core import DepthEstimator
from llm_mde_core.bench.machine import git_commit
from llm_mde_core.digests import sha256_of
from llm_mde_core.model_files import find_model
from llm_mde_train.adapt_material import Material, prepare
from llm_mde_train.adapted_parts import (
    check_choice,
    check_place,
    fit_scale_shift,
    make_adaptable,
    save_adapter,
)
from llm_mde_train.baselines import Predictor, constant, pixel_median, scale_shift
from llm_mde_train.few_shot_trainer import (
    FewShotTrainer,
    Tuning,
    Validation,
    best_of,
    gains_no_more,
)
from llm_mde_train.held_out import HeldOut, judge, predictor
from llm_mde_train.provenance import (
    library_versions,
    sha256_of_samples,
)
from llm_mde_train.samples import Frame, Sample
from llm_mde_train.shot_batches import ShotBatches
from llm_mde_train.shots import spread

PICTURES = 4
RENDERED = 'rendered rooms'  # as replay

DEFAULT_TUNING = Tuning()

Notify = Callable[[str, float], None]


@dataclass(frozen=True)
class Learned:
    """A network and how it came about."""

    network: PeftModel
    history: list[Validation]
    fitted_numbers: int


@dataclass(frozen=True)
class Adaptation:
    """What came of it; all but the two of replay are judged on the test block."""

    material: Material
    shots_asked: int
    train: str
    before: HeldOut
    after: HeldOut
    baselines: dict[str, HeldOut]
    replay_before: HeldOut
    replay_after: HeldOut
    history: list[Validation]
    pictures: list[tuple[Sample, np.ndarray, np.ndarray]]  # test frame, depth before and after
    fitted_numbers: int
    provenance: dict[str, Any]
    seconds: float

    @property
    def best_step(self) -> int:
        """Return after how many steps training was best; 0 is the model as it was."""
        return best_of(self.history).step

    @property
    def stopped_early(self) -> bool:
        """Return whether training ended because validation gained no more."""
        tuning = self.provenance['tuning']
        unfinished = self.history[-1].step < tuning['steps']
        return unfinished and gains_no_more(self.history, patience=tuning['patience'])

    @property
    def best_rival(self) -> tuple[str, float]:
        """Return the name and the AbsRel of the best of 'before' and the baselines."""
        rivals = {'before': self.before} | self.baselines
        name = min(rivals, key=lambda name: rivals[name].mean('abs_rel'))
        return name, rivals[name].mean('abs_rel')

    @property
    def worthwhile(self) -> bool:
        """Return whether the adapted model beats the one before and all baselines."""
        return self.after.mean('abs_rel') < self.best_rival[1]


def adapt(
    frames: list[Frame],
    *,
    out: Path,
    model: str = 'tiny',
    train: str = 'lora_head',
    shots: int = 16,
    replay: list[Frame] | None = None,
    recording: str = '',
    tuning: Tuning = DEFAULT_TUNING,
    seed: int = 0,
    device: str = 'auto',
    notify: Notify = lambda what, done: None,
) -> Adaptation:
    """
    Adapt a model to the room of some frames and write the adapter to `out`.

    `train` is one of `TRAIN_CHOICES`: what may change. `replay` are frames of other rooms that
    keep the model from forgetting; None renders some. `recording` is the frames' name, for the
    provenance. In the order of time 35 % of the recording teach, 5 % say when to stop, 30 %
    teach, 5 % say when to stop, and the last 25 % only judge. `notify` is told what is being
    done and what part of that is (0 to 1). An adapter that was in `out` stays until the new one
    is judged. Raises ValueError for too few frames, a mistaken choice and a folder of other
    things, FileNotFoundError for an unknown model, DivergenceError when the loss is no longer
    finite.
    """
    started = time.monotonic()
    check_choice(train)
    check_place(out)
    torch.manual_seed(seed)
    folder = find_model(model, allow_download=False)
    out.mkdir(parents=True, exist_ok=True)  # now, not after minutes
    notify('picking shots', 0.0)
    material = prepare(frames, shots=shots, replay=replay)

    estimator = DepthEstimator.from_pretrained(
        folder, device=device, precision='fp32', compile='off'
    )
    as_it_was = predictor(estimator)
    before, baselines, replay_before = _judge_before(as_it_was, material, notify)
    learned = _learn(estimator, material, train=train, tuning=tuning, seed=seed, notify=notify)

    adapted = _read_back(learned.network, folder, device=device)
    total = len(material.test) + len(material.unseen)
    tick = _counted(notify, 'judging the adapted model', total=total)
    after = judge(adapted, material.test, notify=tick)
    replay_after = judge(adapted, material.unseen, notify=tick)
    save_adapter(learned.network, out, model=model)
    return Adaptation(
        material=material,
        shots_asked=shots,
        train=train,
        before=before,
        after=after,
        baselines=baselines,
        replay_before=replay_before,
        replay_after=replay_after,
        history=learned.history,
        pictures=[(s, as_it_was(s), adapted(s)) for s in spread(material.test, PICTURES)],
        fitted_numbers=learned.fitted_numbers,
        provenance={
            'made_by': 'llm-mde-train adapt',
            'recording': recording,
            'replay': RENDERED if replay is None else f'{len(replay)} given frames',
            'train': train,
            'tuning': asdict(tuning),
            'seed': seed,
        }
        | _origin(material.shots, folder=Path(folder)),
        seconds=time.monotonic() - started,
    )


def _origin(shots: list[Sample], *, folder: Path) -> dict[str, Any]:
    return {
        'scenes': sorted({shot.scene for shot in shots}),
        'shot_stamps_ns': [shot.stamp_ns for shot in shots],
        'shots_sha256': sha256_of_samples(shots),
        'model': folder.name,
        'model_sha256': sha256_of([folder / 'model.safetensors']),
        'commit': git_commit(Path(__file__)),
        'libraries': library_versions(),
    }


def _judge_before(
    as_it_was: Predictor, material: Material, notify: Notify
) -> tuple[HeldOut, dict[str, HeldOut], HeldOut]:
    """Judge what adaptation has to beat, and on replay what it must not spoil."""
    rivals = {
        'before': as_it_was,
        'constant': constant(material.shots),
        'pixel_median': pixel_median(material.shots),
        'scale_shift': scale_shift(as_it_was, material.shots),
    }
    total = len(rivals) * len(material.test) + len(material.unseen)
    tick = _counted(notify, 'judging the model as it is', total=total)
    judged = {name: judge(rival, material.test, notify=tick) for name, rival in rivals.items()}
    return judged.pop('before'), judged, judge(as_it_was, material.unseen, notify=tick)


def _read_back(network: PeftModel, folder: str, *, device: str) -> Predictor:
    """Return what the node will see: the model in `folder` with the adapter as it is written."""
    with tempfile.TemporaryDirectory() as scratch:
        save_adapter(network, Path(scratch), model='')
        return predictor(
            DepthEstimator.from_pretrained(
                folder, adapter=scratch, device=device, precision='fp32', compile='off'
            )
        )


def _counted(notify: Notify, what: str, *, total: int) -> Callable[[], None]:
    """Return what is to be called after each of `total` parts."""
    notify(what, 0.0)
    done = itertools.count(1)
    return lambda: notify(what, next(done) / total)


def _learn(
    estimator: DepthEstimator,
    material: Material,
    *,
    train: str,
    tuning: Tuning,
    seed: int,
    notify: Notify,
) -> Learned:
    start = copy.deepcopy(estimator.model)
    network = make_adaptable(start, train=train)

    def validate(now: DepthEstimator) -> float:
        return judge(predictor(now), material.validation).mean('abs_rel')

    if train == 'scale_shift':
        notify('fitting a scale and a shift', 0.0)
        return _fit_two_numbers(network, estimator, material, validate)
    count = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    batches = ShotBatches(
        material.shots,
        material.replay,
        config=start.config,
        shots_per_batch=tuning.shots_per_batch,
        replay_per_batch=tuning.replay_per_batch,
        seed=seed,
    )
    trainer = FewShotTrainer(network, tuning)
    history = trainer.run(
        batches.next,
        validate,
        notify=lambda done, last: notify(f'training, abs_rel {last.abs_rel:.3f}', done),
    )
    return Learned(trainer.best(), history, count)


def _fit_two_numbers(
    network: PeftModel,
    estimator: DepthEstimator,
    material: Material,
    validate: Callable[[DepthEstimator], float],
) -> Learned:
    """Keep the fit only when validation does not say that it is worse."""
    before = Validation(step=0, loss=float('nan'), abs_rel=validate(estimator))
    fitted = copy.deepcopy(network)
    fit_scale_shift(fitted, predictor(estimator), material.shots)
    changed = DepthEstimator(
        fitted.get_base_model(),
        device=str(estimator.device),
        precision='fp32',
        compile='off',
    )
    after = Validation(step=1, loss=float('nan'), abs_rel=validate(changed))
    better = after.abs_rel < before.abs_rel
    return Learned(fitted if better else network, [before, after], 2)
