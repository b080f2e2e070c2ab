"""Digests as sha256sum writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llm_mde_core.digests import SUMS, check_sums, sha256_of
from llm_mde_core.model_files import CHECKPOINTS


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'one').write_bytes(b'1' * 3_000_000)  # more than a block
    (tmp_path / 'two').write_bytes(b'2')
    lines = f'{digest(b"1" * 3_000_000)}  one\n{digest(b"2")} *two\n'
    (tmp_path / SUMS).write_text(lines)
    return tmp_path


def test_the_digest_of_files_is_that_of_all_their_bytes(folder: Path) -> None:
    assert sha256_of([folder / 'one']) == digest(b'1' * 3_000_000)
    assert sha256_of([folder / 'one', folder / 'two']) == digest(b'1' * 3_000_000 + b'2')


def test_the_files_that_it_was_written_for_pass(folder: Path) -> None:
    check_sums(folder)
    (folder / 'another').touch()
    check_sums(folder)
    (folder / SUMS).unlink()
    (folder / 'two').write_bytes(b'3')
    check_sums(folder)


@pytest.mark.parametrize('name', ['one', 'two'])
@pytest.mark.parametrize('change', [lambda file: file.write_bytes(b'0'), Path.unlink])
def test_another_or_missing_file_is_refused(folder: Path, name: str, change) -> None:
    change(folder / name)
    with pytest.raises(ValueError, match=f'{name} is not the file that .*{SUMS} was written for'):
        check_sums(folder)


@pytest.mark.parametrize('line', ['0  ../one', '0  /etc/passwd', '0', '\udcff  one'])
def test_a_line_that_names_nothing_of_the_folder_is_refused(folder: Path, line: str) -> None:
    (folder / SUMS).write_bytes(line.encode(errors='surrogateescape'))
    with pytest.raises(ValueError, match=SUMS):
        check_sums(folder)


def test_a_list_without_end_is_not_read(folder: Path) -> None:
    (folder / SUMS).write_bytes(b'\n' * 200_000)
    with pytest.raises(ValueError, match='too large'):
        check_sums(folder)


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'model.onnx'])
def test_a_file_that_would_be_read_must_be_listed(folder: Path, name: str) -> None:
    (folder / name).touch()
    with pytest.raises(ValueError, match=f'does not list {name}'):
        check_sums(folder)


def test_all_files_of_the_bundled_models_are_listed() -> None:
    for model in CHECKPOINTS.iterdir():
        assert (model / SUMS).is_file()
        check_sums(model)
