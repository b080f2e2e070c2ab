"""The bundled checkpoint: small, complete, honest about its data, better than a constant."""

from conftest import SHARED_DATA
import numpy as np
import pytest
import torch

from llm_mde_core import Camera, DepthEstimator
from llm_mde_core.model_files import CHECKPOINTS
from llm_mde_train.evaluate import evaluate, evaluate_constant, median_depth_m
from llm_mde_train.folders import read_index
from llm_mde_train.room_layouts import sample_scene
from llm_mde_train.room_scene import Dice
from llm_mde_train.room_sensor import Sensor, expose
from llm_mde_train.rooms import render_scenes

FOLDER = CHECKPOINTS / 'tiny'


@pytest.fixture(scope='module')
def estimator() -> DepthEstimator:
    return DepthEstimator.from_pretrained('tiny', device='cpu')


def test_it_is_complete_and_small() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {'README.md', 'config.json', 'model.safetensors', 'tokenizer.json'} <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 30e6


def test_it_says_what_it_saw(estimator: DepthEstimator) -> None:
    info = estimator.info()
    assert info['training_data'] == 'rendered rooms (llm_mde_train.rooms)'
    assert info['license'] == 'Apache-2.0'


def test_it_says_what_it_sees(estimator: DepthEstimator) -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    prediction = estimator.infer(image, Camera.from_hfov(width=640, height=480, hfov_deg=62.0))
    assert 'estimate the depth of every patch' in prediction.prompt
    assert prediction.depth_class in prediction.prompt


def test_its_language_model_tells_patches_apart_and_is_heard(estimator: DepthEstimator) -> None:
    """One that says the same of every patch, as an earlier one did, only costs time."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    camera = Camera.from_hfov(width=640, height=480, hfov_deg=62.0)
    depth_m, language = estimator.infer(image, camera).depth_m, estimator.model.language
    said = []

    def say_the_mean(_module: object, _inputs: object, tokens: torch.Tensor) -> torch.Tensor:
        said.append(tokens)
        return tokens.mean(dim=1, keepdim=True).expand_as(tokens)

    hook = language.register_forward_hook(say_the_mean)
    without_m = estimator.infer(image, camera).depth_m
    hook.remove()
    assert said[0].std(dim=1).mean() > 0.1 * said[0].std()
    assert np.abs(without_m / depth_m - 1.0).mean() > 1e-3


def test_it_beats_a_constant_that_knows_the_answer_on_real_frames(
    estimator: DepthEstimator,
) -> None:
    index = SHARED_DATA / 'index.csv'
    if not index.exists():
        pytest.skip('the real frames are not here')
    frames = read_index(index, sets=['tum_rgbd', 'icsl_corridor'])
    ours = evaluate(estimator, frames)['mean']['abs_rel']
    constant = evaluate_constant(median_depth_m(frames), frames)['mean']['abs_rel']
    assert ours < 0.8 * constant


def middle_depth_m(estimator: DepthEstimator, seed: int, *, focal_px: float, scale: int) -> float:
    """Estimate the median depth of a fixed solid angle in the middle of a rendered room."""
    width, height = 320 * scale, 240 * scale
    camera = Camera(
        width=width, height=height, fx=focal_px * scale, fy=focal_px * scale,
        cx=(width - 1) / 2, cy=(height - 1) / 2,
    )  # fmt: skip
    scene, pose = sample_scene(Dice(seed))
    light, _ = render_scenes([scene], [pose], [camera])
    depth_m = estimator.infer(expose(light, [Sensor()], [Dice(seed)])[0].numpy(), camera).depth_m
    half = round(40 * camera.fx / 240.0)
    middle = depth_m[
        height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half
    ]
    return float(np.nanmedian(middle))


def test_a_finer_sensor_sees_the_same_metres(estimator: DepthEstimator) -> None:
    """The same scene at two focal lengths in pixels, because one camera has twice the pixels."""
    for seed in range(3):
        coarse = middle_depth_m(estimator, seed, focal_px=240.0, scale=1)
        fine = middle_depth_m(estimator, seed, focal_px=240.0, scale=2)
        assert fine == pytest.approx(coarse, rel=0.1)


def test_a_longer_lens_is_noticed(estimator: DepthEstimator) -> None:
    """
    The same scene through a lens that is a third longer: the metres stay about the same.

    Blind to its picture a network would put everything a third farther away.
    """
    changes = [
        np.log(
            middle_depth_m(estimator, seed, focal_px=320.0, scale=1)
            / middle_depth_m(estimator, seed, focal_px=240.0, scale=1)
        )
        for seed in range(12)
    ]
    assert np.median(np.abs(changes)) < 0.4 * np.log(4 / 3)


def test_model_card_names_command_and_data() -> None:
    card = (FOLDER / 'README.md').read_text()
    for words in (
        'fit training/recipes/tiny.yaml',
        'llm-mde-train evaluate',
        'Limits',
    ):
        assert words in card
