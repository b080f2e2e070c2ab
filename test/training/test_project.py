"""The training project asks for what the package it trains asks for."""

from __future__ import annotations

from pathlib import Path
import re

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(r"'([a-z-]+)(>=[^']+)'")


def bounds(path: Path) -> dict[str, str]:
    return dict(REQUIREMENT.findall(path.read_text(encoding='utf-8')))


def test_shared_requirements_have_the_same_bounds():
    ours, theirs = bounds(ROOT / 'training' / 'pyproject.toml'), bounds(ROOT / 'setup.py')
    shared = ours.keys() & theirs.keys()
    assert shared >= {'numpy', 'peft', 'rosbags', 'safetensors', 'torch', 'transformers', 'typer'}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
