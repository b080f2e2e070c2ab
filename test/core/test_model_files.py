"""An index of weights may name safetensors of its own folder, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil

import pytest

from llm_mde_core import LLMMDEForDepthEstimation
from llm_mde_core.model_files import check_model_folder, find_model, pinned_model, read_object

INDEX = 'model.safetensors.index.json'


def test_a_model_saved_in_parts_is_fine(
    tiny_model: LLMMDEForDepthEstimation, tmp_path: Path
) -> None:
    tiny_model.save_pretrained(tmp_path, max_shard_size='50KB')
    assert (tmp_path / INDEX).exists()
    check_model_folder(tmp_path)
    LLMMDEForDepthEstimation.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    'part', ['pytorch_model.bin', '../other/model.safetensors', '/elsewhere/model.safetensors', 3]
)
def test_a_part_of_another_kind_or_place_is_refused(tmp_path: Path, part: object) -> None:
    (tmp_path / 'config.json').write_text('{"model_type": "llm_mde"}')
    (tmp_path / INDEX).write_text(json.dumps({'weight_map': {'head.weight': part}}))
    with pytest.raises(ValueError, match='only safetensors files of the same folder'):
        check_model_folder(tmp_path)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('', 'no JSON'),
        ('[]', 'no JSON object'),
        ('{}', 'no weight_map'),
        ('{"weight_map": 3}', 'no weight_map'),
        ('{"weight_map": {"a": []}}', 'only safetensors'),
        ('[' * 10**5, 'nested too deeply'),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / 'config.json').write_text('{"model_type": "llm_mde"}')
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ValueError, match=reason):
        check_model_folder(tmp_path)


@pytest.mark.parametrize('part', ['vision', 'language'])
def test_a_backbone_that_is_only_named_is_refused(
    tiny_model_dir: Path, tmp_path: Path, part: str
) -> None:
    config = json.loads((tiny_model_dir / 'config.json').read_text())
    config[f'{part}_name'] = 'someone/backbone'
    (tmp_path / 'config.json').write_text(json.dumps(config))
    check_model_folder(tmp_path)  # where the weights came from, and what they are
    del config[f'{part}_config']
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"'someone/backbone' in place of a {part}_config"):
        check_model_folder(tmp_path)


def test_a_model_of_the_hub_is_pinned_to_a_commit() -> None:
    commit = '0123456789abcdef' * 2 + '01234567'
    assert pinned_model(f'some-one/model_2.b@{commit}') == ('some-one/model_2.b', commit)


@pytest.mark.parametrize(
    'name', ['a/b', 'a/b@main', 'a/b@' + 'f' * 39, 'b@' + 'f' * 40, 'a/b/c@' + 'f' * 40, '']
)
def test_a_model_of_the_hub_without_a_commit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match='owner/name@commit'):
        pinned_model(name)


def test_only_the_hub_is_asked_and_only_for_what_is_read(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(tiny_model_dir)

    monkeypatch.setattr('llm_mde_core.model_files.snapshot_download', fetch)
    name = 'someone/model@' + 'f' * 40
    with pytest.raises(FileNotFoundError, match='allow_download'):
        find_model(name, allow_download=False)
    assert not asked
    assert find_model(name, allow_download=True) == str(tiny_model_dir)
    patterns = ['*.json', '*.safetensors', '*.txt', 'SHA256SUMS']
    assert asked == [('someone/model', 'f' * 40, patterns)]


def test_weights_under_another_name_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_model_dir / 'config.json').read_text())
    config['transformers_weights'] = 'sub/model.safetensors.index.json'
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'only model\.safetensors is read'):
        find_model(tmp_path, allow_download=False)


@pytest.mark.parametrize(
    ('name', 'size', 'limit'),
    [('config.json', 2 * 10**6, 1), (INDEX, 2 * 10**6, 1), ('tokenizer.json', 10**8, 64)],
)
def test_a_document_that_takes_long_to_parse_is_refused(
    tiny_model_dir: Path, tmp_path: Path, name: str, size: int, limit: int
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path, dirs_exist_ok=True)
    check_model_folder(tmp_path)
    with (tmp_path / name).open('a') as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=rf'{name} has \d+ MB, of at most {limit}$'):
        check_model_folder(tmp_path)


@pytest.mark.parametrize(
    'name', ['config.json', 'model.safetensors', 'tokenizer.json', 'chat_template.jinja']
)
def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    tiny_model_dir: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError)):
        find_model(tmp_path, allow_download=False)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'metrics.json')
    with pytest.raises(ValueError, match=r'metrics\.json is no regular file'):
        read_object(tmp_path / 'metrics.json')
    with pytest.raises(ValueError, match='is no regular file'):
        read_object(tmp_path)


def test_an_adapter_inside_of_a_model_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Transformers would have peft load it, whatever its file says."""
    shutil.copytree(tiny_model_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'adapter_config.json').write_text('{"peft_type": "LORA"}')
    with pytest.raises(ValueError, match='each needs a folder of its own'):
        check_model_folder(tmp_path)
