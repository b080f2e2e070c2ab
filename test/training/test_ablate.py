"""An ablation: variants that differ in one thing, equal budgets, a table of what each is worth."""

from __future__ import annotations

from dataclasses import asdict, replace
import json

from conftest import small_config
import pytest
from typer.testing import CliRunner
import yaml

from llm_mde_core import LLMMDEConfig, LLMMDEForDepthEstimation
from llm_mde_train import ablate as module
from llm_mde_train.ablate import Worth, ablate, variants
from llm_mde_train.cli import app
from llm_mde_train.recipe import Recipe


@pytest.fixture
def recipe(cheap, monkeypatch, tokenizer) -> Recipe:
    """Return a recipe whose preset is a small model."""
    small = classmethod(lambda cls, name, **overrides: small_config(**overrides))
    monkeypatch.setattr(LLMMDEConfig, 'from_preset', small)
    monkeypatch.setattr('llm_mde_train.fit.train_tokenizer', lambda vocab_size: tokenizer)
    return replace(cheap, start_from='', overrides={'language': 'random'}, steps=1)


def changes(variant: Recipe, recipe: Recipe) -> dict[str, object]:
    """Return which fields differ, those of the preset among them."""
    mine, full = (asdict(r) | r.overrides | {'overrides': None} for r in (variant, recipe))
    return {name: mine[name] for name in mine if mine[name] != full.get(name)}


def test_every_variant_of_training_all_differs_in_one_thing():
    recipe = Recipe(preset='tiny', overrides={'head_dim': 32})
    found = {name: changes(variant, recipe) for name, variant in variants(recipe).items()}
    assert found == {
        'full': {},
        'no language model': {'language': 'none'},
        'frozen language model': {'frozen': ['language']},
        'fixed prompt': {'prompt': 'fixed'},
        'shuffled prompt': {'prompt': 'shuffled'},
        'value = key': {'value_is_key': True},
    }


def test_with_lora_and_pretrained_words_both_can_be_left_out():
    recipe = Recipe(preset='paper', train='lora')
    found = {name: changes(variant, recipe) for name, variant in variants(recipe).items()}
    assert found['random language model'] == {'language': 'random'}
    assert found['no LoRA'] == {'lora_vision_rank': 0, 'lora_language_rank': 0}
    assert len(found) == 7


def test_a_language_model_that_was_taken_over_can_be_random():
    recipe = Recipe(preset='tiny', train='lora', parts_from={'vision': 'tiny', 'language': 'tiny'})
    found = variants(recipe)
    assert found['random language model'].parts_from == {'vision': 'tiny'}
    assert found['no language model'].parts_from == {'vision': 'tiny'}
    assert found['no LoRA'].parts_from == recipe.parts_from


def test_a_frozen_language_model_can_be_left_out():
    found = variants(Recipe(preset='tiny', frozen=['language', 'vision']))
    assert found['no language model'].frozen == ['vision']
    assert 'frozen language model' not in found  # it is the recipe itself


@pytest.mark.parametrize(
    ('recipe', 'sentence'),
    [
        (Recipe(start_from='tiny'), "'tiny' has its parts already"),
        (Recipe(overrides={'language': 'none'}), 'no language model: there is little to ablate'),
    ],
)
def test_what_cannot_be_ablated_is_said(recipe, sentence):
    with pytest.raises(ValueError, match=sentence):
        variants(recipe)


def test_ablation_trains_every_variant_and_says_what_it_reached(recipe, tmp_path):
    found = {worth.variant: worth for worth in ablate(recipe, tmp_path)}
    assert list(found) == list(variants(recipe))
    for name, worth in found.items():
        assert worth.metrics[0]['abs_rel'] > 0.0
        assert worth.step_s > 0.0
        assert worth.trained < worth.parameters if 'frozen' in name else worth.trained > 0
    size = {name: worth.parameters for name, worth in found.items()}
    assert size['full'] == size['fixed prompt'] == size['shuffled prompt']
    assert size['value = key'] == size['full'] - (24 * 16 + 16)  # the projection to values
    assert size['no language model'] < size['value = key']
    report = json.loads((tmp_path / 'ablation.json').read_text())
    assert [row['variant'] for row in report['variants']] == list(found)
    model = LLMMDEForDepthEstimation.from_pretrained(tmp_path / 'value_is_key/seed_0/model')
    assert model.config.value_is_key
    assert model.reprogramming.value is None


def test_variants_share_data_and_seeds(recipe, tmp_path, monkeypatch):
    budgets = []

    def fit(variant, folder):
        budgets.append((variant.seed, variant.steps, variant.batch_size, str(folder)))
        return {'abs_rel': 0.1 * (variant.seed + 1)}

    worth = Worth('any', [], 1, 1, 0.1)
    monkeypatch.setattr(module, 'fit', fit)
    monkeypatch.setattr(module, '_worth', lambda *_: worth)
    ablate(replace(recipe, seed=5), tmp_path, seeds=2)
    assert {budget[:3] for budget in budgets} == {(5, 1, 2), (6, 1, 2)}
    assert len({budget[3] for budget in budgets}) == len(budgets) == 12
    with pytest.raises(ValueError, match='at least one seed, not 0'):
        ablate(recipe, tmp_path, seeds=0)


def test_means_and_deviations_are_over_seeds():
    worth = Worth('any', [{'abs_rel': 0.1}, {'abs_rel': 0.3}], 1, 1, 0.1)
    assert worth.mean('abs_rel') == pytest.approx(0.2)
    assert worth.deviation('abs_rel') == pytest.approx(0.02**0.5)


def test_the_command_prints_a_table_of_80_columns(recipe, tmp_path, monkeypatch):
    metrics = [{'abs_rel': 0.1234, 'delta1': 0.9}]
    found = [Worth('frozen language model', metrics, 3_210_000, 1_000_000, 0.25)]
    monkeypatch.setattr('llm_mde_train.commands.ablate.run_ablation', lambda *_, **__: found)
    path = tmp_path / 'recipe.yaml'
    path.write_text(yaml.safe_dump(asdict(recipe)))
    shown = CliRunner().invoke(app, ['ablate', '--recipe', str(path), '--out', str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    (row,) = [line for line in shown.output.splitlines() if 'frozen' in line]
    for cell in ('frozen language model', '0.123', '0.900', '3.21 M', '1.00 M', '0.25'):
        assert cell in row
    assert max(map(len, shown.output.splitlines()[:-1])) <= 80
    assert 'best validation within 1 steps, one seed' in ' '.join(shown.output.split())
