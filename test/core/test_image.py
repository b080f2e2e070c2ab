"""Fitting images to the network and maps back to images; citizenship in transformers."""

from __future__ import annotations

from pathlib import Path

from conftest import small_config
import numpy as np
from PIL import Image
import pytest
import torch
from transformers import AutoImageProcessor, PreTrainedTokenizerBase, pipeline

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation, LLMMDEImageProcessor
from llm_mde_core.image import Fit

SHORT_LENS_PX = 0.1  # so short that the size of the image decides


def fit_of(
    *, height: int, width: int, image_size: int = 256, focal_px: float = SHORT_LENS_PX
) -> Fit:
    return Fit.of(
        height=height,
        width=width,
        focal_px=focal_px,
        canonical_focal_px=200.0,
        image_size=image_size,
        patch_px=16,
    )


@pytest.mark.parametrize(
    ('height', 'width', 'expected'),
    [
        (480, 640, (192, 256, 192, 256)),
        (720, 1280, (144, 256, 144, 256)),
        (1080, 1920, (144, 256, 144, 256)),
        (640, 480, (256, 192, 256, 192)),
        (376, 672, (143, 256, 144, 256)),
        (100, 999, (26, 256, 32, 256)),
        (1, 1, (256, 256, 256, 256)),
    ],
)
def test_aspect_ratio_is_kept_and_patches_are_whole(
    height: int, width: int, expected: tuple[int, int, int, int]
) -> None:
    fit = fit_of(height=height, width=width)
    assert (fit.height, fit.width, fit.padded_height, fit.padded_width) == expected


@pytest.mark.parametrize(
    ('focal_px', 'width'),
    [(400.0, 256), (500.0, 256), (640.0, 200), (1280.0, 100), (1e6, 1)],
)
def test_a_longer_lens_makes_a_smaller_input_of_one_focal_length(
    focal_px: float, width: int
) -> None:
    fit = fit_of(height=480, width=640, focal_px=focal_px)
    assert fit.width == width
    assert fit.height == max(1, round(width * 0.75))


@pytest.mark.parametrize(('height', 'width'), [(480, 640), (37, 91), (300, 301)])
def test_bytes_shrink_as_floats_do_within_one_step(height: int, width: int) -> None:
    """On the CPU an image is made smaller before it is made of floats."""
    fit = fit_of(height=height, width=width, focal_px=450.0)
    assert fit.height < height
    rgb = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    rgb[..., : width // 2] = torch.linspace(0, 255, width // 2).to(torch.uint8)
    difference = fit.to_network(rgb) - fit.to_network(rgb / 255.0)
    assert float(difference.abs().max()) <= 1.0 / 255.0
    assert float(difference.mean().abs()) < 0.05 / 255.0


def test_what_is_made_larger_is_not_rounded() -> None:
    fit = fit_of(height=20, width=30, focal_px=50.0)
    rgb = torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8)
    torch.testing.assert_close(fit.to_network(rgb), fit.to_network(rgb / 255.0))


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match='0 x 640'):
        fit_of(height=0, width=640)


def test_padding_repeats_the_border_and_is_cut_off_again() -> None:
    fit = fit_of(height=50, width=64, image_size=64)
    rgb = torch.randint(0, 256, (1, 3, 50, 64), dtype=torch.uint8)
    network = fit.to_network(rgb)
    assert network.shape == (1, 3, 64, 64)
    torch.testing.assert_close(network[:, :, :50], rgb / 255.0)
    torch.testing.assert_close(network[:, :, 50:], network[:, :, 49:50].expand(-1, -1, 14, -1))
    torch.testing.assert_close(fit.to_image(network[:, 0], height=50, width=64), rgb[:, 0] / 255.0)


def test_a_plane_stays_a_plane_when_depth_is_enlarged() -> None:
    """Bilinear in z would bend it; bicubic would overshoot at edges."""
    fit = fit_of(height=96, width=128, image_size=64)
    small = Camera(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
    normal, distance = np.array([0.4, 0.2, 0.9]), 2.0
    rays = np.dstack([small.rays(), np.ones((48, 64))])
    depth = torch.from_numpy(distance / (rays @ normal)).float()[None]
    enlarged = fit.depth_to_image(depth, height=96, width=128)[0].numpy()
    large = np.dstack([small.resized(width=128, height=96).rays(), np.ones((96, 128))])
    inside = np.s_[2:-2, 2:-2]  # beyond the outermost pixel centres the border is repeated
    expected = distance / (large @ normal)
    np.testing.assert_allclose(enlarged[inside], expected[inside], rtol=1e-4)


def test_an_edge_gets_no_depth_beyond_its_two_sides() -> None:
    fit = fit_of(height=64, width=64, image_size=32)
    depth = torch.ones(1, 32, 32)
    depth[:, :, 16:] = 5.0
    enlarged = fit.depth_to_image(depth, height=64, width=64)
    assert float(enlarged.min()) >= 1.0 - 1e-5
    assert float(enlarged.max()) <= 5.0 + 1e-5


def test_processor_refuses_what_is_no_image() -> None:
    processor = LLMMDEImageProcessor(image_size=64)
    with pytest.raises(ValueError, match=r'uint8 \(H, W, 3\) RGB, got float32'):
        processor(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(ValueError, match='images of one size'):
        processor([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)])


def test_pipeline_gives_the_depth_of_the_estimator(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, rgb: np.ndarray
) -> None:
    # The pipeline knows no camera, so it assumes a usual lens; here it becomes 56 pixels wide.
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
    config = small_config(canonical_focal_px=camera.focal_px * 56 / 64)
    LLMMDEForDepthEstimation.create(config, tokenizer).save_pretrained(tmp_path)
    depth = pipeline('depth-estimation', model=str(tmp_path), device='cpu')(Image.fromarray(rgb))[
        'predicted_depth'
    ]
    assert depth.shape == (48, 64)
    estimator = DepthEstimator.from_pretrained(tmp_path, device='cpu')
    np.testing.assert_allclose(depth, estimator.infer(rgb, camera).depth_m, rtol=1e-4)


def test_preprocessing_travels_with_the_model(tiny_model_dir: Path) -> None:
    processor = AutoImageProcessor.from_pretrained(tiny_model_dir)
    assert isinstance(processor, LLMMDEImageProcessor)
    sizes = (processor.image_size, processor.patch_px, processor.canonical_focal_px)
    assert sizes == (64, 16, 60.0)
