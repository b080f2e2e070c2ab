"""Training: it learns, freezes what it says, keeps the best; validation changes nothing."""

from __future__ import annotations

from dataclasses import replace
import json

import numpy as np
import pytest
import torch

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_train import fit as module
from llm_mde_train.batches import Batch
from llm_mde_train.fit import Trainer, fit, learning_rate_factor, split_by_time
from llm_mde_train.recipe import Recipe
from llm_mde_train.samples import Sample

QUICK = Recipe(
    steps=2,
    batch_size=2,
    warmup_steps=0,
    learning_rate=3e-3,
    validation_rooms=1,
    workers=0,
    training_data='two rooms',
)
CAMERA = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@pytest.fixture(scope='module')
def rooms() -> list[Sample]:
    """Return two samples whose depth shows in their colour."""
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(2):
        depth_m = np.tile(np.linspace(1.0, 4.0, 64, dtype=np.float32), (48, 1))
        depth_m[10:30, 20:40] = generator.uniform(0.5, 1.0)
        rgb = np.repeat((depth_m * 60).astype(np.uint8)[..., None], 3, axis=2)
        samples.append(Sample(rgb=rgb, depth_m=depth_m, camera=CAMERA, scene='rendered'))
    return samples


@pytest.fixture
def cheap(monkeypatch, rooms, tiny_model_dir) -> Recipe:
    """Return a recipe for a small model on rooms that cost nothing."""

    def render(seed: int, count: int) -> list[Sample]:
        return (rooms * count)[:count]

    monkeypatch.setattr('llm_mde_train.batches.rendered_samples', render)
    monkeypatch.setattr(module, 'rendered_samples', render)
    return replace(QUICK, start_from=str(tiny_model_dir))


@pytest.fixture
def batch(rooms) -> Batch:
    return Batch(
        rgb=torch.from_numpy(np.stack([room.rgb for room in rooms])),
        depth_m=torch.from_numpy(np.stack([room.depth_m for room in rooms])),
        focal_px=torch.full((2,), CAMERA.focal_px),
    )


@pytest.mark.parametrize('train', ['all', 'lora'])
def test_loss_falls_on_one_batch(train, tiny_model, batch):
    trainer = Trainer(tiny_model, replace(QUICK, train=train, steps=25))
    losses = [trainer.step(batch)['loss'].item() for _ in range(25)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_lora_moves_its_factors_and_the_parts_between_and_freezes_the_backbones(tiny_model, batch):
    trainer = Trainer(tiny_model, replace(QUICK, train='lora'))
    before = weights(trainer.model)
    for _ in range(3):
        trainer.step(batch)
    moved = {name for name, now in weights(trainer.model).items() if not now.equal(before[name])}
    backbone = {name for name in before if '.backbone.' in name}
    assert any('vision.backbone' in name for name in moved & backbone)
    assert any('language.backbone' in name for name in moved & backbone)
    assert all('lora_' in name for name in moved & backbone)
    factors = {name for name in backbone if 'lora_' in name}
    assert factors == moved & backbone
    for part in ('reprogramming', 'prompt', 'bottleneck', 'head'):
        assert any(f'{part}.modules_to_save' in name for name in moved)
        assert not any(f'{part}.original_module' in name for name in moved)


def test_training_all_moves_every_part(tiny_model, batch):
    trainer = Trainer(tiny_model, QUICK)
    before = weights(trainer.model)
    trainer.step(batch)
    after = weights(trainer.model)
    for part in ('vision', 'language', 'reprogramming', 'prompt', 'bottleneck', 'head'):
        assert any(not after[name].equal(before[name]) for name in before if name.startswith(part))


@pytest.mark.parametrize('train', ['all', 'lora'])
def test_validation_changes_nothing(train, tiny_model_dir, batch, rgb):
    ends = []
    for validates in (False, True):
        torch.manual_seed(0)
        model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
        trainer = Trainer(model, replace(QUICK, train=train))
        for _ in range(3):
            trainer.step(batch)
            if validates:
                DepthEstimator(trainer.averaged(), device='cpu').infer(rgb, CAMERA)
        assert trainer.model.training
        ends.append(weights(trainer.model) | weights(trainer.average))
    for name, weight in ends[0].items():
        assert weight.equal(ends[1][name]), name


def test_averaged_lora_is_a_plain_model_that_says_the_same(tiny_model, batch):
    trainer = Trainer(tiny_model, replace(QUICK, train='lora'))
    for _ in range(3):
        trainer.step(batch)
    pixels = batch.rgb.permute(0, 3, 1, 2).float() / 255.0
    plain = trainer.averaged().eval()
    assert type(plain) is LLMMDEForDepthEstimation
    assert not any('lora' in name or 'modules_to_save' in name for name in plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            plain(pixels).predicted_depth,
            trainer.average.module.eval()(pixel_values=pixels).predicted_depth,
            rtol=1e-4,
            atol=1e-4,
        )


def test_average_follows_and_lags(tiny_model, batch):
    trainer = Trainer(tiny_model, replace(QUICK, ema_decay=0.9))
    start = trainer.model.head.norm.bias.detach().clone()
    for _ in range(15):
        trainer.step(batch)
    now = trainer.model.head.norm.bias.detach()
    mean = trainer.averaged().head.norm.bias.detach()
    assert 0.0 < (mean - now).norm() < (start - now).norm()
    assert trainer.averaged().image_mean.equal(trainer.model.image_mean)


def test_average_forgets_the_first_weights_soon(tiny_model, batch):
    trainer = Trainer(tiny_model, replace(QUICK, ema_decay=0.9999))
    trainer.step(batch)
    first = trainer.model.head.norm.bias.detach().clone()
    for _ in range(15):
        trainer.step(batch)
    now = trainer.model.head.norm.bias.detach()
    mean = trainer.averaged().head.norm.bias.detach()
    assert (mean - now).norm() < 0.7 * (first - now).norm()


def test_divergence_is_an_error(tiny_model, batch):
    trainer = Trainer(tiny_model, QUICK)
    with torch.no_grad():
        trainer.model.head.norm.bias[0] = float('nan')
    before = weights(trainer.model)
    with pytest.raises(RuntimeError, match='non-finite'):
        trainer.step(batch)
    assert before['head.norm.weight'].equal(trainer.model.head.norm.weight)


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
    recipe = json.loads((tmp_path / 'run' / 'recipe.json').read_text())
    assert recipe.pop('commit')
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
    assert set(fit(recipe, tmp_path / 'run')) == {'abs_rel', 'rmse', 'delta1', 'step'}


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


def test_learning_rate_warms_up_and_decays_to_its_end():
    recipe = Recipe(steps=110, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-5)
    factors = [learning_rate_factor(recipe, step) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[60] == pytest.approx(0.01 + 0.99 * 0.5**0.9)
    assert factors[110] == pytest.approx(0.01)
    assert factors[10:] == sorted(factors[10:], reverse=True)


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
    recipe = Recipe(index=str(index), sets=['kitchen_train', 'office'])
    training, validation = module._real_samples(recipe)
    assert not {id(s) for s in training} & {id(s) for s in validation}
    assert len(training) + len(validation) == 3


def test_loader_of_worker_processes_gives_batches(cheap, tiny_model):
    loader = module._loader(replace(cheap, workers=1), [], tiny_model.config)
    first = next(iter(loader))
    assert first.rgb.shape[0] == 2
    assert max(first.rgb.shape[1:3]) == 64


def test_story_names_the_commit_of_the_code():
    commit = module._commit()
    assert commit == 'unknown' or len(commit) == 40
