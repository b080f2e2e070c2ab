"""Recipes: read from YAML, checked before anything is spent on them."""

from __future__ import annotations

from dataclasses import asdict
import inspect
from pathlib import Path

import pytest
import yaml

from llm_mde_train.losses import LossWeights
from llm_mde_train.recipe import SOURCES, Recipe
from llm_mde_train.sources import training_frames

RECIPES = Path(__file__).resolve().parents[2] / 'training' / 'recipes'


def written(folder: Path, text: str) -> Path:
    path = folder / 'recipe.yaml'
    path.write_text(text, encoding='utf-8')
    return path


def test_what_the_file_says_and_defaults_for_the_rest(tmp_path):
    recipe = Recipe.read(written(tmp_path, 'steps: 7\nsets: [a, b]\nlearning_rate: 1\n'))
    assert recipe == Recipe(steps=7, sets=['a', 'b'], learning_rate=1)
    assert Recipe.read(written(tmp_path, '')) == Recipe()


def test_a_recipe_survives_the_file(tmp_path):
    recipe = Recipe(train='lora', sets=['a'], steps=3)
    assert Recipe.read(written(tmp_path, yaml.safe_dump(asdict(recipe)))) == recipe


def test_overrides_of_the_preset(tmp_path):
    recipe = Recipe.read(written(tmp_path, 'overrides: {language: none, prompt: fixed}'))
    assert recipe.overrides == {'language': 'none', 'prompt': 'fixed'}


@pytest.mark.parametrize('path', sorted(RECIPES.glob('*.yaml')), ids=lambda path: path.name)
def test_recipes_that_come_with_the_package_are_valid(path):
    recipe = Recipe.read(path)
    assert recipe.training_data or recipe.start_from  # a model says what it has seen


def test_the_recipe_for_nyu_is_the_papers():
    recipe = Recipe.read(RECIPES / 'nyu.yaml')
    assert (recipe.preset, recipe.train, recipe.real_fraction) == ('paper', 'lora', 1.0)
    assert (recipe.learning_rate, recipe.final_learning_rate) == (1e-4, 1e-5)
    assert recipe.steps * recipe.batch_size == pytest.approx(50 * 795, rel=0.001)
    taught = asdict(LossWeights(**recipe.losses))
    assert {name for name, weight in taught.items() if weight} == {'silog', 'spread'}
    assert recipe.cut_depth > 0.0


def test_every_source_of_frames_can_be_named():
    options = set(inspect.signature(training_frames).parameters) - {'cache_bytes', 'told'}
    assert set(SOURCES) == options


def test_unknown_key_names_the_nearest_known(tmp_path):
    path = written(tmp_path, 'step: 7\n')
    with pytest.raises(ValueError, match="unknown key 'step': did you mean 'steps'"):
        Recipe.read(path)
    with pytest.raises(
        ValueError, match="unknown key 'zzz': known are preset, overrides, start_from"
    ):
        Recipe.read(written(tmp_path, 'zzz: 7\n'))


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('learning_rate: 1e-3', "learning_rate must be float, not '1e-3'.*write 1.0e-3"),
        ('steps: many', "steps must be int, not 'many'"),
        ('steps: 1.5', 'steps must be int, not 1.5'),
        ('sets: tum', "sets must be list, not 'tum'"),
        ('steps: 0', 'steps must be at least 1, not 0'),
        ('overrides: {promt: fixed}', "unknown key 'promt': did you mean 'prompt'"),
        (
            '{overrides: {prompt: fixed}, start_from: tiny}',
            "change a preset, not the model 'tiny'",
        ),
        ('{parts_from: {vision: tiny}, start_from: tiny}', "a preset, not the model 'tiny'"),
        ('parts_from: {visoin: tiny}', "unknown key 'visoin': did you mean 'vision'"),
        ('real_fraction: 1.5', 'real_fraction must lie in 0 to 1, not 1.5'),
        ('cut_depth: 2', 'cut_depth must lie in 0 to 1, not 2'),
        ('precision: fp16', "precision must be one of .*'bf16'.*, not 'fp16'"),
        ('bags: [{path: a, colour_topic: /c}]', "'colour_topic': did you mean 'color_topic'"),
        ('bags: [5]', 'a bag is a path, or a path with options, not 5'),
        ('bags: [{color_topic: /c}]', r"a bag needs its path, got only \['color_topic'\]"),
        ('losses: {silgo: 1.0}', "unknown key 'silgo': did you mean 'silog'"),
        ('frozen: [langage]', "unknown key 'langage': did you mean 'language'"),
        ('{frozen: [head], train: lora}', r"frozen \['head'\] is for train: all, not lora"),
        ('validation_frames: -1', 'validation_frames must not be negative, it is -1'),
        ('render_device: gpu', "render_device must be one of .*'cuda'.*, not 'gpu'"),
        ('train: head', "train must be one of .*'lora'.*, not 'head'"),
    ],
)
def test_a_value_that_cannot_work_is_named(text, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        Recipe.read(written(tmp_path, text))
