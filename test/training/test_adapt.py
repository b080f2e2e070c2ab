"""Few-shot adaptation from frames to the adapter's folder, its report and its command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import json
from pathlib import Path

import numpy as np
from peft import PeftModel
import pytest
import torch
from training.bag_files import BASE_NS, CAMERA, STEP_NS, BagFile
from training.conftest import small_rooms
from typer.testing import CliRunner

from llm_mde_core import DepthEstimator
from llm_mde_train import adapt_report
from llm_mde_train.adapt import Adaptation, adapt
from llm_mde_train.adapted_parts import LAST_LAYER
from llm_mde_train.cli import app
from llm_mde_train.few_shot_trainer import Tuning, Validation
from llm_mde_train.held_out import HeldOut, judge, predictor
from llm_mde_train.samples import Sample

QUICK = Tuning(
    steps=10,
    validations=2,
    warmup_steps=1,
    shots_per_batch=3,
    replay_per_batch=1,
    lora_rate=0.01,
    rate=0.01,
    ema_decay=0.8,
)


def recording(count: int, *, seed: int = 1) -> list[Sample]:
    """Return frames of a room whose depth shows in their colour, later ones darker."""
    frames = []
    for i, room in enumerate(small_rooms(seed, count)):
        scale = 1.0 + 0.5 * i / count
        frames.append(
            replace(room, depth_m=room.depth_m * np.float32(scale), scene='lab', stamp_ns=i)
        )
    return frames


@pytest.fixture(scope='module', autouse=True)
def cheap_rooms() -> Iterator[None]:
    """Render nothing."""
    with pytest.MonkeyPatch.context() as patch:
        rooms = 'llm_mde_train.adapt_material.rendered_samples'
        patch.setattr(rooms, lambda seed, count: small_rooms(seed, 2))
        yield


@pytest.fixture(scope='module')
def adapt_to(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return a function that adapts the small model and returns the result and its folder."""

    def run(frames: list[Sample], **changes: object) -> tuple[Adaptation, Path]:
        options = {
            'out': tmp_path_factory.mktemp('adapt') / 'lab',
            'model': str(tiny_model_dir),
            'shots': 4,
            'recording': 'lab.mcap',
            'tuning': QUICK,
            'device': 'cpu',
        }
        options |= changes
        return adapt(frames, **options), options['out']

    return run


@pytest.fixture(scope='module')
def trained(adapt_to) -> tuple[Adaptation, Path]:
    return adapt_to(recording(12))


def test_the_adapter_in_the_folder_is_the_one_that_was_judged(trained, tiny_model_dir):
    result, out = trained
    assert result.after.mean('abs_rel') < 0.8 * result.before.mean('abs_rel')
    assert len(result.material.shots) == 4
    loaded = DepthEstimator.from_pretrained(tiny_model_dir, adapter=out, device='cpu')
    again = judge(predictor(loaded), result.material.test)
    assert again.mean('abs_rel') == pytest.approx(result.after.mean('abs_rel'), rel=1e-6)
    assert [s.stamp_ns for s in result.material.test] == [9, 10, 11]


def test_test_frames_teach_nothing(trained, adapt_to):
    """Honest figures: other test frames give the same adapter to the byte."""
    result, out = trained
    other = [
        replace(f, rgb=255 - f.rgb, depth_m=f.depth_m * 3) if f.stamp_ns >= 9 else f
        for f in recording(12)
    ]
    other_result, other_out = adapt_to(other)
    assert other_result.before.mean('abs_rel') != result.before.mean('abs_rel')
    one, two = (folder / 'adapter_model.safetensors' for folder in (out, other_out))
    assert one.read_bytes() == two.read_bytes()


def test_a_recording_that_cannot_be_judged_is_refused_before_training(adapt_to, monkeypatch):
    monkeypatch.setattr('llm_mde_train.adapt._learn', lambda *_, **__: pytest.fail('it trains'))
    blind = [
        replace(f, depth_m=f.depth_m * np.float32(np.nan)) if f.stamp_ns >= 9 else f
        for f in recording(12)
    ]
    with pytest.raises(ValueError, match='none of 3 held-out frames knows any depth'):
        adapt_to(blind)
    monkeypatch.setattr('llm_mde_train.adapt.find_model', lambda *_, **__: pytest.fail('it loads'))
    with pytest.raises(ValueError, match=r"train must be one of .*, not 'everything'"):
        adapt_to(recording(12), train='everything')


def test_an_older_adapter_stays_until_the_new_one_is_judged(trained, adapt_to, monkeypatch):
    _, out = trained
    old = (out / 'adapter_model.safetensors').read_bytes()
    told: list[tuple[str, float]] = []

    def stop(what: str, done: float) -> None:
        told.append((what, done))
        if what == 'judging the adapted model' and done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt_to(recording(12), out=out, train='scale_shift', notify=stop)
    assert (out / 'adapter_model.safetensors').read_bytes() == old
    judged = [done for what, done in told if what == 'judging the model as it is']
    assert judged == sorted(judged)
    assert len(judged) == 1 + 4 * 3 + 2  # the start, four predictors of three frames, replay
    assert judged[-1] == 1.0


@pytest.mark.parametrize(('times', 'better'), [(2.0, True), (0.5, False)])
def test_scale_and_shift_are_kept_only_when_validation_agrees(
    times, better, adapt_to, monkeypatch
):
    def fit(network: PeftModel, *_: object) -> None:
        last = network.get_base_model().get_submodule(LAST_LAYER).modules_to_save['default']
        with torch.no_grad():
            last.bias[0] += 0.5  # farther

    monkeypatch.setattr('llm_mde_train.adapt.fit_scale_shift', fit)
    frames = [replace(f, depth_m=f.depth_m * np.float32(times)) for f in recording(12)]
    result, _ = adapt_to(frames, train='scale_shift')
    before, after = (validation.abs_rel for validation in result.history)
    assert (after < before) is better
    assert result.best_step == (1 if better else 0)
    changed = result.after.mean('abs_rel') != pytest.approx(result.before.mean('abs_rel'))
    assert changed is better
    assert result.fitted_numbers == 2
    words = adapt_report.teaching(result)
    assert words.startswith('Two numbers')
    assert words.endswith('so they are used.' if better else 'so the model is left as it was.')
    assert words in adapt_report.page(result)


def test_missing_shots_are_told(trained, adapt_to):
    assert adapt_report.shortage(trained[0]) == ''
    few, _ = adapt_to(recording(12), train='scale_shift', shots=9)
    assert few.shots_asked == 9
    assert 'Only 7 shots instead of 9' in adapt_report.remarks(few)[0]


def test_replay_that_is_given_is_used_and_judged(adapt_to):
    others = [replace(room, scene='nyu') for room in small_rooms(7, 6)]
    result, _ = adapt_to(recording(6), replay=others, train='scale_shift')
    assert [len(result.material.replay), len(result.material.unseen)] == [4, 2]
    assert {s.scene for s in result.material.replay + result.material.unseen} == {'nyu'}
    with pytest.raises(ValueError, match='replay needs at least two frames, there are 1'):
        adapt_to(recording(6), replay=others[:1])


def test_report_says_what_was_measured(trained):
    result, out = trained
    adapt_report.write(result, out)
    found = json.loads((out / 'metrics.json').read_text())
    assert set(found['baselines']) == {'constant', 'pixel_median', 'scale_shift'}
    for figures in (found['before'], found['after'], *found['baselines'].values()):
        assert {'abs_rel', 'rmse', 'delta1'} <= set(figures)
    assert found['after']['abs_rel'] == result.after.mean('abs_rel')
    assert found['frames']['test'] == 3
    assert set(found['forgetting']) == {'before', 'after'}
    origin = json.loads((out / 'provenance.json').read_text())
    assert origin['shot_stamps_ns'] == [s.stamp_ns for s in result.material.shots]
    assert len(origin['model_sha256']) == 64
    assert origin['recording'] == 'lab.mcap'
    assert 'lab.mcap' in (out / 'report.html').read_text()
    page = (out / 'report.html').read_text()
    assert page.count('data:image/jpeg') == 6 * len(result.pictures) == 18
    assert 'src="http' not in page
    assert f'<strong>{adapt_report.verdict(result)[:9]}' in page
    assert 'shot_stamps_ns' not in page
    for judged in (result.after, *result.baselines.values()):
        assert f'{judged.mean("abs_rel"):.3f}' in page


def at(judged: HeldOut, **figures: float) -> HeldOut:
    """Return the same judgement with other figures of all frames."""
    return replace(judged, errors=[errors | figures for errors in judged.errors])


def test_verdict_is_plain(trained):
    result, _ = trained
    best = replace(result, after=at(result.after, abs_rel=0.01))
    assert best.worthwhile
    assert adapt_report.verdict(best).startswith('Worth it: AbsRel 0.010')
    name, figure = best.best_rival
    tied = replace(result, after=at(result.after, abs_rel=0.97 * figure))
    assert tied.worthwhile
    assert adapt_report.verdict(tied).startswith('Hardly worth it: AbsRel')
    worst = replace(result, after=at(result.after, abs_rel=9.0))
    assert not worst.worthwhile
    assert adapt_report.verdict(worst).startswith('NOT worth it')
    assert 'Record more of the room' in adapt_report.verdict(worst)
    name, figure = worst.best_rival
    assert figure == min(j.mean('abs_rel') for j in (result.before, *result.baselines.values()))
    assert adapt_report.TITLES[name] in adapt_report.verdict(worst)


def test_too_little_time_is_told(trained):
    made = trained[0].history[-1].step
    planned = {'tuning': {'steps': 40 * made, 'minutes': 1.0, 'patience': 4}}
    short = replace(trained[0], provenance=trained[0].provenance | planned)
    sentence = f'Only {made} of {40 * made} steps fitted into 1 minutes on this machine: give it'
    assert sentence in adapt_report.verdict(replace(short, after=at(short.after, abs_rel=9.0)))
    best = replace(short, after=at(short.after, abs_rel=0.01))
    assert 'Only' not in adapt_report.verdict(best)
    assert (
        f': {made} of {40 * made} steps. Kept are the weights after step {short.best_step}: '
        in ' '.join(adapt_report.remarks(short))
    )


def test_an_early_end_is_told_and_not_taken_for_too_little_time(trained):
    history = [Validation(number, 0.1, 0.2 if number == 1 else 0.5) for number in range(6)]
    planned = {'tuning': {'steps': 400, 'minutes': 1.0, 'patience': 4}}
    ended = replace(
        trained[0],
        history=history,
        provenance=trained[0].provenance | planned,
        after=at(trained[0].after, abs_rel=9.0),
    )
    assert ended.stopped_early
    words = '5 of 400 steps, until validation gained no more. Kept are the weights after step 1:'
    assert words in adapt_report.teaching(ended)
    assert 'Record more of the room' in adapt_report.verdict(ended)
    assert not replace(ended, history=history[:-1]).stopped_early


def test_forgetting_names_the_other_rooms(trained):
    assert 'on 2 rendered rooms AbsRel' in adapt_report.forgetting(trained[0])
    given = replace(trained[0], provenance={'replay': '6 given frames'})
    assert 'on 2 given frames of other rooms AbsRel' in adapt_report.forgetting(given)


def run(*arguments: object):
    return CliRunner().invoke(app, ['adapt', *(str(argument) for argument in arguments)])


def test_command_writes_adapter_and_report(index, tiny_model_dir, tmp_path):
    rows = index.read_text().splitlines()
    index.write_text('\n'.join([rows[0], *rows[1:3], rows[1]]) + '\n')  # three frames
    done = run(
        *('--index', index, '--set', 'kitchen_train', '--model', tiny_model_dir),
        *('--train', 'scale_shift', '--accept-worse', '--device', 'cpu'),
        *('--out', tmp_path / 'kitchen'),
    )
    assert done.exit_code == 0, done.output
    assert '1 held-out later frames' in done.output
    # No bar in a log file: a line for each quarter of what is being done.
    assert ' 50% judging the model as it is' in done.output
    assert done.output.count('picking shots') == 1
    origin = json.loads((tmp_path / 'kitchen' / 'provenance.json').read_text())
    assert origin['recording'] == 'index.csv, set kitchen_train'
    assert 'Only 1 shots instead of 16' in done.output
    assert sorted(path.name for path in (tmp_path / 'kitchen').iterdir()) == [
        'adapter_config.json',
        'adapter_model.safetensors',
        'metrics.json',
        'provenance.json',
        'report.html',
    ]


def test_command_adapts_to_a_bag(tiny_model_dir, tmp_path):
    with BagFile(tmp_path / 'hall', 'mcap') as bag:
        bag.frames(6)
    done = run(
        *('--bag', tmp_path / 'hall', '--model', tiny_model_dir, '--minutes', 0.01),
        *('--accept-worse', '--device', 'cpu', '--out', tmp_path / 'room'),
    )
    assert done.exit_code == 0, done.output
    origin = json.loads((tmp_path / 'room' / 'provenance.json').read_text())
    assert origin['recording'] == 'hall'
    assert origin['scenes'] == ['hall']
    assert set(origin['shot_stamps_ns']) < {BASE_NS + number * STEP_NS for number in range(6)}
    assert json.loads((tmp_path / 'room' / 'metrics.json').read_text())['steps'] >= 1
    estimator = DepthEstimator.from_pretrained(
        tiny_model_dir, adapter=tmp_path / 'room', device='cpu'
    )
    plain = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu')
    rgb = np.full((12, 16, 3), 90, np.uint8)
    assert (estimator.infer(rgb, CAMERA).depth_m != plain.infer(rgb, CAMERA).depth_m).any()


@pytest.mark.parametrize(
    ('after', 'options', 'status'), [(0.01, (), 0), (9.0, (), 3), (9.0, ('--accept-worse',), 0)]
)
def test_command_ends_with_3_when_a_baseline_is_better(
    after, options, status, trained, index, tmp_path, monkeypatch
):
    judged = at(trained[0].after, abs_rel=after)
    result = replace(trained[0], after=judged, pictures=trained[0].pictures[:1])
    monkeypatch.setattr('llm_mde_train.commands.adapt.run_adapt', lambda *_, **__: result)
    done = run('--index', index, '--set', 'office', '--out', tmp_path, *options)
    assert done.exit_code == status, done.output
    assert ('NOT worth it' in done.output) is (after > 1.0)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ((), 'either --bag, or --index with --set'),
        (('--index', 'INDEX'), 'say which set of'),
        (('--index', 'INDEX', '--set', 'office', '--model', 'nowhere'), "no model 'nowhere'"),
        (('--index', 'INDEX', '--set', 'office'), "scene 'office' has 1 frames with depth"),
        (('--index', 'INDEX', '--set', 'office', '--minutes', '0'), 'training needs time'),
        (('--index', 'INDEX', '--set', 'office', '--nyu', 'no.mat'), 'no.mat does not exist'),
    ],
)
def test_what_users_can_mend_is_a_sentence(arguments, sentence, index, tmp_path):
    arguments = [str(index) if a == 'INDEX' else a for a in arguments]
    failed = run(*arguments, '--out', tmp_path / 'room')
    assert failed.exit_code == 1
    assert sentence in failed.output.replace('\n', ' ')


def test_a_folder_of_other_things_is_not_written_into(index, tiny_model_dir, tmp_path):
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag' / 'metadata.yaml').touch()
    (tmp_path / 'file').touch()
    for out, words in (('bag', "'metadata.yaml', which is of no adapter"), ('file', 'is a file')):
        done = run(
            *('--index', index, '--set', 'kitchen_train', '--model', tiny_model_dir),
            *('--device', 'cpu', '--out', tmp_path / out),
        )
        assert done.exit_code == 1
        assert words in ' '.join(done.output.split())
    assert {path.name for path in (tmp_path / 'bag').iterdir()} == {'metadata.yaml'}
