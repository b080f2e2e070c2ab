"""The figures of an evaluation: judged frames, averaged in their scenes, then over scenes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from llm_mde_core import DepthEstimator
from llm_mde_train.calibration import CONFIDENCES, KEPT, calibration_error
from llm_mde_train.evaluate import Judgement, Scores, depth_counts, judge_frames, median_of_counts
from llm_mde_train.metrics import METRICS, bootstrap, mean_over_scenes
from llm_mde_train.profiles import DISTANCES_M, Profile, average_profiles
from llm_mde_train.samples import Frame

FIRST_CLOCK_NS = 10**15  # smaller stamps are numbers of frames or simulated: many scenes have them


@dataclass(frozen=True)
class FrameSet:
    """Frames from one place, and which part of their pixels counts."""

    name: str
    frames: Sequence[Frame]
    crop: str = 'none'


@dataclass(frozen=True)
class Evaluation:
    """What is known about a model after judging it on sets of frames."""

    model: str
    adapter: str  # '' for none
    constant_m: float
    sets: tuple[FrameSet, ...]
    judged: dict[str, list[Judgement]]  # of each set, in the order of scenes and times
    taught: int = 0  # how many of the frames the adapter learned from

    @cached_property
    def frames(self) -> list[Judgement]:
        """Return all judgements in the order of scenes and times."""
        return in_order([one for judged in self.judged.values() for one in judged])

    @cached_property
    def scores(self) -> Scores:
        """Return the METRICS per scene and under 'mean'."""
        return self._average(lambda one: one.errors)

    @cached_property
    def constant_scores(self) -> Scores:
        """Return the METRICS of the constant depth, per scene and under 'mean'."""
        return self._average(lambda one: one.constant_errors)

    @cached_property
    def flat_scores(self) -> Scores:
        """Return the METRICS of each frame's own median, per scene and under 'mean'."""
        return self._average(lambda one: one.flat_errors)

    @cached_property
    def edges(self) -> Scores:
        """Return the EDGE_FIGURES per scene and under 'mean'."""
        return self._average(lambda one: one.edges)

    @cached_property
    def set_scores(self) -> Scores:
        """Return the METRICS of each set, mean over its scenes."""
        return {
            name: mean_over_scenes((one.frame.scene, one.errors) for one in judged)['mean']
            for name, judged in self.judged.items()
            if judged
        }

    @cached_property
    def mean_over_frames(self) -> dict[str, float]:
        """Return the METRICS as means over all frames, as published figures of NYU are."""
        return mean_over_scenes(('all', one.errors) for one in self.frames)['mean']

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % interval of each mean, drawn anew from scenes and blocks of frames."""
        scenes = [one.frame.scene for one in self.frames]
        return {
            name: bootstrap([one.errors[name] for one in self.frames], scenes=scenes)
            for name in METRICS
        }

    @cached_property
    def by_distance(self) -> Profile:
        """Return errors by true distance, bins DISTANCES_M."""
        return average_profiles((one.frame.scene, one.by_distance) for one in self.frames)

    @cached_property
    def by_confidence(self) -> Profile:
        """Return errors by confidence, bins CONFIDENCES."""
        return average_profiles((one.frame.scene, one.by_confidence) for one in self.frames)

    @cached_property
    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Return abs_rel of the surest parts KEPT, as it is and at best."""
        said, best = (
            self._average(lambda one, name=name: dict(enumerate(getattr(one, name))))['mean']
            for name in ('kept', 'kept_at_best')
        )
        return np.array(list(said.values())), np.array(list(best.values()))

    def _average(self, figures: Callable[[Judgement], dict[Any, float]]) -> Scores:
        return mean_over_scenes((one.frame.scene, figures(one)) for one in self.frames)


def median_depth_m(sets: Sequence[FrameSet]) -> float:
    """Return the median of all known depths of sets, to the millimetre."""
    counts = [depth_counts(each.frames, crop=each.crop) for each in sets]
    length = max(map(len, counts))
    return median_of_counts(sum(np.pad(each, (0, length - len(each))) for each in counts))


def judge_sets(
    estimator: DepthEstimator,
    sets: Sequence[FrameSet],
    *,
    constant_m: float,
    adapter: str = '',
    notify: Callable[[], None] = lambda: None,
) -> Evaluation:
    """
    Judge an estimator on all frames of `sets`, beside a constant depth.

    `notify` is called after every judged frame. Frames without any known depth are left out;
    ValueError when no other is left.
    """
    is_shot = shots_of(adapter)
    judged: dict[str, list[Judgement]] = defaultdict(list)
    for each in sets:
        for one in judge_frames(estimator, each.frames, constant_m=constant_m, crop=each.crop):
            judged[each.name].append(one)
            notify()
    if not judged:
        raise ValueError('no frame with known depth to judge')
    return Evaluation(
        model=estimator.name,
        adapter=adapter,
        constant_m=constant_m,
        sets=tuple(sets),
        judged={name: in_order(mine) for name, mine in judged.items()},
        taught=sum(is_shot(one.frame) for mine in judged.values() for one in mine),
    )


def shots_of(adapter: str) -> Callable[[Frame], bool]:
    """Return what says whether a frame is one that the adapter's provenance.json names."""
    file = Path(adapter) / 'provenance.json'
    if not adapter or not file.is_file():
        return lambda frame: False
    provenance = json.loads(file.read_text(encoding='utf-8'))
    stamps, scenes = (set(provenance.get(key, ())) for key in ('shot_stamps_ns', 'scenes'))
    return lambda frame: (
        frame.stamp_ns in stamps and (frame.stamp_ns >= FIRST_CLOCK_NS or frame.scene in scenes)
    )


def in_order(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return judgements in the order of their scenes and times."""
    return sorted(judgements, key=lambda one: (one.frame.scene, one.frame.stamp_ns))


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything that was measured, ready for JSON; null where there is no figure."""
    scenes = {name: values for name, values in evaluation.scores.items() if name != 'mean'}
    by_confidence = evaluation.by_confidence
    said, best = evaluation.kept
    return _without_nan(
        {
            'model': evaluation.model,
            'adapter': evaluation.adapter,
            'frames_that_taught': evaluation.taught,
            'mean': evaluation.scores['mean'],
            'mean_interval_95': evaluation.intervals,
            'mean_over_frames': evaluation.mean_over_frames,
            'sets': evaluation.set_scores,
            'scenes': scenes,
            'constant_m': evaluation.constant_m,
            'constant': evaluation.constant_scores,
            'own_median': evaluation.flat_scores,
            'edges': evaluation.edges,
            'by_distance_m': _bins(evaluation.by_distance, DISTANCES_M),
            'confidence': {
                'calibration_error': calibration_error(by_confidence),
                'bins': _bins(by_confidence, CONFIDENCES),
                'kept': [
                    {'part': part, 'abs_rel': ours, 'abs_rel_at_best': theirs}
                    for part, ours, theirs in zip(KEPT, said, best, strict=True)
                ],
            },
            'crops': {each.name: each.crop for each in evaluation.sets},
            'frames': [
                {'set': name, 'scene': one.frame.scene, 'frame': one.frame.name}
                | one.errors
                | one.edges
                for name, judged in evaluation.judged.items()
                for one in judged
            ],
        }
    )


def _bins(profile: Profile, limits: Sequence[float]) -> list[dict[str, float]]:
    columns = {'from': limits[:-1], 'to': limits[1:]} | asdict(profile)
    return [
        {name: values[row] for name, values in columns.items()} for row in range(len(limits) - 1)
    ]


def _without_nan(value: Any) -> Any:
    """Return the same with None for NaN, which JSON does not have, and Python's own floats."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
