"""The benchmark with ROS: a real camera, node and subscriber, each a process."""

from __future__ import annotations

import json
from multiprocessing import Pipe
import os
from pathlib import Path
import subprocess
import sys
import time

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from llm_mde_core.bench.__main__ import parser
from llm_mde_core.bench.options import BenchOptions, names, numbers
from llm_mde_core.bench.report import NODE_FIGURES
from llm_mde_ros.bench_listener import Listener
from llm_mde_ros.bench_node import OVERHEAD, cpu_s, first_with_weights, overhead_ms, stages_of
from llm_mde_ros.cli import app
from llm_mde_ros.frame_times import STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = """
import json, sys
from llm_mde_ros.bench_node import NodeBenchOptions, measure_node
options = NodeBenchOptions(model=sys.argv[1], width=64, height=48, frames=10, flood_s=0.5)
print(json.dumps(measure_node(options, say=lambda sentence: None)))
"""


def test_ten_frames_through_the_real_node(tiny_model_dir: Path) -> None:
    # a process of its own, because it sets the environment of ROS
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get('PYTHONPATH', '')]))
    done = subprocess.run(
        [sys.executable, '-c', RUN, str(tiny_model_dir)],
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    full, half = json.loads(done.stdout.splitlines()[-1])
    assert (full['stride'], half['stride']) == (1, 2)
    for figures in (full, half):
        stages, latency, flood = figures['stages_ms'], figures['latency_ms'], figures['flood']
        assert figures['frames'] == 10
        assert stages['network']['p50'] > 0
        # what the node does lies between the stamp and the subscriber
        assert 0 < figures['overhead_ms']['sum_of_p50'] < latency['p95']
        assert figures['overhead_ms'] == overhead_ms(stages)
        assert flood['sent'] == flood['depth'] + flood['skipped'] >= 10
        assert flood['depth'] > 0
        assert flood['cpu_percent'].keys() == {'node', 'publisher', 'subscriber'}
        assert flood['cpu_percent']['node'] > 0


def test_stages_are_read_from_the_diagnostics() -> None:
    values = {
        f'{stage} p50, p95, p99 [ms]': f'{n}.5, 20.0, 30.0' for n, stage in enumerate(STAGES)
    }
    stages = stages_of(values)
    assert list(stages) == list(STAGES)
    assert stages[STAGES[1]] == {'p50': 1.5, 'p95': 20.0, 'p99': 30.0}


def test_what_the_node_adds_are_the_medians_of_what_is_not_the_network() -> None:
    stages = {stage: {'p50': 2.0**n, 'p95': 999.0} for n, stage in enumerate(STAGES)}
    # wait, decode, camera, preprocess, network, postprocess, outputs, publish
    assert overhead_ms(stages) == {'sum_of_p50': 2 + 4 + 64 + 128}
    assert f'sum of {", ".join(OVERHEAD)}' in NODE_FIGURES


def test_a_dead_subscriber_is_told() -> None:
    ours, theirs = Pipe()
    theirs.close()
    with pytest.raises(RuntimeError, match='subscriber process has ended'):
        next(Listener(0, ours).arrivals(timeout_s=1.0))


def test_processor_time_is_that_of_the_process() -> None:
    until_s = time.process_time() + 0.2
    before_s = cpu_s(os.getpid())
    while time.process_time() < until_s:
        pass
    assert cpu_s(os.getpid()) - before_s == pytest.approx(0.2, abs=0.05)


def test_the_node_gets_the_first_model_that_has_weights(tiny_model_dir: Path) -> None:
    assert first_with_weights(('paper', str(tiny_model_dir), 'tiny')) == str(tiny_model_dir)
    with pytest.raises(ValueError, match='add tiny'):
        first_with_weights(('paper', 'small'))


def test_both_command_lines_have_the_same_options_and_defaults() -> None:
    with_ros = {
        flag: option.default
        for option in get_command(app).commands['bench'].params
        for flag in option.opts
    }
    without = {flag for action in parser()._actions for flag in action.option_strings}
    without = {flag.replace('--no-memory', '--memory') for flag in without}
    assert without - {'-h', '--help'} == with_ros.keys() - {'--ros'}
    defaults = BenchOptions()
    for field in ('models', 'precisions', 'compile'):
        assert names(with_ros[f'--{field}']) == getattr(defaults, field)
    for field in ('sizes', 'inputs', 'batches'):
        assert numbers(with_ros[f'--{field}']) == getattr(defaults, field)
    assert with_ros['--seconds'] == defaults.seconds


def test_the_command_explains_itself_and_ends_errors_with_a_sentence(tmp_path: Path) -> None:
    assert 'Usage' in CliRunner().invoke(app, ['bench', '--help']).output
    broken = tmp_path / 'broken.json'
    broken.write_text('{')
    result = CliRunner().invoke(app, ['bench', '--compare', str(broken), str(broken)])
    assert result.exit_code == 1
    assert 'is no report of the benchmark' in result.output
    assert 'Traceback' not in result.output
