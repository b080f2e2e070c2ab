"""Recipes, and where the data that they name lie on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from llm_mde_train.recipe import Recipe


def read_recipe(path: Path, *, index: Path | None, nyu: Path | None) -> Recipe:
    """Read a recipe whose places are replaced by those given; ValueError for sets of nowhere."""
    places = {name: str(place) for name, place in (('index', index), ('nyu', nyu)) if place}
    recipe = replace(Recipe.read(path), **places)
    if recipe.sets and not recipe.index:
        raise ValueError(f'the recipe trains on {recipe.sets}: say where with --index')
    return recipe
