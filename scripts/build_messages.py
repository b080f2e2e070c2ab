"""Build the messages of msg/ from the ROS 2 wheels into the virtual environment that runs this.

On a ROS machine colcon does it: colcon build --base-paths . msg
"""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile

import numpy

PACKAGE = Path(__file__).resolve().parents[1] / 'msg'
PREFIX = Path(sys.prefix)

# Include folders of the machine that built the wheels, left in the CMake files that they export.
BUILDER_NUMPY = re.compile(r'/opt/python/[^;"\s]*/numpy/_core/include')
BUILDER_PYTHON = re.compile(r'/opt/python/[^;"\s]*/include/python3\.\d+')


def with_own_includes(text: str) -> str:
    """Replace the builder's include folders in a CMake file by this environment's."""
    text = BUILDER_NUMPY.sub(lambda _: numpy.get_include(), text)
    return BUILDER_PYTHON.sub(lambda _: sysconfig.get_path('include'), text)


def mend_wheels() -> None:
    """Make the CMake files of the installed wheels fit this environment (again: no change)."""
    for path in sorted((PREFIX / 'share').glob('**/*.cmake')):
        text = path.read_text()
        mended = with_own_includes(text)
        if mended != text:
            path.write_text(mended)


def build() -> None:
    """Configure, build and install with CMake; its output is shown only when it fails."""
    programs = f'{PREFIX / "bin"}{os.pathsep}{os.environ["PATH"]}'
    environment = os.environ | {'AMENT_PREFIX_PATH': str(PREFIX), 'PATH': programs}
    cmake = shutil.which('cmake', path=programs)
    if cmake is None:
        sys.exit('cmake is missing: pip install cmake')
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            f'-DCMAKE_INSTALL_PREFIX={PREFIX}',
            f'-DPython3_EXECUTABLE={sys.executable}',
            '-DBUILD_TESTING=OFF',
        ]
        for step in (
            ['-S', str(PACKAGE), '-B', folder, *settings],
            ['--build', folder, '--parallel', str(os.cpu_count() or 1)],
            ['--install', folder],
        ):
            result = subprocess.run(
                [cmake, *step],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if result.returncode:
                sys.exit(f'{result.stdout}\nllm_mde_msgs could not be built (see above)')


def main() -> None:
    """Mend the wheels and build, in a virtual environment only."""
    if sys.prefix == sys.base_prefix:
        sys.exit('scripts/build_messages.py writes into its environment: run it from a venv')
    mend_wheels()
    build()


if __name__ == '__main__':
    main()
