"""What is compiled is kept where no other user could have put something first."""

from __future__ import annotations

import logging
import os
from pathlib import Path
import stat
import tempfile

import pytest

from llm_mde_core.private_cache import INDUCTOR, TRITON, compile_privately, private_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where this user's cache is; it is not there yet."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    for name in (INDUCTOR, TRITON):
        monkeypatch.setenv(name, 'put back in the end')
        monkeypatch.delenv(name)
    return tmp_path / 'cache'


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_folder_is_this_users_alone(cache: Path) -> None:
    folder = private_folder('engines', 'abc')
    assert folder == cache / 'llm_mde_ros' / 'engines' / 'abc'
    for made in (cache, *folder.relative_to(cache).parents, folder.relative_to(cache)):
        assert mode_of(cache / made) == 0o700
    (folder / 'kept').touch()
    assert private_folder('engines', 'abc') == folder
    assert (folder / 'kept').exists()


def test_a_folder_that_others_may_write_to_is_closed() -> None:
    folder = private_folder('engines')
    for path in (folder, folder.parent):
        path.chmod(0o777)
    private_folder('engines')
    assert mode_of(folder) == mode_of(folder.parent) == 0o700


def test_a_folder_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = private_folder('engines')
    monkeypatch.setattr(os, 'geteuid', lambda: folder.stat().st_uid + 1)
    with pytest.raises(PermissionError, match='llm_mde_ros is no folder of this user'):
        private_folder('engines')


@pytest.mark.parametrize('what', ['link', 'file'])
def test_what_is_no_folder_is_refused(tmp_path: Path, what: str) -> None:
    folder = private_folder('engines')
    folder.rmdir()
    if what == 'link':
        (tmp_path / 'elsewhere').mkdir()
        folder.symlink_to(tmp_path / 'elsewhere')
    else:
        folder.touch()
    with pytest.raises(OSError, match='engines'):
        private_folder('engines')


@pytest.mark.parametrize('chosen', [None, '', 'relative'])
def test_without_a_choice_it_is_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.delenv('XDG_CACHE_HOME')
    if chosen is not None:
        monkeypatch.setenv('XDG_CACHE_HOME', chosen)
    assert private_folder() == tmp_path / '.cache' / 'llm_mde_ros'


@pytest.mark.parametrize('own', [None, f'{tempfile.gettempdir()}/torchinductor_me'])
def test_torch_keeps_what_it_compiles_in_a_private_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    """Also when it has noted its own folder, as it does where parts of it are imported."""
    if own is not None:
        monkeypatch.setenv(INDUCTOR, own)
    compile_privately()
    assert Path(os.environ[INDUCTOR]) == cache / 'llm_mde_ros' / 'compiled'
    assert mode_of(Path(os.environ[INDUCTOR])) == 0o700
    assert Path(os.environ[TRITON]).parent == Path(os.environ[INDUCTOR])
    compile_privately()
    assert Path(os.environ[INDUCTOR]) == cache / 'llm_mde_ros' / 'compiled'


def test_a_folder_that_somebody_chose_is_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INDUCTOR, '/somewhere/compiled')
    compile_privately()
    assert os.environ[INDUCTOR] == '/somewhere/compiled'
    assert TRITON not in os.environ  # torch puts it into the chosen one
    assert not cache.exists()


def test_without_a_private_folder_there_is_one_for_the_process(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text('no folder')
    with caplog.at_level(logging.WARNING):
        compile_privately()
    assert mode_of(Path(os.environ[INDUCTOR])) == 0o700
    assert not list(Path(os.environ[INDUCTOR]).iterdir())
    [record] = caplog.records
    assert 'not kept for the next start' in record.getMessage()
