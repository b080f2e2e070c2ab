"""Training: it keeps the best, tells its story, starts and goes on from where it should."""

from __future__ import annotations

from dataclasses import replace
import hashlib
import json
from pathlib import Path
import re

from conftest import small_config
import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
import torch

from llm_mde_core import Camera, DepthEstimator, LLMMDEConfig, LLMMDEForDepthEstimation
from llm_mde_train import fit as module
from llm_mde_train.fit import fit
from llm_mde_train.metrics import METRICS
from llm_mde_train.recipe import Recipe
from llm_mde_train.samples import Sample, split_by_time
from llm_mde_train.trainer import DivergenceError, Trainer

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
    fit(replace(cheap, index=str(index), sets=['kitchen_train']), tmp_path / 'run')
    assert [frame.scene for frame in judged] == ['kitchen', 'rendered']


@pytest.mark.parametrize('abs_rel', [float('nan'), float('inf')])
def test_a_run_without_any_finite_score_is_an_error(abs_rel, cheap, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'evaluate', lambda *_: {'mean': {'abs_rel': abs_rel}})
    with pytest.raises(DivergenceError, match='no validation gave a finite abs_rel'):
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
    assert set(fit(replace(recipe, validation_rooms=0), tmp_path / 'run')) == {*METRICS, 'step'}


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


def test_parts_come_from_other_models(cheap, tiny_model, tiny_model_dir, monkeypatch):
    small = classmethod(lambda cls, name, **overrides: small_config(**overrides))
    monkeypatch.setattr(LLMMDEConfig, 'from_preset', small)
    monkeypatch.setattr(module, 'train_tokenizer', lambda **_: pytest.fail('it has one'))
    taken = {'vision': str(tiny_model_dir), 'language': str(tiny_model_dir)}
    recipe = replace(cheap, start_from='', parts_from=taken)
    model = module._start_model(recipe)
    for part, same in (('vision', True), ('language', True), ('head', False)):
        mine, theirs = (getattr(m, part).state_dict() for m in (model, tiny_model))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs) is same
    assert model.tokenizer.get_vocab() == tiny_model.tokenizer.get_vocab()
    with pytest.raises(ValueError, match='language cannot be taken over, it is built differently'):
        module._start_model(replace(recipe, overrides={'language': 'none'}))


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


def test_of_short_scenes_whole_ones_are_held_out():
    samples = [moment(n, f'room {n // 3}') for n in range(300)]
    first, last = split_by_time(samples, 0.15)
    assert len(last) == pytest.approx(0.15 * 300, rel=0.1)
    assert not {s.scene for s in first} & {s.scene for s in last}
    assert len(first) + len(last) == 300


@pytest.mark.parametrize(('frames', 'held_out'), [(1, 0), (2, 1), (3, 1), (4, 1), (10, 2)])
def test_a_short_scene_alone_holds_out_a_frame_unless_it_is_the_only_one(frames, held_out):
    samples = [moment(n, 'a') for n in range(frames)]
    first, last = split_by_time(samples, 0.15)
    assert len(last) == held_out
    assert [s.depth_m.item() for s in [*first, *last]] == list(range(frames))


def test_real_frames_for_training_and_validation_are_others(index):
    """Defect 13: what picks the checkpoint is not what it learnt from."""
    recipe = Recipe(index=str(index), sets=['kitchen_train', 'office'])
    training, validation = module._real_frames(recipe, told=print)
    names = [[frame.files[0].name for frame in part] for part in (training, validation)]
    assert names == [['0_rgb.png', '1_rgb.png'], ['3_rgb.png']]


def test_validation_costs_no_more_than_the_recipe_says(monkeypatch):
    monkeypatch.setattr(module, 'training_frames', lambda **_: [moment(n, 'a') for n in range(60)])
    training, validation = module._real_frames(Recipe(validation_frames=5), told=print)
    assert len(training) == 51
    assert [sample.depth_m.item() for sample in validation] == [51, 53, 55, 57, 59]


def test_loader_of_worker_processes_gives_batches(cheap, tiny_model):
    recipe = replace(cheap, workers=1)
    loader = module._loader(recipe, [], Trainer(tiny_model, recipe))
    first = next(iter(loader))
    assert first.rgb.shape[0] == 2
    assert max(first.rgb.shape[1:3]) in (48, 64)


def test_what_renders_on_the_gpu_has_no_workers(cheap, tiny_model):
    for device, workers in (('cpu', 1), ('cuda', 0)):
        recipe = replace(cheap, workers=1, render_device=device)
        loader = module._loader(recipe, [], Trainer(tiny_model, recipe))
        assert (loader.num_workers, loader.dataset.render_device) == (workers, device)


def test_going_on_with_other_data_is_refused(cheap, tmp_path, index):
    recipe = replace(cheap, index=str(index), sets=['kitchen_train'], steps=1)
    fit(recipe, tmp_path / 'run')
    made_by = json.loads((tmp_path / 'run' / 'made_by.json').read_text())
    weights = (Path(cheap.start_from) / 'model.safetensors').read_bytes()
    assert made_by['start_from_sha256'] == hashlib.sha256(weights).hexdigest()
    assert (made_by['training_frames'], made_by['validation_frames']) == (1, 1)
    assert re.fullmatch('unknown|[0-9a-f]{40}(-dirty)?', made_by['commit'])
    assert made_by['processes'] == 1
    depth = cv2.imread(str(index.parent / '0_depth.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(index.parent / '0_depth.png'), depth + np.arange(64, dtype=np.uint16))
    with pytest.raises(ValueError, match=r'other data, weights or processes \(data differ\)'):
        fit(recipe, tmp_path / 'run')


def test_losses_and_pictures_are_on_the_board(cheap, tmp_path):
    fit(replace(cheap, steps=3, validation_rooms=2), tmp_path)
    board = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    tags = board.Tags()
    assert {'loss/loss', 'loss/silog', 'learning_rate', 'abs_rel/mean'} <= set(tags['scalars'])
    rows = [json.loads(line) for line in (tmp_path / 'log.jsonl').open()]
    (loss,) = board.Scalars('loss/loss')
    assert (loss.step, loss.value) == (3, pytest.approx(rows[0]['loss']))
    (score,) = board.Scalars('abs_rel/mean')
    assert score.value == pytest.approx(rows[-1]['validation']['mean']['abs_rel'])
    assert tags['images'] == ['rendered/0', 'rendered/1']
    (picture,) = board.Images('rendered/0')
    assert (picture.height, picture.width) == (160, 3 * 213)  # colour, truth, prediction


def test_frozen_parts_stay_bitwise_and_others_move(cheap, tmp_path, tiny_model_dir):
    """Neither steps nor weight decay nor averaging may touch them."""
    recipe = replace(cheap, frozen=['language', 'vision'], weight_decay=0.5, learning_rate=1e-2)
    fit(recipe, tmp_path)
    before = weights(LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir))
    after = weights(LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'model'))
    moved = {name.split('.')[0] for name in before if not after[name].equal(before[name])}
    assert moved == {'reprogramming', 'prompt', 'bottleneck', 'head'}


def test_adapter_does_not_name_a_folder_of_this_machine(cheap, tmp_path):
    fit(replace(cheap, train='lora', steps=1), tmp_path)
    config = json.loads((tmp_path / 'adapter' / 'adapter_config.json').read_text())
    assert not config['base_model_name_or_path']
    assert module._start_model(replace(cheap, start_from='tiny')).name_or_path == 'tiny'


def test_the_recipe_for_nyu_learns_from_files_of_its_form(cheap, tmp_path):
    """All that the recipe says, but a small model and its data: a list in the format of BTS."""
    noise = np.random.default_rng(0)
    for number in range(4):
        rgb = noise.integers(0, 255, (480, 640, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'rgb_{number}.png'), rgb)
        depth_mm = np.full((480, 640), 2000 + number, np.uint16)
        cv2.imwrite(str(tmp_path / f'depth_{number}.png'), depth_mm)
    lines = [f'rgb_{number}.png depth_{number}.png 518.8579' for number in range(4)]
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    recipe = Recipe.read(Path(__file__).parents[2] / 'training' / 'recipes' / 'nyu.yaml')
    small = dict(start_from=cheap.start_from, nyu='', nyu_list=str(tmp_path / 'list.txt'))
    best = fit(replace(recipe, **small, batch_size=2, steps=1, workers=0), tmp_path / 'run')
    assert 0.0 < best['abs_rel'] < 10.0
    assert (tmp_path / 'run' / 'adapter').exists()


def test_a_recipe_that_builds_on_a_run_says_that_it_is_missing(tmp_path):
    recipe = Recipe(start_from=str(tmp_path / 'tiny' / 'model'))
    with pytest.raises(FileNotFoundError, match='which is not there: train it first'):
        fit(recipe, tmp_path / 'run')
