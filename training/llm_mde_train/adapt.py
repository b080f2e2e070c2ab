"""
Few-shot adaptation: a model learns a room from a few frames with depth.

    frames ─split_blocks─▶ shots, and replay ─▶ LoRA and head ─▶ adapter
                           validation ────────▶ when to stop
                           test ──────────────▶ before, after, baselines
"""

from __future__ import annotations

from collections.abc import Callable
import copy
from dataclasses import asdict, dataclass
from pathlib import Path
import time
from typing import Any

import numpy as np
from peft import PeftModel
import torch

from llm_mde_core import DepthEstimator
from llm_mde_core.estimator import find_model
from llm_mde_train.adapted_parts import fit_scale_shift, make_adaptable, save_adapter
from llm_mde_train.baselines import constant, pixel_median, scale_shift
from llm_mde_train.batches import rendered_samples
from llm_mde_train.few_shot_trainer import FewShotTrainer, Tuning, Validation
from llm_mde_train.held_out import Judgement, judge, predictor
from llm_mde_train.provenance import (
    git_commit,
    library_versions,
    sha256_of_file,
    sha256_of_samples,
)
from llm_mde_train.samples import Frame, Sample
from llm_mde_train.shot_batches import ShotBatches
from llm_mde_train.shots import pick_shots, split_blocks, spread

REPLAY_SEED, UNSEEN_SEED = 271_828_182, 314_159_265  # apart from training's and from each other
REPLAY_FRAMES, UNSEEN_FRAMES = 24, 12
VALIDATION_FRAMES, TEST_FRAMES = 12, 48  # at most; evenly spread over their blocks
PICTURES = 4

DEFAULT_TUNING = Tuning()

Notify = Callable[[str, float], None]


@dataclass(frozen=True)
class Material:
    """The decoded frames that an adaptation works with."""

    shots: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    replay: list[Sample]  # of other rooms, to learn from
    unseen: list[Sample]  # of other rooms, to judge what was forgotten


@dataclass(frozen=True)
class Adaptation:
    """What came of it; all but the last two judgements are of the test block."""

    material: Material
    before: Judgement
    after: Judgement
    baselines: dict[str, Judgement]
    replay_before: Judgement
    replay_after: Judgement
    history: list[Validation]
    pictures: list[tuple[Sample, np.ndarray, np.ndarray]]  # test frame, depth before and after
    trained_parameters: int
    provenance: dict[str, Any]
    seconds: float

    @property
    def best_step(self) -> int:
        """Return after how many steps training was best; 0 is the model as it was."""
        return min(self.history, key=lambda validation: validation.abs_rel).step

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
    tuning: Tuning = DEFAULT_TUNING,
    seed: int = 0,
    device: str = 'auto',
    notify: Notify = lambda what, done: None,
) -> Adaptation:
    """
    Adapt a model to the room of some frames and write the adapter to `out`.

    `train` is one of `TRAIN_CHOICES`: what may change. `replay` are frames of other rooms that
    keep the model from forgetting; None renders some. The first part of the recording teaches,
    the middle one says when to stop, the last one only judges. `notify` is told what is being
    done and what part of that is (0 to 1). Raises ValueError for too few frames and a mistaken
    choice, FileNotFoundError for an unknown model, RuntimeError when training diverges.
    """
    started = time.monotonic()
    torch.manual_seed(seed)
    source = find_model(model, allow_download=False)
    notify('picking shots', 0.0)
    material = _prepare(frames, shots=shots, replay=replay)

    notify('judging the model as it is', 0.0)
    estimator = DepthEstimator.from_pretrained(source, device=device, precision='fp32')
    as_it_was = predictor(estimator)
    rivals = {
        'constant': constant(material.shots),
        'pixel_median': pixel_median(material.shots),
        'scale_shift': scale_shift(as_it_was, material.shots),
    }
    network, history = _learn(
        estimator, material, train=train, tuning=tuning, seed=seed, notify=notify
    )
    save_adapter(network, out, model=model)

    notify('judging the adapted model', 0.0)
    adapted = predictor(
        DepthEstimator.from_pretrained(source, adapter=out, device=device, precision='fp32')
    )
    return Adaptation(
        material=material,
        before=judge(as_it_was, material.test),
        after=judge(adapted, material.test),
        baselines={name: judge(rival, material.test) for name, rival in rivals.items()},
        replay_before=judge(as_it_was, material.unseen),
        replay_after=judge(adapted, material.unseen),
        history=history,
        pictures=[(s, as_it_was(s), adapted(s)) for s in spread(material.test, PICTURES)],
        trained_parameters=sum(w.numel() for w in network.parameters() if w.requires_grad),
        provenance={
            'made_by': 'llm-mde-train adapt',
            'model': network.peft_config['default'].base_model_name_or_path or Path(source).name,
            'model_sha256': sha256_of_file(Path(source) / 'model.safetensors'),
            'train': train,
            'tuning': asdict(tuning),
            'seed': seed,
            'scenes': sorted({shot.scene for shot in material.shots}),
            'shot_stamps_ns': [shot.stamp_ns for shot in material.shots],
            'shots_sha256': sha256_of_samples(material.shots),
            'replay': 'rendered rooms' if replay is None else f'{len(replay)} given frames',
            'commit': git_commit(),
            'libraries': library_versions(),
        },
        seconds=time.monotonic() - started,
    )


def _prepare(frames: list[Frame], *, shots: int, replay: list[Frame] | None) -> Material:
    """Decode what is needed, once; rooms are rendered when there is no other replay."""
    blocks = split_blocks(frames)
    if replay is None:
        others = rendered_samples(REPLAY_SEED, REPLAY_FRAMES)
        unseen = rendered_samples(UNSEEN_SEED, UNSEEN_FRAMES)
    else:
        chosen = spread(replay, REPLAY_FRAMES + UNSEEN_FRAMES)
        if len(chosen) < 2:
            raise ValueError(f'replay needs at least two frames, there are {len(chosen)}')
        loaded = [frame.load() for frame in chosen]
        cut = -(-len(loaded) * REPLAY_FRAMES // (REPLAY_FRAMES + UNSEEN_FRAMES))
        others, unseen = loaded[:cut], loaded[cut:]
    return Material(
        shots=pick_shots(blocks.shots, shots),
        validation=[frame.load() for frame in spread(blocks.validation, VALIDATION_FRAMES)],
        test=[frame.load() for frame in spread(blocks.test, TEST_FRAMES)],
        replay=others,
        unseen=unseen,
    )


def _learn(
    estimator: DepthEstimator,
    material: Material,
    *,
    train: str,
    tuning: Tuning,
    seed: int,
    notify: Notify,
) -> tuple[PeftModel, list[Validation]]:
    """Return the adapted network and the story of its training."""
    start = copy.deepcopy(estimator.model)
    network = make_adaptable(start, train=train)

    def validate(now: DepthEstimator) -> float:
        return judge(predictor(now), material.validation).mean('abs_rel')

    if train == 'scale_shift':
        before = Validation(step=0, loss=float('nan'), abs_rel=validate(estimator))
        fit_scale_shift(network, predictor(estimator), material.shots)
        return network, [before]
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
    return trainer.best(), history
