"""What adaptation may change: nothing else moves, and the folder says the same as the network."""

from __future__ import annotations

import copy
import json

import numpy as np
from peft import PeftModel
import pytest
import torch
from training.conftest import small_rooms

from llm_mde_core import DepthEstimator, LLMMDEForDepthEstimation, load_adapter
from llm_mde_core.lora import base_sha256
from llm_mde_train.adapted_parts import (
    TRAIN_CHOICES,
    fit_scale_shift,
    make_adaptable,
    save_adapter,
)
from llm_mde_train.held_out import judge, predictor
from llm_mde_train.samples import Sample


@pytest.fixture
def start(tiny_model_dir) -> LLMMDEForDepthEstimation:
    return LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)


def trained(network: PeftModel) -> set[str]:
    return {
        'lora' if 'lora_' in name else name.split('modules_to_save')[0].rpartition('model.')[2]
        for name, weight in network.named_parameters()
        if weight.requires_grad
    }


@pytest.mark.parametrize(
    ('train', 'parts'),
    [
        ('lora_head', {'lora', 'head.'}),
        ('lora', {'lora'}),
        ('head', {'head.'}),
        ('scale_shift', {'head.out.3.'}),
    ],
)
@pytest.mark.filterwarnings('error::FutureWarning')
def test_only_what_is_named_is_trained(train, parts, start):
    assert trained(make_adaptable(start, train=train)) == parts


def test_factors_stand_beside_every_map_before_the_head(start):
    names = [n for n, _ in make_adaptable(start, train='lora').named_modules()]
    for part in ('vision.backbone', 'language.backbone', 'bottleneck.down', 'reprogramming.key'):
        assert any(part in name and name.endswith('lora_A') for name in names), part
    assert not any('to_prototypes' in name and 'lora' in name for name in names)


def test_unknown_choice_is_a_sentence(start):
    with pytest.raises(ValueError, match=r"train must be one of lora_head.*, not 'everything'"):
        make_adaptable(start, train='everything')


@pytest.mark.parametrize('train', TRAIN_CHOICES)
def test_saved_adapter_says_the_same(train, start, tiny_model_dir, tmp_path, rooms):
    network = make_adaptable(start, train=train)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn_like(weight)
    save_adapter(network, tmp_path / 'room', model=str(tiny_model_dir))
    expected = DepthEstimator(network.get_base_model(), device='cpu')
    loaded = DepthEstimator.from_pretrained(
        tiny_model_dir, adapter=tmp_path / 'room', device='cpu'
    )
    plain = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu')
    room = rooms[0]
    depth_m = loaded.infer(room.rgb, room.camera).depth_m
    np.testing.assert_allclose(depth_m, expected.infer(room.rgb, room.camera).depth_m, rtol=1e-4)
    assert not np.allclose(depth_m, plain.infer(room.rgb, room.camera).depth_m, rtol=1e-2)


def test_folder_of_the_model_stays_private(start, tiny_model_dir, tmp_path):
    save_adapter(make_adaptable(start, train='head'), tmp_path, model=str(tiny_model_dir))
    config = json.loads((tmp_path / 'adapter_config.json').read_text())
    assert config['base_model_name_or_path'] == ''
    assert str(tiny_model_dir) not in (tmp_path / 'adapter_config.json').read_text()


def test_bundled_model_is_named(start, tmp_path):
    save_adapter(make_adaptable(start, train='head'), tmp_path, model='tiny')
    config = json.loads((tmp_path / 'adapter_config.json').read_text())
    assert config['base_model_name_or_path'] == 'tiny'


def test_scale_and_shift_of_the_last_layer_are_found(start, tiny_model_dir):
    """The truth is what the model says after two numbers of its last layer were changed."""
    changed = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    with torch.no_grad():
        changed.head.out[3].weight[0] *= 30.0
        changed.head.out[3].bias[0] += 0.5
        start.head.out[3].weight[0] *= 20.0
    says = predictor(DepthEstimator(changed, device='cpu'))
    shots = [
        Sample(rgb=r.rgb, depth_m=says(r), camera=r.camera, scene='room')
        for r in small_rooms(0, 3)
    ]
    before = predictor(DepthEstimator(start, device='cpu'))
    network = make_adaptable(start, train='scale_shift')
    wrong = judge(before, shots).mean('abs_rel')
    fit_scale_shift(network, before, shots)
    after = judge(predictor(DepthEstimator(network.get_base_model(), device='cpu')), shots)
    assert wrong > 0.2
    assert after.mean('abs_rel') < 0.02


@pytest.mark.parametrize('train', TRAIN_CHOICES)
def test_base_is_known_through_the_adapter(train, start):
    plain = base_sha256(start)
    network = make_adaptable(start, train=train)
    assert base_sha256(network.get_base_model()) == plain
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                weight += 1.0
    assert base_sha256(network.get_base_model()) == plain


def test_adapter_of_a_twin_with_other_weights_is_refused(start, tiny_model_dir, tmp_path):
    """Shapes are alike; nothing but the digest tells that the figures would be nonsense."""
    save_adapter(make_adaptable(start, train='head'), tmp_path, model=str(tiny_model_dir))
    twin = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    load_adapter(copy.deepcopy(twin), tmp_path)
    with torch.no_grad():
        twin.head.norm.bias[0] += 1e-3
    with pytest.raises(ValueError, match=r'made for another model .* adapt this one again'):
        load_adapter(twin, tmp_path)


@pytest.mark.parametrize(
    'name', ['canonical_focal_px', 'image_size', 'min_depth_m', 'max_depth_m']
)
def test_adapter_of_a_twin_whose_metres_are_others_is_refused(
    name, start, tiny_model_dir, tmp_path
):
    save_adapter(make_adaptable(start, train='head'), tmp_path, model=str(tiny_model_dir))
    twin = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    setattr(twin.config, name, 2 * getattr(twin.config, name))
    with pytest.raises(ValueError, match=r'weights or metres differ: adapt this one again'):
        load_adapter(twin, tmp_path)
