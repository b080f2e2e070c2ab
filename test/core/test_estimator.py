"""The door for users: any size, metres on the image's grid, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
import shutil
import threading

import numpy as np
import pytest
import torch

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_core.device import choose_compile, choose_device, choose_precision, lay_out


@pytest.fixture(scope='module')
def estimator(tiny_model_dir: Path) -> DepthEstimator:
    return DepthEstimator.from_pretrained(tiny_model_dir, device='cpu')


def camera_of(image: np.ndarray, hfov_deg: float = 60.0) -> Camera:
    return Camera.from_hfov(width=image.shape[1], height=image.shape[0], hfov_deg=hfov_deg)


@pytest.mark.parametrize(('height', 'width'), [(48, 64), (37, 91), (200, 120), (5, 7)])
def test_outputs_are_on_the_grid_of_the_image(
    estimator: DepthEstimator, height: int, width: int
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    prediction = estimator.infer(image, camera_of(image))
    for output in (prediction.depth_m, prediction.confidence):
        assert output.shape == (height, width)
        assert output.dtype == np.float32
    config = estimator.model.config
    assert np.nanmax(prediction.depth_m) <= config.max_depth_m * (1 + 1e-5)
    assert (prediction.depth_m > 0).all()
    assert ((prediction.confidence >= 0) & (prediction.confidence <= 1)).all()
    assert prediction.prompt.endswith(f'the scene is {prediction.depth_class}.')
    assert set(prediction.stage_s) == {'preprocess', 'network', 'postprocess'}


def test_beyond_what_the_model_can_see_is_unknown(tiny_model_dir: Path, rgb: np.ndarray) -> None:
    """Never a large finite depth, which would be free space in front of a wall."""
    estimator = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu')
    assert np.isfinite(estimator.infer(rgb, camera_of(rgb)).depth_m).all()
    estimator.model.head.out[-1].bias[0] += 50.0
    assert np.isnan(estimator.infer(rgb, camera_of(rgb)).depth_m).all()


def test_another_lens_gives_other_metres(estimator: DepthEstimator, rgb: np.ndarray) -> None:
    """Defect 14: same pixels, twice the focal length, twice the distance."""
    near = Camera(width=64, height=48, fx=20.0, fy=20.0, cx=31.5, cy=23.5)
    far = Camera(width=64, height=48, fx=40.0, fy=40.0, cx=31.5, cy=23.5)
    near_m, far_m = (estimator.infer(rgb, camera).depth_m for camera in (near, far))
    unbounded = np.isfinite(far_m)
    assert unbounded.mean() > 0.5
    np.testing.assert_allclose(far_m[unbounded], 2.0 * near_m[unbounded], rtol=1e-3)


def test_resolution_alone_changes_no_metres(estimator: DepthEstimator, rgb: np.ndarray) -> None:
    """The same view with twice the pixels has twice the focal length and the same depth."""
    large = np.repeat(np.repeat(rgb, 2, axis=0), 2, axis=1)
    small_camera = camera_of(rgb)
    large_camera = small_camera.resized(width=128, height=96)
    small = estimator.infer(rgb, small_camera).depth_m
    enlarged = estimator.infer(large, large_camera).depth_m
    np.testing.assert_allclose(
        np.median(enlarged / np.repeat(np.repeat(small, 2, 0), 2, 1)), 1.0, atol=0.02
    )


def test_read_only_and_mirrored_images_are_taken(
    estimator: DepthEstimator, rgb: np.ndarray
) -> None:
    camera = camera_of(rgb)
    expected = estimator.infer(rgb, camera).depth_m
    frozen = rgb.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(estimator.infer(frozen, camera).depth_m, expected)
    twice_mirrored = np.ascontiguousarray(rgb[:, ::-1])[:, ::-1]
    np.testing.assert_array_equal(estimator.infer(twice_mirrored, camera).depth_m, expected)


def test_warming_up_leaves_nothing_to_do_for_the_first_image(estimator: DepthEstimator) -> None:
    camera = Camera.from_hfov(width=70, height=50, hfov_deg=60.0)
    before = len(estimator._frames)
    assert estimator.warm_up(camera) > 0.0
    assert len(estimator._frames) == before + 1
    estimator.infer(np.zeros((50, 70, 3), np.uint8), camera)
    assert len(estimator._frames) == before + 1


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((48, 64), np.uint8), r'uint8 \(H, W, 3\) RGB, got uint8 \(48, 64\)'),
        (np.zeros((48, 64, 3), np.float32), 'got float32'),
        (np.zeros((48, 65, 3), np.uint8), 'image is 65 x 48 but the camera is 64 x 48'),
    ],
)
def test_images_of_another_kind_are_refused(
    estimator: DepthEstimator, image: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.infer(image, Camera.from_hfov(width=64, height=48, hfov_deg=60.0))


def test_reduced_precision_stays_close(
    tiny_model_dir: Path, estimator: DepthEstimator, rgb: np.ndarray
) -> None:
    reduced = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu', precision='bf16')
    exact_m = estimator.infer(rgb, camera_of(rgb)).depth_m
    reduced_m = reduced.infer(rgb, camera_of(rgb)).depth_m
    assert reduced_m.dtype == np.float32
    assert not np.array_equal(reduced_m, exact_m)
    np.testing.assert_allclose(reduced_m, exact_m, rtol=0.1)


def test_weights_are_cast_once_and_the_outputs_are_those_of_autocast(
    tiny_model: LLMMDEForDepthEstimation,
) -> None:
    pixels, focal_px = torch.rand(1, 3, 48, 64), torch.tensor([55.0])
    tiny_model.requires_grad_(False)  # autocast casts trainable weights only once
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        expected = tiny_model(pixels, focal_px).predicted_depth
        lay_out(tiny_model, dtype=torch.bfloat16)
        cast = tiny_model(pixels, focal_px).predicted_depth
    torch.testing.assert_close(cast, expected, rtol=1e-3, atol=0)
    dtypes = {name: weight.dtype for name, weight in tiny_model.named_parameters()}
    assert dtypes['head.from_tokens.weight'] == torch.bfloat16
    assert dtypes['vision.backbone.layers.0.mlp.fc1.weight'] == torch.bfloat16
    assert dtypes['head.out.3.weight'] == torch.float32
    assert dtypes['head.norm.weight'] == torch.float32


def test_a_model_in_use_can_still_be_saved(
    tiny_model: LLMMDEForDepthEstimation, tmp_path: Path, rgb: np.ndarray
) -> None:
    """Safetensors refuses weights that lie with their channels last."""
    estimator = DepthEstimator(tiny_model, device='cpu')
    assert not tiny_model.head.out[1].weight.is_contiguous()
    tiny_model.save_pretrained(tmp_path)
    loaded = DepthEstimator.from_pretrained(tmp_path, device='cpu')
    np.testing.assert_array_equal(
        loaded.infer(rgb, camera_of(rgb)).depth_m, estimator.infer(rgb, camera_of(rgb)).depth_m
    )


def test_a_missing_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no model 'nowhere'.*bundled name.*allow_download"
    ):
        DepthEstimator.from_pretrained('nowhere')
    with pytest.raises(FileNotFoundError, match=r'config\.json'):
        DepthEstimator.from_pretrained(tmp_path)


def test_only_safetensors_are_read(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    model.save_pretrained(tmp_path)
    (tmp_path / 'model.safetensors').unlink()
    torch.save(model.state_dict(), tmp_path / 'pytorch_model.bin')
    with pytest.raises(OSError, match='safetensors'):
        DepthEstimator.from_pretrained(tmp_path, device='cpu')


def test_damaged_weights_say_so(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'damaged'
    shutil.copytree(tiny_model_dir, folder)
    weights = folder / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r'damaged .*get them again'):
        DepthEstimator.from_pretrained(folder, device='cpu')


@pytest.mark.parametrize(('name', 'value'), [('canonical_focal_px', 90.0), ('image_size', 128)])
def test_preprocessing_of_another_model_is_refused(
    tiny_model_dir: Path, tmp_path: Path, name: str, value: float
) -> None:
    folder = tmp_path / 'mixed'
    shutil.copytree(tiny_model_dir, folder)
    path = folder / 'preprocessor_config.json'
    own = json.loads(path.read_text())
    path.write_text(json.dumps(own | {name: value}))
    with pytest.raises(ValueError, match=f'says {name} {value}, config.json says {own[name]}'):
        DepthEstimator.from_pretrained(folder, device='cpu')
    path.unlink()  # config.json says it, too
    DepthEstimator.from_pretrained(folder, device='cpu')


def test_a_model_of_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="type 'bert', not 'llm_mde'"):
        DepthEstimator.from_pretrained(tmp_path, device='cpu')


def test_devices_and_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device('cpu')
    assert choose_device('cpu') == cpu
    for able, expected in (({}, 'fp32'), ({'avx512_bf16': True}, 'bf16')):
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda a=able: a)
        assert choose_precision('auto', cpu) == expected
    with pytest.raises(ValueError, match="'tpu'"):
        choose_device('tpu')
    with pytest.raises(ValueError, match="'fp8'"):
        choose_precision('fp8', cpu)
    assert not choose_compile('auto', cpu)
    assert choose_compile('on', cpu)
    with pytest.raises(ValueError, match="not 'yes'"):
        choose_compile('yes', cpu)
    for available, expected in ((True, 'bf16'), (False, 'fp16')):
        monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda a=available, **_: a)
        assert choose_precision('auto', torch.device('cuda')) == expected
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='sees 0 CUDA devices'):
            choose_device('cuda')


def test_info_counts_every_parameter(estimator: DepthEstimator) -> None:
    info = estimator.info()
    assert info['parameters_total'] == sum(p.numel() for p in estimator.model.parameters())
    assert set(info['parameters']) == {
        'vision',
        'reprogramming',
        'prompt',
        'language',
        'bottleneck',
        'head',
    }
    assert (info['vision'], info['language']) == ('vit', 'bert (pretrained)')


def test_confidence_is_calibrated_by_the_factor_in_the_configuration(
    tiny_model_dir, tmp_path, rgb
):
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    before = DepthEstimator.from_pretrained(tiny_model_dir, device='cpu').infer(rgb, camera)
    model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    model.config.spread_factor = 2.0
    model.save_pretrained(tmp_path)
    after = DepthEstimator.from_pretrained(tmp_path, device='cpu').infer(rgb, camera)
    np.testing.assert_array_equal(after.depth_m, before.depth_m)
    # the doubt of a Laplace twice as wide is the root; enlarged afterwards, so only nearly
    np.testing.assert_allclose(1 - after.confidence, (1 - before.confidence) ** 0.5, atol=0.01)
    assert after.confidence.max() < before.confidence.min()


def test_what_another_thread_loads_changes_no_depth(
    estimator: DepthEstimator, rgb: np.ndarray
) -> None:
    """While transformers reads weights of another type, that is torch's default for all."""
    expected = estimator.infer(rgb, camera_of(rgb))
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = estimator.infer(rgb, camera_of(rgb))
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found.depth_m, expected.depth_m)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


def test_one_model_is_loaded_at_a_time(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loading = LLMMDEForDepthEstimation.from_pretrained, []
    second = threading.Thread(target=DepthEstimator.from_pretrained, args=[tiny_model_dir])

    def slow(folder: str, **more: object) -> LLMMDEForDepthEstimation:
        loading.append(threading.current_thread())
        if second not in loading:
            second.start()
            second.join(0.5)
            assert second not in loading
        return load(folder, **more)

    monkeypatch.setattr(LLMMDEForDepthEstimation, 'from_pretrained', slow)
    DepthEstimator.from_pretrained(tiny_model_dir)
    second.join()
    assert second in loading
