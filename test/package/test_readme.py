"""What the README says is so: tables, tree, commands, and the Python example, which runs."""

from pathlib import Path
import re
import runpy

import cv2
import numpy as np
import pytest

from llm_mde_core.model_files import find_model
from llm_mde_ros.interface import parameters_markdown, services_markdown, topics_markdown

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()


def code_blocks(language: str) -> list[str]:
    fences = re.findall(r'^```(.*?)\n(.*?)^```$', README, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in fences if name == language]


@pytest.mark.parametrize(
    ('name', 'table'),
    [
        ('topics', topics_markdown()),
        ('services', services_markdown()),
        ('parameters', parameters_markdown()),
    ],
)
def test_tables_are_the_generated_ones(name: str, table: str) -> None:
    assert table in README, f'paste the output of: python -m llm_mde_ros.interface {name}'


def test_every_link_and_folder_is_there() -> None:
    links = [link for link in re.findall(r'\]\(([^)]+)\)', README) if '://' not in link]
    tree = re.findall(r'^([a-z_]+/|[A-Z]+\.md) {2,}\S', README, flags=re.MULTILINE)
    assert len(links) >= 3
    assert len(tree) >= 8
    missing = [name for name in links + tree if not (ROOT / name).exists()]
    assert not missing


def test_every_file_of_the_picture_is_there() -> None:
    (picture,) = [block for block in code_blocks('') if 'image_to_rgb' in block]
    names = re.findall(r'\b([a-z_]+\.py)\b', picture)
    assert len(names) >= 9
    for name in names:
        assert any((ROOT / package / name).exists() for package in ('llm_mde_core', 'llm_mde_ros'))


def test_sixty_words_at_most_before_the_first_command() -> None:
    before = README.split('```bash')[0]
    assert len(re.sub(r'!?\[.*?\]\(.*?\)', '', before).split()) <= 60


@pytest.mark.parametrize('program', ['llm-mde', 'llm-mde-train'])
def test_every_command_and_option_exists(program: str) -> None:
    from typer.main import get_command

    if program == 'llm-mde':
        from llm_mde_ros.cli import app
    else:
        from llm_mde_train.cli import app
    commands = get_command(app).commands
    lines = re.findall(rf'^{program} (.*)$', '\n'.join(code_blocks('bash')), flags=re.MULTILINE)
    assert lines, f'the README shows no {program}'
    for line in lines:
        name, *words = line.split('#')[0].split()
        known = {flag for option in commands[name].params for flag in option.opts}
        assert {word for word in words if word.startswith('--')} <= known, line


def test_launch_arguments_exist() -> None:
    text = (ROOT / 'launch' / 'depth.launch.py').read_text()
    lines = [line for block in code_blocks('bash') for line in block.splitlines()]
    used = {
        name
        for line in lines
        if 'depth.launch.py' in line
        for name in re.findall(r'(\w+):=', line)
    }
    assert used
    for name in used:
        assert f"    '{name}': (" in text, name


def test_make_targets_exist() -> None:
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'^make (\w+)', '\n'.join(code_blocks('bash')), flags=re.MULTILINE):
        assert re.search(rf'^{target}:', makefile, flags=re.MULTILINE), target


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = code_blocks('python')
    assert find_model('tiny', allow_download=False)
    photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / 'photo.jpg'), photo)
    (tmp_path / 'example.py').write_text(example)
    monkeypatch.chdir(tmp_path)
    runpy.run_path('example.py')
    assert capsys.readouterr().out.startswith('(48, 64) ')
