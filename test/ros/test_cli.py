import json
from pathlib import Path
import re

from conftest import small_config
import cv2
import numpy as np
import pytest
import small_bags
from typer.testing import CliRunner

from llm_mde_core import LLMMDEForDepthEstimation
from llm_mde_ros.bags import BagReader
from llm_mde_ros.cli import app


def run(*arguments: object, fails: bool = False) -> str:
    """Run the command and return all that it prints."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert bool(result.exit_code) == fails, result.output
    return result.output


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder of two images."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for number, name in enumerate(('a.png', 'b.jpg')):
        cv2.imwrite(str(folder / name), small_bags.picture(number)[..., ::-1])
    return folder


@pytest.fixture
def model(tiny_model_dir) -> tuple[str, ...]:
    return ('--model', str(tiny_model_dir), '--device', 'cpu')


def test_infer_writes_depth_preview_and_cloud_of_an_image(folder, tmp_path, model):
    out = tmp_path / 'out'
    said = run('infer', folder / 'a.png', '--out', out, '--hfov-deg', 60, '--ply', *model)
    assert '1 image done' in said
    assert sorted(p.name for p in out.iterdir()) == ['a.ply', 'a_depth.png', 'a_preview.png']
    depth_mm = cv2.imread(str(out / 'a_depth.png'), cv2.IMREAD_UNCHANGED)
    assert (depth_mm.dtype, depth_mm.shape) == (np.uint16, (48, 64))
    assert cv2.imread(str(out / 'a_preview.png')).shape == (48, 64, 3)
    x, y, z, colours = read_ply(out / 'a.ply')
    assert len(z) == (depth_mm > 0).sum() > 0
    np.testing.assert_allclose(np.sort(z), np.sort(depth_mm[depth_mm > 0]) / 1e3, atol=6e-4)
    # the point of the first pixel lies on its ray, with its colour
    assert depth_mm[0, 0] > 0
    focal_px = 32 / np.tan(np.radians(30))
    ray = np.array([-31.5, -23.5]) / focal_px
    np.testing.assert_allclose([x[0] / z[0], y[0] / z[0]], ray, rtol=3e-7)  # of two float32
    np.testing.assert_array_equal(colours[0], small_bags.picture(0)[0, 0])


def read_ply(path: Path) -> tuple[np.ndarray, ...]:
    """Read x, y, z and colours of a binary PLY as its header says."""
    header, _, body = path.read_bytes().partition(b'end_header\n')
    assert header.startswith(b'ply\nformat binary_little_endian 1.0\n')
    kinds = {'float': '<f4', 'uchar': 'u1'}
    fields = [(n, kinds[k]) for k, n in re.findall(r'property (\w+) (\w+)', header.decode())]
    vertex = np.frombuffer(body, fields)
    assert f'element vertex {len(vertex)}\n' in header.decode()
    colours = np.stack([vertex[name] for name in ('red', 'green', 'blue')], axis=1)
    return vertex['x'], vertex['y'], vertex['z'], colours


def test_infer_takes_a_folder_and_does_what_it_can(folder, tmp_path, model):
    (folder / 'c.png').write_bytes(b'this is no image')
    (folder / 'notes.txt').write_text('neither is this')
    out = tmp_path / 'out'
    said = run('infer', folder, '--out', out, '--hfov-deg', 60, *model, fails=True)
    assert 'c.png is no image' in said
    assert '2 images done' in said
    assert {p.name for p in out.glob('*_depth.png')} == {'a_depth.png', 'b_depth.png'}


def test_infer_keeps_images_of_the_same_name_apart(folder, tmp_path, model):
    cv2.imwrite(str(folder / 'a.bmp'), small_bags.picture(9))
    out = tmp_path / 'out'
    run('infer', folder, '--out', out, '--hfov-deg', 60, *model)
    names = {p.name for p in out.glob('*_depth.png')}
    assert names == {'a_bmp_depth.png', 'a_png_depth.png', 'b_depth.png'}


def test_infer_takes_a_video(tmp_path, model):
    video = tmp_path / 'walk.avi'
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV cannot write videos')
    for number in range(3):
        writer.write(small_bags.picture(number))
    writer.release()
    run('infer', video, '--out', tmp_path / 'out', '--hfov-deg', 60, *model)
    names = sorted(p.name for p in (tmp_path / 'out').glob('*_depth.png'))
    assert names == [f'walk_{number:06d}_depth.png' for number in range(3)]


def test_infer_uses_the_lens_that_is_given(folder, tmp_path, model):
    """Half the focal length is half the distance, as for any lens of the same image."""
    depths = {}
    for fx in (60, 30):  # not above that of the network's input: the image would be resized
        out = tmp_path / str(fx)
        lens = ('--fx', fx, '--fy', fx, '--cx', 31.5, '--cy', 23.5)
        run('infer', folder / 'a.png', '--out', out, *lens, *model)
        depths[fx] = cv2.imread(str(out / 'a_depth.png'), cv2.IMREAD_UNCHANGED)
    both = (depths[60] > 0) & (depths[30] > 0)
    assert both.any()
    assert np.median(depths[30][both] / depths[60][both]) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (('nothing.png', '--out', 'out'), 'does not exist'),
        (('notes.txt', '--out', 'out'), 'neither an image nor a video'),
        (('empty', '--out', 'out'), 'holds no images'),
        (('images', '--out', 'images'), 'another folder'),
        (('images', '--out', 'out', '--fx', '60'), 'give all four'),
        (
            ('images', '--out', 'out', '--hfov-deg', '60', '--fx=1', '--fy=1', '--cx=1', '--cy=1'),
            'either',
        ),
        (('images', '--out', 'out', '--model', 'no_such_model'), 'no_such_model'),
    ],
)
def test_infer_refuses_with_a_sentence(folder, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    Path('notes.txt').write_text('hello')
    Path('empty').mkdir()
    said = run('infer', *arguments, fails=True)
    assert sentence in said
    assert 'Traceback' not in said
    assert not Path('out').exists()


def test_replay_writes_what_is_asked_for(tmp_path, model):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', small_bags.camera(2))
    out = tmp_path / 'out'
    said = run(
        'replay', bag, '--out', out, '--no-points', '--confidence', '--namespace', 'm', *model
    )
    assert '2 images of /cam/image_raw' in said
    with BagReader(out) as made:
        assert set(made.topics) == {
            '/m/depth/image',
            '/m/depth/camera_info',
            '/m/depth/preview',
            '/m/confidence',
        }
    assert 'exists already' in run('replay', bag, '--out', out, *model, fails=True)


def test_replay_says_what_it_had_to_assume(tmp_path, model):
    bag = small_bags.write_rosbag2(tmp_path / 'bag', [small_bags.colour(0)])
    said = run('replay', bag, '--out', tmp_path / 'out', *model)
    assert 'Warning' in said
    assert 'no camera_info' in said


def test_info_shows_parts_and_is_json_if_asked(tiny_model_dir):
    result = CliRunner().invoke(app, ['info', str(tiny_model_dir), '--json'])
    facts = json.loads(result.stdout)
    said = run('info', tiny_model_dir)
    assert f'{facts["parameters_total"]:,}' in said
    for part in facts['parameters']:
        assert part in said


def test_every_command_explains_its_options():
    for command in ('infer', 'replay', 'info', 'demo'):
        assert 'Usage' in run(command, '--help')


def test_export_writes_a_model_that_infer_takes(folder, tokenizer, tmp_path):
    """Without a language model, too."""
    model, onnx = tmp_path / 'model', tmp_path / 'onnx'
    network = LLMMDEForDepthEstimation.create(small_config(language='none'), tokenizer)
    network.save_pretrained(model)
    said = run('export', model, '--out', onnx, '--width', 64, '--height', 48, '--fx', 55.4)
    assert re.search(r'differ from torch by at most \d\.\de-\d\d', said)
    depths_mm = []
    for name in (model, onnx):
        out = tmp_path / f'{name.name}_depth'
        run('infer', folder / 'a.png', '--out', out, '--hfov-deg', 60, '--model', name)
        depths_mm.append(cv2.imread(str(out / 'a_depth.png'), cv2.IMREAD_UNCHANGED))
    np.testing.assert_allclose(*depths_mm, atol=1)
    assert depths_mm[0].std() > 0

    other = ('infer', folder / 'a.png', '--out', tmp_path / 'no', '--hfov-deg', 20)
    said = run(*other, '--model', onnx, fails=True)
    assert f'llm-mde export {model} --width 64 --height 48 --hfov-deg 20.0000 --out' in said


@pytest.mark.parametrize('lens', [(), ('--hfov-deg', 60, '--fx', 55)])
def test_export_needs_one_lens(tmp_path, lens):
    size = ('--width', 64, '--height', 48)
    said = run('export', 'tiny', '--out', tmp_path / 'onnx', *size, *lens, fails=True)
    assert 'either --hfov-deg or --fx' in said
    assert not (tmp_path / 'onnx').exists()
