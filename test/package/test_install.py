"""What colcon and pip install, and that the node starts from there."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest
import rclpy
from rclpy.context import Context

from llm_mde_ros.dds_domain import free_domain_id

ROOT = Path(__file__).resolve().parents[2]
START_S = 240.0  # on a busy machine
INSTALLATIONS = ('colcon', 'pip')


def installation(request: pytest.FixtureRequest, kind: str) -> tuple[Path, dict[str, str]]:
    """Return the prefix of an installation and the environment to use it in."""
    prefix = request.getfixturevalue(f'{kind}_prefix')
    return prefix, dict(request.getfixturevalue(f'{kind}_environment'))


@pytest.fixture(params=INSTALLATIONS)
def installed(request: pytest.FixtureRequest) -> tuple[Path, dict[str, str]]:
    return installation(request, request.param)


def test_tree(installed: tuple[Path, dict[str, str]]) -> None:
    prefix, _ = installed
    share = prefix / 'share' / 'llm_mde_ros'
    assert (prefix / 'share/ament_index/resource_index/packages/llm_mde_ros').is_file()
    assert os.access(prefix / 'lib/llm_mde_ros/depth_node', os.X_OK)
    for name in ['llm-mde', 'depth_node']:
        assert os.access(prefix / 'bin' / name, os.X_OK)
    for folder in ['launch', 'config']:
        shipped = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
        assert {path.name for path in (share / folder).iterdir() if path.is_file()} == shipped
    assert (share / 'package.xml').is_file()


def test_every_module_and_checkpoint_is_installed(
    installed: tuple[Path, dict[str, str]], source: Path
) -> None:
    prefix, _ = installed
    (site,) = {path.parent for path in prefix.glob('**/site-packages/llm_mde_core')}
    for package in ['llm_mde_core', 'llm_mde_ros']:
        wanted = {path.relative_to(source) for path in (source / package).rglob('*')}
        assert wanted
        assert not [name for name in wanted if not (site / name).exists()]


def test_this_installation_is_the_one_imported(installed: tuple[Path, dict[str, str]]) -> None:
    prefix, env = installed
    command = 'import llm_mde_ros; print(llm_mde_ros.__file__)'
    path = subprocess.check_output(['python3', '-c', command], env=env, cwd=prefix, text=True)
    assert Path(path).is_relative_to(prefix)


def test_the_scripts_use_the_active_python(colcon_prefix: Path) -> None:
    scripts = [*(colcon_prefix / 'bin').iterdir(), colcon_prefix / 'lib/llm_mde_ros/depth_node']
    for script in scripts:
        assert script.read_text().startswith('#!/usr/bin/env python3\n')


def test_the_nodes_start_where_ros2_run_looks(request: pytest.FixtureRequest) -> None:
    domain = free_domain_id()
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    observer = rclpy.create_node('observer', context=context)
    arguments = ['--ros-args', '-p', 'autostart:=false', '-r']
    processes = []
    for kind in INSTALLATIONS:  # side by side, in a namespace each
        prefix, env = installation(request, kind)
        env |= {'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
        command = [prefix / 'lib/llm_mde_ros/depth_node', *arguments, f'__ns:=/{kind}']
        processes.append(
            subprocess.Popen(command, env=env, stdout=-1, stderr=subprocess.STDOUT, text=True)
        )
    wanted = {('depth_node', f'/{kind}') for kind in INSTALLATIONS}
    deadline_s = time.monotonic() + START_S
    try:
        while not wanted <= set(observer.get_node_names_and_namespaces()):
            if any(process.poll() is not None for process in processes):
                break
            assert time.monotonic() < deadline_s, 'a node did not appear'
            time.sleep(0.1)
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        observer.destroy_node()
        context.shutdown()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
        assert 'Traceback' not in output, output


def test_colcon_builds_the_messages(messages_prefix: Path) -> None:
    code = 'from llm_mde_msgs import msg; print(msg.__file__, msg.DepthStats(network_s=0.5))'
    command = f'. {messages_prefix.parent}/local_setup.bash && python3 -c "{code}"'
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = os.environ | {'PATH': path}
    output = subprocess.check_output(
        ['bash', '-c', command], cwd=messages_prefix, env=env, text=True
    )
    assert output.startswith(str(messages_prefix))
    assert 'network_s=0.5' in output
