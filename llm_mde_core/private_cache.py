"""Folders of this user alone: whoever could write what is kept there would have it run here."""

from __future__ import annotations

import logging
import os
from pathlib import Path
import stat
import tempfile

logger = logging.getLogger(__name__)
INDUCTOR, TRITON = 'TORCHINDUCTOR_CACHE_DIR', 'TRITON_CACHE_DIR'
_for_this_process: list[tempfile.TemporaryDirectory[str]] = []  # removed at its end


def private_folder(*names: str) -> Path:
    """
    Return llm_mde_ros/`names` in the user's cache ($XDG_CACHE_HOME, ~/.cache), made if need be.

    Raises OSError when it cannot be made, or belongs to somebody else.
    """
    folder = _user_cache()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ('llm_mde_ros', *names):
        folder /= name
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f'{folder} is no folder of this user: remove it')
        folder.chmod(0o700)
    return folder


def compile_privately() -> None:
    """
    Have torch keep what it compiles in a private folder, unless somebody has chosen another one.

    It would keep it in /tmp, in a folder that any user could have made, and it unpickles it. Where
    no private folder can be made, one for this process is.
    """
    if not _is_torchs_own(os.environ.get(INDUCTOR)):
        return
    try:
        folder = private_folder('compiled')
    except OSError as error:
        logger.warning('What is compiled is not kept for the next start: %s', error)
        _for_this_process.append(tempfile.TemporaryDirectory(prefix='llm_mde_ros_'))
        folder = Path(_for_this_process[-1].name)
    os.environ[INDUCTOR] = str(folder)
    os.environ.setdefault(TRITON, str(folder / 'triton'))


def _is_torchs_own(folder: str | None) -> bool:
    """Return whether nobody chose the folder; torch notes its own choice when it is imported."""
    if folder is None:
        return True
    path = Path(folder)
    return path.name.startswith('torchinductor_') and path.parent == Path(tempfile.gettempdir())


def _user_cache() -> Path:
    chosen = Path(os.environ.get('XDG_CACHE_HOME', ''))
    if chosen.is_absolute():  # the standard has others ignored
        return chosen
    try:
        return Path.home() / '.cache'
    except RuntimeError as error:
        raise FileNotFoundError(f'this user has no home folder: {error}') from error
