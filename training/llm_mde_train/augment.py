"""What may happen to a photograph without its depth becoming wrong: window, mirror, light."""

from __future__ import annotations

import cv2
import numpy as np

from llm_mde_train.samples import Sample

ROTATION_DEG = 2.5
CUT_DEPTH_PART = 0.75  # p of the CutDepth paper: of what is right of and below a random corner


def crop_to(
    sample: Sample,
    rng: np.random.Generator,
    *,
    height: int,
    width: int,
    focal_px: float,
    rotation_deg: float = ROTATION_DEG,
) -> tuple[np.ndarray, np.ndarray, float]:
    """
    Cut a random window out of a sample and resize it to a shape, perhaps mirrored.

    Before, it is turned by up to `rotation_deg`, either way. The window is as large as the wanted
    focal length makes it, or what there is. Returns rgb uint8 (height, width, 3), depth float32
    (height, width) in metres with NaN, and the focal length in pixels of the result. Depth is
    picked, never interpolated.
    """
    rgb, depth_m, camera = sample.rgb, sample.depth_m, sample.camera
    rgb, depth_m = _rotate(rgb, depth_m, angle_deg=rng.uniform(-rotation_deg, rotation_deg))
    largest = min(camera.height / height, camera.width / width)
    scale = min(largest, camera.focal_px / focal_px)
    cut_height, cut_width = max(1, round(height * scale)), max(1, round(width * scale))
    spare_rows, spare_columns = camera.height - cut_height, camera.width - cut_width
    top = int(rng.integers(0, spare_rows + 1))
    left = int(rng.integers(0, spare_columns + 1))
    window = np.s_[top : top + cut_height, left : left + cut_width]

    smooth = cv2.INTER_AREA if scale > 1.0 else cv2.INTER_LINEAR
    rgb = cv2.resize(rgb[window], (width, height), interpolation=smooth)
    # Plain INTER_NEAREST takes the corner of what a pixel covers, this its centre, as colour does.
    depth_m = cv2.resize(depth_m[window], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    if rng.random() < 0.5:
        rgb, depth_m = rgb[:, ::-1], depth_m[:, ::-1]
    result_px = (camera.fx * width / cut_width + camera.fy * height / cut_height) / 2.0
    return np.ascontiguousarray(rgb), np.ascontiguousarray(depth_m), result_px


def change_light(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change light, colour, blur, noise and compression of an image, uint8 (H, W, 3)."""
    light = (rgb.astype(np.float32) / 255.0) ** np.float32(rng.uniform(0.8, 1.25))
    light *= np.float32(rng.uniform(0.75, 1.25)) * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    light = (light - light.mean()) * np.float32(rng.uniform(0.8, 1.4)) + light.mean()
    if rng.random() < 0.1:
        light = light.mean(axis=2, keepdims=True).repeat(3, axis=2)
    if rng.random() < 0.15:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 0.9))
    if rng.random() < 0.25:
        strength = np.float32(rng.uniform(0.005, 0.02))
        light = light + strength * rng.standard_normal(light.shape, dtype=np.float32)
    changed = (light.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(30, 90))
        changed = cv2.imdecode(
            cv2.imencode('.jpg', changed, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR
        )
    return changed


def cut_depth(
    rgb: np.ndarray, depth_m: np.ndarray, rng: np.random.Generator, *, max_depth_m: float
) -> np.ndarray:
    """
    Paste a random rectangle of the true depth (H, W) into the image uint8 (H, W, 3), as grey.

    CutDepth (arXiv 2107.07684): edges stay where they are while colours go. 0 to `max_depth_m`
    become black to white; where depth is unknown, the image stays.
    """
    height, width = depth_m.shape
    left, top = int(rng.random() * width), int(rng.random() * height)
    right = left + max(1, int((width - left) * rng.random() * CUT_DEPTH_PART))
    bottom = top + max(1, int((height - top) * rng.random() * CUT_DEPTH_PART))
    window = np.s_[top:bottom, left:right]
    part = depth_m[window]
    grey = (np.nan_to_num(part) / max_depth_m * 255.0).clip(0.0, 255.0).round().astype(np.uint8)
    pasted = rgb.copy()
    pasted[window] = np.where(np.isfinite(part)[..., None], grey[..., None], rgb[window])
    return pasted


def _rotate(
    rgb: np.ndarray, depth_m: np.ndarray, *, angle_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Turn around the optical axis, which leaves z as it is; what comes into view is unknown."""
    height, width = depth_m.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
    turned = cv2.warpAffine(
        rgb, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    depth = cv2.warpAffine(
        depth_m,
        turn,
        (width, height),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=np.nan,
    )
    return turned, depth
