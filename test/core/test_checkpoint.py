"""The bundled checkpoint: small, complete, honest about its data, better than a constant."""

from conftest import SHARED_DATA
import numpy as np
import pytest

from llm_mde_core import Camera, DepthEstimator
from llm_mde_core.estimator import CHECKPOINTS
from llm_mde_train.evaluate import evaluate, evaluate_constant, median_depth_m
from llm_mde_train.folders import read_index
from llm_mde_train.room_layouts import sample_scene
from llm_mde_train.room_scene import Dice
from llm_mde_train.room_sensor import Sensor, expose
from llm_mde_train.rooms import render_scenes

FOLDER = CHECKPOINTS / 'tiny'
SEEN_SCENES = ('tum_fr1_office_desk', 'snu_corridor')


@pytest.fixture(scope='module')
def estimator() -> DepthEstimator:
    return DepthEstimator.from_pretrained('tiny', device='cpu')


def test_it_is_complete_and_small() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {'README.md', 'config.json', 'model.safetensors', 'tokenizer.json'} <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 30e6


def test_it_says_what_it_saw(estimator: DepthEstimator) -> None:
    info = estimator.info()
    assert 'fr1_rpy' in info['training_data']
    assert 'ICSL' in info['training_data']
    assert 'CC BY 4.0' in info['license']


def test_it_says_what_it_sees(estimator: DepthEstimator) -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    prediction = estimator.infer(image, Camera.from_hfov(width=640, height=480, hfov_deg=62.0))
    assert 'estimate the depth of every patch' in prediction.prompt
    assert prediction.depth_class in prediction.prompt


def test_it_beats_a_constant_on_scenes_it_never_saw(estimator: DepthEstimator) -> None:
    index = SHARED_DATA / 'index.csv'
    if not index.exists():
        pytest.skip('the real frames are not here')
    unseen = [s for s in read_index(index, sets=['tum_rgbd']) if s.scene not in SEEN_SCENES]
    seen = read_index(index, sets=['tum_fr1_rpy_train', 'icsl_corridor_train'])
    ours = evaluate(estimator, unseen)['mean']['abs_rel']
    # A constant knows the frames of training, as the network does; the better one even the answer.
    for constant_m in (median_depth_m(seen), median_depth_m(unseen)):
        assert ours < evaluate_constant(constant_m, unseen)['mean']['abs_rel']


def test_another_lens_sees_the_same_metres(estimator: DepthEstimator) -> None:
    """Rendered rooms through two focal lengths: the metres agree where both look."""
    ratios = []
    for seed in range(6):
        scene, pose = sample_scene(Dice(seed))
        medians = []
        for focal_px in (240.0, 320.0):
            camera = Camera(width=320, height=240, fx=focal_px, fy=focal_px, cx=159.5, cy=119.5)
            light, _ = render_scenes([scene], [pose], [camera])
            rgb = expose(light, [Sensor()], [Dice(seed)])[0].numpy()
            depth_m = estimator.infer(rgb, camera).depth_m
            half = round(40 * focal_px / 240.0)  # the same solid angle in both
            middle = depth_m[120 - half : 120 + half, 160 - half : 160 + half]
            medians.append(np.median(middle))
        ratios.append(medians[1] / medians[0])
    # Blind to the lens, the longer one would see everything a quarter nearer.
    assert np.median(np.abs(np.log(ratios))) < 0.6 * np.log(4 / 3)


def test_model_card_names_command_and_data() -> None:
    card = (FOLDER / 'README.md').read_text()
    for words in (
        'llm-mde-train fit training/recipes/tiny.yaml',
        'llm-mde-train evaluate',
        'Limits',
    ):
        assert words in card
