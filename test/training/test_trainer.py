"""A trainer: it learns, freezes what it says, averages; validation changes nothing."""

from __future__ import annotations

import copy
from dataclasses import replace

from conftest import small_config
import numpy as np
import pytest
import torch
from transformers import Dinov2Config

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation, load_adapter
from llm_mde_train import trainer as module
from llm_mde_train.batches import Batch
from llm_mde_train.recipe import Recipe
from llm_mde_train.trainer import DivergenceError, Trainer, learning_rate_factor

QUICK = Recipe(steps=2, batch_size=2, warmup_steps=0, learning_rate=3e-3)
CAMERA = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


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


@pytest.mark.parametrize('train', ['all', 'lora'])
def test_with_muon_matrices_learn_by_their_own_rate_and_the_state_goes_on(
    train, tiny_model_dir, batch
):
    recipe = replace(QUICK, train=train, matrix_learning_rate=3e-3, steps=25)

    def trainer() -> Trainer:
        torch.manual_seed(0)
        return Trainer(LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir), recipe)

    first, second = trainer(), trainer()
    rates = {group['matrices']: group['initial_lr'] for group in first.optimizer.param_groups}
    assert rates == {False: 3e-3, True: 3e-3}
    of_both = [len(group['params']) for group in first.optimizer.param_groups]
    assert sum(of_both) == len(first.trained)
    losses = [first.step(batch)['loss'].item() for _ in range(3)]
    state = copy.deepcopy(first.state())
    second.load_state(*copy.deepcopy(state))
    after = second.step(batch)['loss']
    torch.set_rng_state(state[0]['random.cpu'][0])
    torch.testing.assert_close(first.step(batch)['loss'], after)
    for one, other in zip(first.trained, second.trained, strict=True):
        torch.testing.assert_close(one, other)
    losses += [first.step(batch)['loss'].item() for _ in range(21)]
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
    with pytest.raises(DivergenceError, match='non-finite'):
        trainer.step(batch)
    assert before['head.norm.weight'].equal(trainer.model.head.norm.weight)


@pytest.mark.parametrize('train', ['all', 'lora'])
def test_going_on_from_a_state_is_going_on(train, tiny_model_dir, batch):
    """Defect 15: weights, moments, average, rate and dropout all follow from the state."""
    recipe = replace(QUICK, train=train, steps=6)
    ends = []
    for stops in (False, True):
        torch.manual_seed(0)
        trainer = Trainer(LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir), recipe)
        for step in range(6):
            if stops and step == 3:
                tensors, rest = trainer.state()
                tensors = {name: value.clone() for name, value in tensors.items()}
                torch.manual_seed(9)
                other = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
                trainer = Trainer(other, recipe)
                trainer.load_state(tensors, rest)
            trainer.step(batch)
        ends.append(trainer.state())
    assert ends[0][1] == ends[1][1]
    assert set(ends[0][0]) == set(ends[1][0])
    for name, tensor in ends[0][0].items():
        assert tensor.equal(ends[1][0][name]), name


def test_saved_adapter_makes_the_averaged_model(tiny_model, tiny_model_dir, batch, tmp_path):
    trainer = Trainer(tiny_model, replace(QUICK, train='lora'))
    for _ in range(3):
        trainer.step(batch)
    trainer.save(trainer.averaged(), tmp_path)
    kept = weights(LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'model'))
    start = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    before = weights(start)
    adapted = weights(load_adapter(start, tmp_path / 'adapter'))
    assert not kept['head.norm.bias'].equal(before['head.norm.bias'])
    for name, weight in kept.items():
        torch.testing.assert_close(adapted[name], weight, msg=name)


@pytest.mark.parametrize('changes', [{'train': 'all'}, {'train': 'lora', 'ranks': 0}])
def test_without_factors_there_is_no_adapter(changes, tiny_model, batch, tmp_path):
    ranks = changes.pop('ranks', 2)
    tiny_model.config.lora_vision_rank = tiny_model.config.lora_language_rank = ranks
    trainer = Trainer(tiny_model, replace(QUICK, **changes))
    trainer.step(batch)
    trainer.save(trainer.averaged(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['model']


def test_learning_rate_warms_up_and_decays_to_its_end():
    recipe = Recipe(steps=110, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-5)
    factors = [learning_rate_factor(recipe, step) for step in range(111)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[60] == pytest.approx(0.01 + 0.99 * 0.5**0.9)
    assert factors[110] == pytest.approx(0.01)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_bf16_computes_roughly_and_keeps_weights_and_losses_exact(tiny_model, batch):
    trainer = Trainer(tiny_model.eval(), replace(QUICK, precision='bf16'))
    trainer.model.eval()  # without dropout
    rough, _ = trainer.loss(batch)
    trainer.dtype = torch.float32
    exact, _ = trainer.loss(batch)
    assert rough.dtype == torch.float32
    assert rough != exact
    assert rough.item() == pytest.approx(exact.item(), rel=0.05)
    trainer.dtype = torch.bfloat16
    trainer.step(batch)
    assert {weight.dtype for weight in trainer.trained} == {torch.float32}


@pytest.mark.parametrize(
    ('asked', 'hardware', 'expected'),
    [
        ('auto', 'bf16', torch.bfloat16),
        ('auto', 'fp16', torch.float32),  # whose gradients would have to be scaled
        ('auto', 'fp32', torch.float32),
        ('fp32', 'fp32', torch.float32),
    ],
)
def test_precision_follows_the_hardware(asked, hardware, expected, monkeypatch):
    monkeypatch.setattr(module, 'choose_precision', lambda *_: hardware)
    assert module._dtype(replace(QUICK, precision=asked), torch.device('cpu')) == expected


def test_losses_weigh_what_the_recipe_says(tiny_model, batch):
    losses = {'silog': 2.0, 'absolute': 0.0, 'gradient': 0.0, 'spread': 0.0, 'depth_class': 0.5}
    loss, parts = Trainer(tiny_model, replace(QUICK, losses=losses)).loss(batch)
    expected = 2.0 * parts['silog'] + 0.5 * parts['depth_class']
    torch.testing.assert_close(loss, expected)


def test_a_part_that_is_not_there_cannot_be_frozen(tokenizer):
    model = LLMMDEForDepthEstimation(small_config(language='none'))
    with pytest.raises(ValueError, match="no part 'language' to freeze"):
        Trainer(model, replace(QUICK, frozen=['language']))


def test_what_no_gradient_reaches_is_not_trained():
    """Several processes would wait for its gradient for ever."""
    dino = Dinov2Config(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, patch_size=16, image_size=64
    )
    model = LLMMDEForDepthEstimation(small_config(language='none', vision_config=dino))
    trainer = Trainer(model, QUICK)
    images = torch.zeros(1, 48, 64, 3, dtype=torch.uint8)
    trainer.loss(Batch(images, torch.ones(1, 48, 64), torch.tensor([60.0])))[0].backward()
    assert all(weight.grad is not None for weight in trainer.trained)
