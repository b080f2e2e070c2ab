"""Training: it keeps the best, tells its story, starts and goes on from where it should."""

from __future__ import annotations

from dataclasses import replace
import json
import re

import numpy as np
import pytest
import torch

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_train import fit as module
from llm_mde_train.fit import fit
from llm_mde_train.metrics import METRICS
from llm_mde_train.recipe import Recipe
from llm_mde_train.samples import Sample, split_by_time
from llm_mde_train.trainer import Trainer

CAMERA = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize('train', ['all', 'lora'])
def test_fit_leaves_a_model_that_loads_and_the_story_of_the_run(train, cheap, tmp_path, rgb):
    best = fit(replace(cheap, train=train), tmp_path / 'run')
    estimator = DepthEstimator.from_pretrained(tmp_path / 'run' / 'model', device='cpu')
    prediction = estimator.infer(rgb, CAMERA)
    assert np.isfinite(prediction.depth_m).all()
    assert prediction.prompt
    assert estimator.info()['training_data'] == 'two rooms'
    assert np.isfinite(best['abs_rel'])
    assert json.loads((tmp_path / 'run' / 'best.json').read_text()) == best
    assert (tmp_path / 'run' / 'adapter').exists() == (train == 'lora')
    recipe = json.loads((tmp_path / 'run' / 'recipe.json').read_text())
    assert Recipe(**recipe) == replace(cheap, train=train)
    rows = [json.loads(line) for line in (tmp_path / 'run' / 'log.jsonl').open()]
    assert rows[-1]['step'] == 2
    assert set(rows[-1]['validation']) == {'rendered', 'mean'}


def test_fit_with_lora_saves_backbones_that_differ_by_low_rank_alone(
    cheap, tmp_path, tiny_model_dir
):
    fit(replace(cheap, train='lora', learning_rate=1e-2), tmp_path)
    before = weights(LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir))
    after = weights(LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'model'))
    assert set(before) == set(after)
    for name in before:
        if '.backbone.' not in name:
            continue
        if name.endswith(('query.weight', 'value.weight', 'q_proj.weight', 'v_proj.weight')):
            strengths = torch.linalg.svdvals(after[name] - before[name])
            assert strengths[0] > 0.0, name
            assert strengths[2] < 1e-3 * strengths[0], name  # the rank is 2
        else:
            assert after[name].equal(before[name]), name


def test_best_model_is_kept_not_the_last(cheap, tmp_path, monkeypatch):
    """Defect 13: the best validation picks the checkpoint."""
    seen = []

    def judge(estimator: DepthEstimator, samples: list[Sample]):
        seen.append(estimator.model.head.norm.bias.clone())
        abs_rel = [0.3, 0.1, 0.2][len(seen) - 1]
        return {'mean': {'abs_rel': abs_rel, 'rmse': 1.0, 'delta1': 0.0}}

    monkeypatch.setattr(module, 'evaluate', judge)
    best = fit(replace(cheap, steps=3, validate_every=1), tmp_path)
    assert (best['step'], best['abs_rel']) == (2, 0.1)
    kept = LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'model').head.norm.bias
    assert kept.equal(seen[1])
    assert not kept.equal(seen[2])


def test_only_frames_of_the_recipe_are_judged(cheap, tmp_path, monkeypatch, index):
    """Defect 13: a set kept for the test has no say in the choice of the checkpoint."""
    judged = []

    def judge(estimator: DepthEstimator, samples: list[Sample]):
        judged.extend(samples)
        return {'mean': {'abs_rel': 0.1}}

    monkeypatch.setattr(module, 'evaluate', judge)
    monkeypatch.setattr(module, 'HELD_OUT_PART', 0.5)
    fit(replace(cheap, index=str(index), sets=['kitchen_train']), tmp_path / 'run')
    assert {sample.scene for sample in judged} == {'kitchen', 'rendered'}


@pytest.mark.parametrize('abs_rel', [float('nan'), float('inf')])
def test_a_run_without_any_finite_score_is_an_error(abs_rel, cheap, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'evaluate', lambda *_: {'mean': {'abs_rel': abs_rel}})
    with pytest.raises(RuntimeError, match='no validation gave a finite abs_rel'):
        fit(cheap, tmp_path / 'run')
    assert not (tmp_path / 'run' / 'model').exists()


def test_fit_is_reproducible(cheap, tmp_path):
    for name in ('one', 'two'):
        fit(cheap, tmp_path / name)
    one, two = (
        weights(LLMMDEForDepthEstimation.from_pretrained(tmp_path / name / 'model'))
        for name in ('one', 'two')
    )
    assert all(one[name].equal(two[name]) for name in one)


def test_going_on_from_a_model_keeps_what_it_saw(cheap, tmp_path):
    fit(replace(cheap, steps=1), tmp_path / 'one')
    more = replace(
        cheap, start_from=str(tmp_path / 'one' / 'model'), steps=1, training_data='my room'
    )
    fit(more, tmp_path / 'two')
    info = DepthEstimator.from_pretrained(tmp_path / 'two' / 'model', device='cpu').info()
    assert info['training_data'] == 'two rooms; then my room'


def test_real_frames_train_and_validate(cheap, tmp_path, index):
    recipe = replace(cheap, index=str(index), sets=['kitchen_train'], real_fraction=1.0)
    assert set(fit(recipe, tmp_path / 'run')) == {*METRICS, 'step'}


def test_nothing_to_validate_on_is_refused_before_training(cheap, tmp_path):
    with pytest.raises(ValueError, match='nothing to validate on'):
        fit(replace(cheap, validation_rooms=0), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_unknown_start_is_refused(cheap, tmp_path):
    with pytest.raises(FileNotFoundError, match='no model'):
        fit(replace(cheap, start_from='nowhere'), tmp_path)


def test_preset_starts_from_random_weights_with_a_tokenizer_of_its_own(
    cheap, monkeypatch, tokenizer
):
    monkeypatch.setattr(module, 'train_tokenizer', lambda vocab_size: tokenizer)
    model = module._start_model(replace(cheap, start_from='', preset='tiny'))
    assert model.tokenizer is tokenizer
    assert model.config.training_data == 'two rooms'


@pytest.mark.parametrize('overrides', [{'language': 'none'}, {'prompt': 'fixed'}])
def test_ablation_from_a_recipe(overrides, cheap, monkeypatch, tokenizer, tmp_path):
    monkeypatch.setattr(module, 'train_tokenizer', lambda vocab_size: tokenizer)
    fit(replace(cheap, start_from='', overrides=overrides, steps=1), tmp_path)
    model = LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'model')
    assert hasattr(model, 'language') == (overrides != {'language': 'none'})
    assert model.config.prompt == overrides.get('prompt', 'adaptive')


@pytest.mark.parametrize(('asked', 'kept'), [('', 'CC-BY-4.0'), ('MIT', 'MIT')])
def test_licence_is_the_models_unless_the_recipe_has_one(asked, kept, cheap, tiny_model, tmp_path):
    tiny_model.config.weights_license = 'CC-BY-4.0'
    tiny_model.save_pretrained(tmp_path)
    model = module._start_model(replace(cheap, start_from=str(tmp_path), weights_license=asked))
    assert model.config.weights_license == kept


def moment(number: int, scene: str) -> Sample:
    depth_m = np.full((1, 1), number, np.float32)
    camera = Camera.from_hfov(width=1, height=1, hfov_deg=60.0)
    return Sample(np.zeros((1, 1, 3), np.uint8), depth_m, camera, scene)


def test_split_by_time_holds_out_the_end_of_every_scene_and_shares_nothing():
    samples = [moment(n, scene) for n in range(20) for scene in ('a', 'b')]
    first, last = split_by_time(samples, 0.15)
    assert len(last) == 6
    assert {id(s) for s in first} | {id(s) for s in last} == {id(s) for s in samples}
    assert not {id(s) for s in first} & {id(s) for s in last}
    for scene in ('a', 'b'):
        times = [[s.depth_m.item() for s in part if s.scene == scene] for part in (first, last)]
        assert times == [list(range(17)), [17, 18, 19]]


def test_real_frames_for_training_and_validation_are_others(index):
    """Defect 13: what picks the checkpoint is not what it learnt from."""
    recipe = Recipe(index=str(index), sets=['kitchen_train', 'office'])
    training, validation = module._real_samples(recipe)
    assert not {id(s) for s in training} & {id(s) for s in validation}
    assert len(training) + len(validation) == 3


def test_loader_of_worker_processes_gives_batches(cheap, tiny_model):
    recipe = replace(cheap, workers=1)
    loader = module._loader(recipe, [], Trainer(tiny_model, recipe))
    first = next(iter(loader))
    assert first.rgb.shape[0] == 2
    assert max(first.rgb.shape[1:3]) in (48, 64)


def test_story_names_the_commit_of_the_code():
    commit = module._commit()
    assert re.fullmatch('unknown|[0-9a-f]{40}(-dirty)?', commit)
