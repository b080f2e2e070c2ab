from collections import Counter
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from rich.console import Console
import small_bags

from llm_mde_ros import demo
from llm_mde_ros.bags import BagReader
from llm_mde_ros.cli import demo_table
from llm_mde_ros.conversions import image_to_depth
from llm_mde_ros.true_depth import abs_rel

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_BAGS = REPOSITORY.parent / 'shared' / 'data' / 'bags'


def start_demo(*arguments: object) -> subprocess.Popen:
    """Start `llm-mde demo` as users do; one thread for the network, others work here too."""
    paths = [str(REPOSITORY), os.environ.get('PYTHONPATH', '')]
    environment = os.environ | {
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    }
    command = [sys.executable, '-m', 'llm_mde_ros.cli', 'demo', *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run_demo(*arguments: object) -> tuple[int, str]:
    """Return the exit status and all that was printed."""
    process = start_demo(*arguments)
    output, _ = process.communicate(timeout=150)
    return process.returncode, output


def node_processes(out: Path) -> list[int]:
    """Return the processes whose standard output is the node's log in this folder."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            log = os.readlink(process / 'fd' / '1')
        except OSError:
            continue
        if log == str(out / 'node.log'):
            found.append(int(process.name))
    return found


def test_demo_plays_a_bag_into_the_node_and_reports(tmp_path, tiny_model_dir):
    recorded = small_bags.camera(8, depth=True)
    assert recorded[-2].topic == small_bags.IMAGE
    recorded[-2].message.encoding = 'nonsense'  # no depth follows the last image
    bag = small_bags.write_rosbag2(tmp_path / 'bag', recorded)
    out = tmp_path / 'out'
    status, output = run_demo('--bag', bag, '--out', out, '--model', tiny_model_dir)
    assert status == 0, output

    report = json.loads((out / 'demo.json').read_text())
    assert report['frames_in'] == 8
    assert report['frames_in'] == report['frames_out'] + report['frames_skipped']
    assert report['frames_out'] >= 1
    assert report['node']['received'] == 8  # nothing was lost on the way to the node
    assert report['node']['dropped'] == 1
    assert report['node']['skipped'] + 1 == report['frames_skipped']
    assert 0 < report['latency_ms']['p50'] <= report['latency_ms']['p95'] < 60_000
    assert report['bag'] == 'bag'
    for words in ('images in', 'skipped', 'latency p95', 'AbsRel'):
        assert words in output

    with BagReader(out / 'bag') as recorded, BagReader(bag) as source:
        assert recorded.count('/depth/image') == report['frames_out']
        assert recorded.count(small_bags.IMAGE) == 8
        for topic in ('/depth/camera_info', '/depth/preview', '/points', '/confidence'):
            assert recorded.count(topic) == report['frames_out'], topic
        sent = {m.stamp_ns for m in source.messages([small_bags.IMAGE])}
        depths = list(recorded.messages(['/depth/image']))
        assert {m.stamp_ns for m in depths} <= sent
        true_m = image_to_depth(source.first(small_bags.DEPTH).decode())
        scores = [abs_rel(image_to_depth(m.decode()), true_m) for m in depths]
    np.testing.assert_allclose(report['abs_rel'], np.mean(scores), atol=1e-4)
    assert cv2.imread(str(out / 'demo.png')).shape == (1000, 1600, 3)
    assert sorted(p.name for p in out.iterdir()) == ['bag', 'demo.json', 'demo.png', 'node.log']
    assert node_processes(out) == []


def test_demo_of_a_compressed_bag_without_camera_info_or_true_depth(tmp_path, tiny_model_dir):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', [small_bags.jpeg(n) for n in range(3)])
    out = tmp_path / 'out'
    status, output = run_demo('--bag', bag, '--out', out, '--model', tiny_model_dir, '--rate', 2)
    assert status == 0, output
    report = json.loads((out / 'demo.json').read_text())
    assert report['frames_in'] == 3
    assert report['frames_out'] >= 1
    assert report['abs_rel'] is None


class Recording(SimpleNamespace):
    """What a Recorder knows after reports like those of the node."""

    def __init__(self, arrived: int, **counters: int) -> None:
        values = [
            KeyValue(key=k, value=str(counters.get(k, 0))) for k in ('received', *demo.FATES)
        ]
        report = DiagnosticArray(status=[DiagnosticStatus(values=values)])
        last = {demo.DIAGNOSTICS.name: serialize_message(report)}
        counts = Counter({demo.DEPTH_TOPIC: arrived})
        super().__init__(last=last, counts=counts, last_arrival_s=time.perf_counter())


def test_the_demo_waits_for_a_report_on_every_image_and_for_the_depth():
    is_complete = demo.is_complete
    assert is_complete(Recording(3, received=5, published=3, skipped=1, dropped=1), images=5)
    assert not is_complete(Recording(3, received=5, published=3, skipped=1), images=5)  # one busy
    assert not is_complete(Recording(3, received=4, published=3, skipped=1), images=5)  # one flies
    assert not is_complete(Recording(2, received=3, published=3), images=3)  # its depth flies
    assert not is_complete(SimpleNamespace(last={}), images=0)


def test_images_that_dds_has_lost_do_not_keep_the_demo_waiting(monkeypatch):
    monkeypatch.setattr(demo, 'SILENCE_S', 0.1)
    checks = []
    process = SimpleNamespace(check=lambda: checks.append(1))
    player = SimpleNamespace(published_s={1: 0.0, 2: 0.0}, last_publish_s=0.0)
    demo.wait_for_last_output(player, Recording(1, received=1, published=1), process)
    assert checks


def test_a_recording_is_not_replaced_by_its_own_replay(tmp_path):
    own = small_bags.write_rosbag2(tmp_path / 'out' / 'bag', small_bags.camera(1))
    for bag in (own, own / 'bag.mcap', tmp_path / 'out' / '..' / 'out' / 'bag'):
        with pytest.raises(ValueError, match='would be replaced'):
            demo.run_demo(demo.DemoOptions(bag=bag, out=tmp_path / 'out'))
    assert sorted(p.name for p in own.iterdir()) == ['bag.mcap', 'metadata.yaml']


def test_a_mistyped_bag_leaves_the_earlier_results(tmp_path):
    (tmp_path / 'demo.json').touch()
    with pytest.raises((ValueError, OSError), match='no_such_bag'):
        demo.run_demo(demo.DemoOptions(bag=tmp_path / 'no_such_bag', out=tmp_path))
    assert (tmp_path / 'demo.json').exists()


def test_demo_with_a_model_that_is_missing_says_so(tmp_path):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', small_bags.camera(1))
    status, output = run_demo('--bag', bag, '--out', tmp_path / 'out', '--model', 'no_such_model')
    assert status == 1
    assert 'no_such_model' in output
    assert 'Traceback' not in output
    assert node_processes(tmp_path / 'out') == []
    assert not (tmp_path / 'out' / 'bag').exists()


@pytest.mark.parametrize(
    ('number', 'playing'),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGKILL, False)],
)
def test_a_stopped_demo_leaves_no_node_behind(tmp_path, tiny_model_dir, number, playing):
    images = [small_bags.colour(n) for n in range(300)]  # the node warns: no camera_info
    bag = small_bags.write_rosbag2(tmp_path / 'bag', images)
    out = tmp_path / 'out'
    process = start_demo('--bag', bag, '--out', out, '--model', tiny_model_dir)
    wait_until(lambda: node_processes(out))
    if playing:
        wait_until(lambda: 'There is no camera_info' in (out / 'node.log').read_text())
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    wait_until(lambda: not node_processes(out))
    assert not (out / 'bag').exists()


def wait_until(condition, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_the_results_of_an_earlier_demonstration_are_removed(tmp_path):
    (tmp_path / 'bag').mkdir()
    (tmp_path / '.recording123').mkdir()
    for name in ('bag/bag.mcap', 'bag/metadata.yaml', 'demo.png', 'demo.json', 'diary.txt'):
        (tmp_path / name).touch()
    demo.remove_results(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ['diary.txt']


def test_what_is_not_ours_is_not_removed(tmp_path):
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag' / 'holiday.mcap').touch()
    with pytest.raises(ValueError, match=re.escape('holiday.mcap')):
        demo.remove_results(tmp_path)
    assert (tmp_path / 'bag' / 'holiday.mcap').exists()


def test_without_the_training_package_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.importlib.util, 'find_spec', lambda _name: None)
    with pytest.raises(RuntimeError, match='pip install -e training, or name a bag'):
        demo.render_bag(tmp_path / 'room', say=print)


@pytest.fixture
def shared_bag(request) -> Path:
    """Return a bag of real frames by its name."""
    bag = SHARED_BAGS / request.param
    if not bag.exists():
        pytest.skip(f'{bag} is not on this machine')
    return bag


@pytest.mark.parametrize('shared_bag', ['tum_fr1_rpy_mcap'], indirect=True)
def test_demo_of_a_real_bag(shared_bag, tmp_path, tiny_model_dir):
    out = tmp_path / 'out'
    arguments = ('--model', tiny_model_dir, '--rate', 0.3)
    status, output = run_demo('--bag', shared_bag, '--out', out, *arguments)
    assert status == 0, output
    report = json.loads((out / 'demo.json').read_text())
    assert report['frames_in'] == report['node']['received']
    assert report['frames_out'] >= 1
    assert report['abs_rel'] > 0


@pytest.mark.parametrize('shared_bag', ['icsl_corridor_db3'], indirect=True)
def test_adapted_to_a_real_bag_the_node_publishes_better_depth_of_it(shared_bag, tmp_path):
    """Few steps: what is asked is whether the way from bag to node works, not how well."""
    command = [sys.executable, '-m', 'llm_mde_train', 'adapt', '--bag', shared_bag]
    command += ['--minutes', '0.2', '--accept-worse', '--out', tmp_path / 'room']
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    subprocess.run(command, env=environment, check=True, timeout=300)
    abs_rels = []
    for name, more in (('before', ()), ('after', ('--adapter', tmp_path / 'room'))):
        arguments = ('--out', tmp_path / name, '--rate', 3, *more)
        status, output = run_demo('--bag', shared_bag, *arguments)
        assert status == 0, output
        abs_rels.append(json.loads((tmp_path / name / 'demo.json').read_text())['abs_rel'])
    before, after = abs_rels
    assert after < 0.9 * before


@pytest.mark.parametrize(('skipped', 'hints'), [(0, False), (3, True)])
def test_skipped_images_are_explained(skipped: int, hints: bool) -> None:
    report = {
        'bag': 'bag',
        'model': 'tiny',
        'adapter': 'out/my_room',
        'frames_in': 40,
        'frames_out': 40 - skipped,
        'frames_skipped': skipped,
        'player_behind_s': 0.0,
        'latency_ms': {'p50': 60.0, 'p95': 70.0},
        'abs_rel': None,
        'node': {'received': 40, 'skipped': skipped},
    }
    console = Console(record=True, width=200)
    console.print(demo_table(report))
    assert 'bag, model tiny, adapter out/my_room' in console.export_text(clear=False)
    assert ('--rate' in console.export_text()) == hints
