"""The benchmark: what it compares with, what it counts, what it concludes."""

from __future__ import annotations

import json
from mmap import mmap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import DepthAnythingForDepthEstimation

from llm_mde_core.bench import clock, command, references
from llm_mde_core.bench.__main__ import main
from llm_mde_core.bench.case import AUTHORS, AUTHORS_AT_OUR_INPUT, DEPTH_ANYTHING, Case
from llm_mde_core.bench.clock import Timing, measure
from llm_mde_core.bench.contenders import open_contender
from llm_mde_core.bench.memory import peak_memory_mib, soak
from llm_mde_core.bench.options import BenchOptions, numbers, plan_cases
from llm_mde_core.bench.report import comparison_text, ratios
from llm_mde_core.bench.roofline import Rates, Work, count_work

CPU = torch.device('cpu')


@pytest.fixture
def case(tiny_model_dir: Path) -> Case:
    return Case(model=str(tiny_model_dir), width=64, height=48)


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, 'TURN_S', 0.0)


# Work and limit


def test_work_of_a_product_is_counted_once_per_weight() -> None:
    layer = nn.Linear(30, 50, bias=False).requires_grad_(False)
    rows = torch.rand(20, 30)
    work = count_work(lambda: layer(rows) + layer(rows))
    assert work.flop == 2 * (2 * 20 * 30 * 50)
    weights, inputs, results = 30 * 50, 20 * 30, 2 * 20 * 50
    assert work.numbers == weights + inputs + 2 * results


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_work_of_convolution_and_fused_attention(mode: type) -> None:
    convolution = nn.Conv2d(3, 8, kernel_size=3, padding=1).requires_grad_(False)
    query, key = torch.rand(1, 2, 5, 4), torch.rand(1, 2, 7, 4)

    def run() -> None:
        with mode():
            convolution(torch.rand(1, 3, 10, 12))
            nn.functional.scaled_dot_product_attention(query, key, key)

    products = 2 * (10 * 12) * (3 * 8 * 9)
    attention = 2 * (2 * 2 * 5 * 7 * 4)
    assert count_work(run).flop == products + attention


def test_what_a_first_call_computes_for_good_is_no_work(case: Case) -> None:
    run = open_contender(case).run
    assert count_work(run) == count_work(run)


def test_the_slower_of_computing_and_moving_is_the_limit() -> None:
    work = Work(flop=4e9, numbers=1e9)
    assert work.limit_s(Rates('fp32', flop_per_s=2e9, bytes_per_s=8e9)) == 2.0
    assert work.limit_s(Rates('fp32', flop_per_s=2e9, bytes_per_s=1e9)) == 4.0
    assert work.limit_s(Rates('bf16', flop_per_s=2e9, bytes_per_s=0.5e9)) == 4.0


# Measuring


@pytest.mark.usefixtures('short_turns')
def test_every_contender_has_its_turns_and_all_stages_are_kept() -> None:
    order = []

    def contender(name: str) -> dict[str, float]:
        order.append(name)
        return {'network': 1.0, 'total': len(order)}

    timings = measure({n: lambda n=n: contender(n) for n in 'ab'}, seconds=0.0)
    assert ''.join(order) == 'ab' + 'aaabbb' * 3  # first each is compiled
    assert timings['a'].samples_s.keys() == {'network', 'total'}
    counted = [4.0, 5.0, 10.0, 11.0, 16.0, 17.0]  # of three runs of a turn the last two
    assert timings['a'].samples_s['total'] == counted
    assert timings['a'].runs == 6
    assert timings['a'].energy_j is None


def test_a_turn_of_a_fast_contender_lasts_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def run() -> dict[str, float]:
        nonlocal now_s
        now_s += 0.0625
        return {'total': 0.0625}

    monkeypatch.setattr(clock, 'time', SimpleNamespace(perf_counter=lambda: now_s))
    assert measure({'a': run}, seconds=0.0)['a'].runs == 3 * 8


@pytest.mark.usefixtures('short_turns')
def test_energy_is_that_of_the_own_runs_that_count() -> None:
    used_j = 0.0

    def run(joule: float) -> dict[str, float]:
        nonlocal used_j
        used_j += joule
        return {'total': 1.0}

    timings = measure(
        {'a': lambda: run(1.0), 'b': lambda: run(100.0)}, seconds=0.0, energy_j=lambda: used_j
    )
    assert timings['a'].energy_j == timings['a'].runs == 6
    assert timings['b'].energy_j == 600.0


def test_percentiles_are_milliseconds_of_the_samples() -> None:
    timing = Timing()
    for hundredth in range(101):
        timing.add({'total': hundredth / 100})
    assert timing.percentiles_ms() == {'total': {'p50': 500.0, 'p95': 950.0, 'p99': 990.0}}
    assert timing.p50_s == 0.5


@pytest.mark.parametrize('door', ['frame', 'network'])
def test_a_model_folder_is_measured_through_both_doors(tiny_model_dir: Path, door: str) -> None:
    case = Case(model=str(tiny_model_dir), width=60, height=45, door=door, batch=2)
    contender = open_contender(case)
    stages = contender.run()
    assert contender.input_size == (64, 48)  # whole patches of 16 pixels
    assert stages['total'] > 0
    if door == 'frame':
        assert sum(s for n, s in stages.items() if n != 'total') == pytest.approx(stages['total'])


def test_depth_anything_gets_as_many_pixels_as_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, '_depth_anything_network', lambda: Echo())
    contender = open_contender(Case(model=DEPTH_ANYTHING, width=640, height=480))
    width, height = contender.input_size
    assert (width % 14, height % 14) == (0, 0)
    assert width * height == pytest.approx(192 * 144, rel=0.05)
    assert contender.run()['total'] > 0


def test_depth_anything_gets_its_image_as_tiny_does(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Echo()
    monkeypatch.setattr(references, '_depth_anything_network', lambda: network)
    open_contender(Case(model=DEPTH_ANYTHING, width=640, height=480)).run()
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    levels = 255 * (network.pixels * std + mean)
    # whole: the image was shrunk as bytes, which is many times faster than as floats
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.round().unique().numel() > 100


def test_depth_anything_is_v2_small() -> None:
    with torch.device('meta'):
        network = DepthAnythingForDepthEstimation(references.depth_anything_config()).eval()
        depth = network(torch.empty(1, 3, 140, 196)).predicted_depth
    # 24,785,089 in the published weights
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(24.8e6, rel=0.005)
    assert depth.shape == (1, 140, 196)


def test_the_authors_way_is_also_measured_at_the_input_of_paper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(references, '_authors_network', lambda size: Echo())
    theirs, at_ours = (
        open_contender(Case(model=model, width=640, height=480))
        for model in (AUTHORS, AUTHORS_AT_OUR_INPUT)
    )
    assert (theirs.input_size, at_ours.input_size) == ((224, 224), (208, 160))


class Echo(nn.Module):
    """Answers with the first channel of its input, as Depth Anything answers with depth."""

    def forward(self, pixels: torch.Tensor) -> Echo:
        self.pixels = pixels
        self.predicted_depth = pixels[:, 0]
        return self


def test_memory_of_a_case_is_that_of_its_own_process(case: Case) -> None:
    big = torch.ones(2**28)  # 1 GiB here
    assert 50 < peak_memory_mib(case) < 1024
    del big


def test_a_soak_sees_memory_that_is_kept() -> None:
    def fresh_mib() -> mmap:  # not memory that an earlier test of this process gave back
        memory = mmap(-1, 2**20)
        memory.write(bytes(2**20))
        return memory

    kept = []
    leaking = soak(lambda: kept.append(fresh_mib()), frames=100, device=CPU)
    assert [done for done, _ in leaking] == list(range(10, 101, 10))
    assert leaking[-1][1] - leaking[0][1] == pytest.approx(90, abs=20)
    flat = soak(fresh_mib, frames=25, device=CPU)
    assert abs(flat[-1][1] - flat[0][1]) < 5
    assert flat[-1][0] == 25
    with pytest.raises(ValueError, match='at least 10'):
        soak(lambda: None, frames=9, device=CPU)


# Plan and report


def test_the_plan_holds_every_combination_and_the_references_once() -> None:
    options = BenchOptions(
        models=('tiny', 'paper'),
        sizes=(640, 320),
        inputs=(224,),
        batches=(1, 16),
        precisions=('fp32', 'bf16'),
        device='cpu',
    )
    cases = plan_cases(options)
    assert len(cases) == len(set(cases)) == 2 + 2 + 8 + 8
    authors = [case for case in cases if case.model in (AUTHORS, AUTHORS_AT_OUR_INPUT)]
    assert [case.precision for case in authors] == ['fp32', 'fp32']
    anything = [case for case in cases if case.model == DEPTH_ANYTHING]
    assert {case.width for case in authors + anything} == {640}
    assert {case.batch for case in cases if case.door == 'frame'} == {1}
    assert {(c.width, c.height) for c in cases if c.door == 'network'} == {(224, 168)}
    defaults = plan_cases(BenchOptions(models=('small',), device='cpu'))
    assert [(c.precision, c.compile) for c in defaults] == [('fp32', 'off')]


def row(model: str, ms: float, **other: object) -> dict[str, object]:
    fields = {
        'model': model,
        'door': 'frame',
        'width': 640,
        'height': 480,
        'batch': 1,
        'precision': 'fp32',
        'compile': 'off',
    }
    return {**fields, **other, 'ms': {'total': {'p50': ms, 'p95': ms, 'p99': ms}}}


def test_ratios_say_how_many_times_faster_we_are() -> None:
    rows = [
        row(AUTHORS, 2000.0),
        row(AUTHORS_AT_OUR_INPUT, 1600.0),
        row('paper', 500.0),
        row('paper', 400.0, precision='bf16', compile='on'),
        row('paper', 1.0, width=320),  # another image than the reference's
        row('paper', 1.0, door='network'),
    ]
    assert ratios(rows) == {
        'paper_vs_authors_fp32': 4.0,
        'paper_vs_authors_best': 5.0,
        'paper_vs_authors_fp32_equal_input': 3.2,
        'paper_vs_authors_best_equal_input': 4.0,
        'tiny_vs_depth_anything_small': None,
        'node_overhead_ms': None,
    }
    others = [row(DEPTH_ANYTHING, 300.0), row(DEPTH_ANYTHING, 200.0, compile='on')]
    ours = [row('tiny', 90.0), row('tiny', 50.0, compile='on'), row('tiny', 1.0, compile='onnx')]
    assert ratios([*others, *ours])['tiny_vs_depth_anything_small'] == 4.0
    assert ratios([*others, ours[0]])['tiny_vs_depth_anything_small'] == pytest.approx(3.333)


def test_a_comparison_finds_the_same_cases_and_their_ratio() -> None:
    def report(commit: str, rows: list[dict[str, object]], ratio: float) -> dict[str, object]:
        return {'commit': commit, 'machine': {}, 'rows': rows, 'ratios': {'some_ratio': ratio}}

    before = report('aaa', [row('tiny', 90.0), row('paper', 7.0)], 2.0)
    after = report('bbb', [row('small', 7.0), row('tiny', 30.0)], 5.0)
    text = comparison_text(before, after)
    lines = {line.split(',')[0].split()[0]: line for line in text.splitlines() if line}
    assert lines['tiny'].split()[-3:] == ['90', '30', '3']
    assert lines['some_ratio'].split()[-3:] == ['2', '5', '2.5']
    assert 'paper' not in text
    assert 'small' not in text


@pytest.mark.parametrize('text', ['0', '3,-1', 'x'])
def test_numbers_must_be_positive(text: str) -> None:
    with pytest.raises(ValueError, match=r'positive|invalid'):
        numbers(text)
    assert numbers('1,16') == (1, 16)


# The command


@pytest.mark.usefixtures('short_turns')
def test_the_command_writes_a_report_that_it_can_compare(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / 'report.json'
    model = ('--models', str(tiny_model_dir), '--device', 'cpu', '--seconds', '0')
    lists = ('--sizes', '64,32', '--inputs', '64', '--batches', '1,2', '--no-memory')
    main([*model, *lists, '--json', str(path)])
    text = capsys.readouterr().out
    report = json.loads(path.read_text())
    assert {'time', 'machine', 'versions', 'commit', 'rates', 'rows', 'ratios'} <= report.keys()
    assert [(r['door'], r['width'], r['batch']) for r in report['rows']] == [
        ('frame', 64, 1),
        ('frame', 32, 1),
        ('network', 64, 1),
        ('network', 64, 2),
    ]
    for figures in report['rows']:
        assert 0 < figures['ms']['total']['p50'] <= figures['ms']['total']['p99']
        assert figures['gflop'] > 0
        assert figures['limit_ms'] > 0
        assert figures['runs'] == 6
    one, two = report['rows'][2:]
    assert two['gflop'] == pytest.approx(2 * one['gflop'], rel=0.05)
    assert str(report['rows'][0]['input'][0]) in text
    assert 'runs' in text
    main(['--compare', str(path), str(path)])
    assert 'times faster' in capsys.readouterr().out


NODE = {
    'stride': 1,
    'frames': 50,
    'latency_ms': {'p50': 40.0, 'p95': 45.0, 'p99': 50.0},
    'stages_ms': {'decode': {'p50': 1.5}, 'network': {'p50': 30.0}},
    'overhead_ms': {'sum_of_p50': 6.75},
    'flood': {
        'sent': 150,
        'depth': 120,
        'skipped': 30,
        'images_per_s': 24.0,
        'cpu_percent': {'node': 190, 'publisher': 5, 'subscriber': 10},
    },
}


def test_what_the_node_adds_is_among_the_ratios(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(options: BenchOptions, *, say: object) -> dict[str, object]:
        empty = {name: {} for name in ('machine', 'versions', 'rates')}
        return {**empty, 'commit': 'aaa', 'rows': [], 'ratios': ratios([])}

    monkeypatch.setattr(command, 'run_bench', nothing)
    half = {**NODE, 'stride': 2, 'overhead_ms': {'sum_of_p50': 4.25}}
    command.bench(
        BenchOptions(),
        out=tmp_path / 'report.json',
        say=lambda sentence: None,
        measure_node=lambda: [NODE, half],
    )
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['ratios']['node_overhead_ms'] == 6.75  # of the full cloud
    assert report['node'] == [NODE, half]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ['node_overhead_ms', '6.75'] in lines
    assert ['images', 'one', 'by', 'one', '50', '50'] in lines


def test_errors_are_sentences(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / 'a.json').write_text('{}')
    for arguments in (
        ['--compare', str(tmp_path / 'a.json'), str(tmp_path / 'a.json')],
        ['--models', 'no_such_model'],
        ['--device', 'abacus'],
        ['--models', str(tiny_model_dir), '--json', str(tmp_path / 'no' / 'folder.json')],
        ['--models', str(tiny_model_dir), '--sizes', '64', '--soak', '3'],
    ):
        with pytest.raises(SystemExit, match='Error: '):
            main(arguments)
