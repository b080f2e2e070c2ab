"""`llm-mde-train evaluate`, as users run it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from training.bag_files import BASE_NS, STEP_NS, BagFile
from training.conftest import plain_sample
from typer.testing import CliRunner

from llm_mde_core import DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_train.adapted_parts import make_adaptable, save_adapter
from llm_mde_train.cli import app
from llm_mde_train.commands import evaluate as command
from llm_mde_train.evaluate import evaluate
from llm_mde_train.folders import read_index
from llm_mde_train.metrics import METRICS, known_depth


def run(*arguments: object):
    return CliRunner().invoke(app, ['evaluate', '--device', 'cpu', *map(str, arguments)])


@pytest.fixture
def judge(tmp_path, tiny_model_dir):
    """Return a function that judges a model of random weights and returns the figures."""
    report = tmp_path / 'report.json'

    def figures(*arguments: object) -> dict:
        judged = run('--model', tiny_model_dir, '--json', report, *arguments)
        assert judged.exit_code == 0, judged.output
        return json.loads(report.read_text())

    return figures


def test_figures_are_those_of_the_library(judge, index, tiny_model_dir):
    found = judge('--index', index, '--sets', 'kitchen_train,office')
    estimator = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu')
    expected = evaluate(estimator, read_index(index))
    assert found['mean'] == pytest.approx(expected['mean'])
    assert list(found['scenes']) == ['kitchen', 'office']
    for scene, values in found['scenes'].items():
        assert values == pytest.approx(expected[scene])
    assert found['sets']['office'] == pytest.approx(expected['office'])
    assert list(found['sets']) == ['kitchen_train', 'office']
    assert [frame['set'] for frame in found['frames']] == ['kitchen_train'] * 2 + ['office']
    assert found['frames'][0]['frame'] == '0_rgb.png'
    assert found['constant_m'] == 2.0


def test_table_fits_into_80_columns(index, tiny_model_dir):
    shown = run('--model', tiny_model_dir, '--index', index, '--sets', 'kitchen_train,office')
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    for text in ('kitchen', 'office', 'mean over scenes', '2.00 m everywhere'):
        assert text in ' '.join(shown.output.split())


def test_adapter_and_what_it_learned_from_are_named(index, tiny_model_dir, tmp_path):
    model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    out = tmp_path / 'kitchen'
    save_adapter(make_adaptable(model, train='head'), out, model='')
    frames = read_index(index, sets=['kitchen_train'])
    stamps = [frame.stamp_ns for frame in frames]
    (out / 'provenance.json').write_text(
        json.dumps({'shot_stamps_ns': stamps, 'scenes': ['kitchen']})
    )
    arguments = ('--model', tiny_model_dir, '--index', index, '--sets', 'kitchen_train,office')
    shown = run(*arguments, '--adapter', out)
    assert shown.exit_code == 0, shown.output
    assert f'with{out},metres' in ''.join(shown.output.split())  # a long path is folded
    assert 'Warning: 2 of these frames taught the adapter' in shown.output
    assert 'Warning' not in run(*arguments).output


def test_page_has_pictures_of_every_frame(judge, index, tmp_path):
    path = tmp_path / 'report.html'
    judge('--index', index, '--sets', 'kitchen_train,office', '--html', path)
    html = path.read_text(encoding='utf-8')
    assert html.count('data:image/jpeg') == 3 * 5  # three frames, five pictures each
    assert '0_rgb.png: AbsRel' in html


def test_constant_comes_from_the_sets_asked_for(judge, index):
    found = judge('--index', index, '--sets', 'kitchen_train', '--constant-from', 'office')
    assert found['constant_m'] == 4.0
    assert found['constant']['kitchen']['abs_rel'] == pytest.approx(np.mean([3.0, 1.0]))


def test_scenes_can_be_left_out(judge, index, tiny_model_dir):
    arguments = ('--index', index, '--sets', 'kitchen_train,office')
    found = judge(*arguments, '--leave-out', 'office')
    assert list(found['scenes']) == ['kitchen']
    assert list(found['sets']) == ['kitchen_train']
    nothing = run('--model', tiny_model_dir, *arguments, '--leave-out', 'office, kitchen')
    assert nothing.exit_code == 1
    assert 'no frame with known depth' in nothing.output


def test_bag_up_to_its_depth(judge, tmp_path):
    with BagFile(tmp_path / 'hall', 'mcap') as bag:
        bag.frames(3)
    (tmp_path / 'hall' / 'hall_1.mcap').touch()  # a long recording is several files
    found = judge('--bag', tmp_path / 'hall', '--max-depth', 1.0015)  # the third lies beyond
    assert list(found['scenes']) == list(found['sets']) == ['hall']
    assert len(found['frames']) == 2
    assert set(METRICS) <= set(found['frames'][0])
    assert [frame['frame'] for frame in found['frames']] == [
        f'{BASE_NS} ns',
        f'{BASE_NS + STEP_NS} ns',
    ]


@pytest.mark.parametrize(
    ('option', 'reader', 'usual'),
    [('--nyu', 'read_nyu', 'eigen'), ('--kitti', 'read_kitti', 'garg')],
)
def test_benchmarks_bring_their_crop(judge, tmp_path, monkeypatch, option, reader, usual):
    """Most of what counts is 3 m away, most of the whole image 1 m."""
    depth_m = np.ones((480, 640), np.float32)
    depth_m[known_depth(depth_m, max_depth_m=10.0, crop=usual)] = 3.0
    depth_m[:, ::5] = depth_m[:, 2::5] = 1.0
    sample = plain_sample(depth_m, width=640, height=480, scene='bench')
    monkeypatch.setattr(command, reader, lambda *_, **__: [sample])
    file = tmp_path / 'list.txt'
    file.touch()
    found = judge(option, file)
    assert found['crops'] == {option.removeprefix('--'): usual}
    assert (np.median(depth_m), found['constant_m']) == (1.0, 3.0)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--sets', 'offce'], "no set 'offce'"),
        (['--sets', ''], 'say what to judge on'),
        (
            ['--sets', 'kitchen_train,office', '--leave-out', 'office,kitchn'],
            "no scene 'kitchn' to leave out: there are kitchen, office",
        ),
        (['--sets', 'office', '--crop', 'eigen'], 'the Eigen crop is of 480 x 640 pixels'),
        (['--sets', 'office', '--crop', 'egen'], "crop must be one of ('none', 'eigen', 'garg')"),
        (['--sets', 'office', '--model', 'nowhere'], "no model 'nowhere'"),
        (['--sets', 'office', '--adapter', 'nowhere'], 'no adapter in nowhere'),
    ],
)
def test_what_users_can_mend_is_a_sentence(arguments, sentence, index, tiny_model_dir):
    failed = run('--index', index, '--model', tiny_model_dir, *arguments)
    assert failed.exit_code == 1
    assert f'Error: {sentence}' in failed.output


def test_sets_need_an_index():
    failed = run('--sets', 'office')
    assert failed.exit_code == 1
    assert 'where are the sets office? Give --index' in failed.output
