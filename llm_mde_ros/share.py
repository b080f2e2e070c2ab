"""Where installed packages keep their files: share/<package> of an ament prefix."""

import os
from pathlib import Path
import sys


def share_file(package: str, name: str) -> Path:
    """
    Return share/<package>/<name> of the first prefix that has it.

    The prefixes are those of AMENT_PREFIX_PATH and, because wheels set no variable, the Python
    environment. FileNotFoundError with what was searched.
    """
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    candidates = [Path(prefix, 'share', package, name) for prefix in filter(None, prefixes)]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f'None of these exists: {", ".join(map(str, candidates))}')


def config_file(name: str) -> Path:
    """Return a file of this package's config folder, in the source tree or installed."""
    source = Path(__file__).parents[1] / 'config' / name
    return source if source.exists() else share_file('llm_mde_ros', f'config/{name}')
