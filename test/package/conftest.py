"""The package installed in the two ways that users install it, each into a folder of its own."""

from collections.abc import Iterator, Mapping
import os
from pathlib import Path
import subprocess
import sys
import sysconfig

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a command; return its output, or fail with it."""
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, stdout=-1, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def clean_environment() -> dict[str, str]:
    """Return the environment without another installation's paths, our programs first."""
    foreign = {'AMENT_PREFIX_PATH', 'COLCON_PREFIX_PATH', 'PYTHONPATH'}
    env = {name: value for name, value in os.environ.items() if name not in foreign}
    return env | {'PATH': f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'}


@pytest.fixture(scope='session')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what git knows or would take, so that nothing is built in the clone."""
    folder = tmp_path_factory.mktemp('workspace') / 'src' / 'llm_mde_ros'
    listing = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    names = subprocess.check_output(listing, cwd=ROOT, text=True).split('\0')
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
            (folder / name).chmod((ROOT / name).stat().st_mode)
    return folder


@pytest.fixture(scope='session')
def colcon_prefix(source: Path, messages_build: object) -> Path:
    """Return install/llm_mde_ros of a colcon build of the root; that of msg/ goes on beside it."""
    workspace = source.parents[1]
    run('colcon', 'build', '--base-paths', source, cwd=workspace, env=clean_environment())
    return workspace / 'install' / 'llm_mde_ros'


@pytest.fixture(scope='session')
def messages_build(source: Path) -> Iterator[subprocess.Popen[str] | None]:
    """Start a colcon build of msg/ against ROS or its wheels, in the background: compilers."""
    sourced = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    prefixes = [prefix for prefix in (*sourced, sys.prefix) if prefix]
    if not any(Path(p, 'share/rosidl_default_generators').is_dir() for p in prefixes):
        yield None
        return
    path = os.pathsep.join(prefixes)
    env = clean_environment() | {'AMENT_PREFIX_PATH': path, 'CMAKE_PREFIX_PATH': path}
    settings = ['--cmake-args', f'-DPython3_EXECUTABLE={sys.executable}', '-DBUILD_TESTING=OFF']
    workspace = source.parents[1] / 'messages'
    workspace.mkdir()
    command = ['colcon', 'build', '--base-paths', source / 'msg', *settings]
    with (workspace / 'colcon.log').open('w') as log:
        build = subprocess.Popen(command, cwd=workspace, env=env, stdout=log, stderr=log)
    yield build
    build.kill()
    build.wait()


@pytest.fixture(scope='session')
def messages_prefix(source: Path, messages_build: subprocess.Popen[str] | None) -> Path:
    """Return install/llm_mde_msgs of a colcon build of msg/."""
    if messages_build is None:
        pytest.skip('rosidl_default_generators is not installed')
    workspace = source.parents[1] / 'messages'
    assert messages_build.wait(300) == 0, (workspace / 'colcon.log').read_text()
    return workspace / 'install' / 'llm_mde_msgs'


@pytest.fixture(scope='session')
def pip_prefix(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prefix of a pip install of the repository's root."""
    prefix = tmp_path_factory.mktemp('pip')
    pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation']
    here = ['--ignore-installed', '--no-warn-script-location', '--prefix', prefix]
    run(*pip, *here, source, cwd=source, env=clean_environment())
    return prefix


@pytest.fixture(scope='session')
def pip_environment(pip_prefix: Path) -> dict[str, str]:
    """Return an environment in which the pip install stands before everything else."""
    variables = {'base': str(pip_prefix), 'platbase': str(pip_prefix)}
    packages = sysconfig.get_path('purelib', vars=variables)
    return clean_environment() | {'PYTHONPATH': packages, 'AMENT_PREFIX_PATH': str(pip_prefix)}


@pytest.fixture(scope='session')
def colcon_environment(colcon_prefix: Path) -> dict[str, str]:
    """Return the environment that sourcing setup.bash gives."""
    command = f'. {colcon_prefix.parent}/setup.bash && env -0'
    output = run('bash', '-c', command, cwd=colcon_prefix, env=clean_environment())
    return dict(line.split('=', 1) for line in output.split('\0') if '=' in line)
