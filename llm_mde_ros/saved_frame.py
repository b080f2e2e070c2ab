"""One frame as a folder of files, for a bug report: all that went in and came out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import count
import json
import math
from pathlib import Path
import shutil
import tempfile
import time
from typing import Any

import cv2
import numpy as np
from ruamel.yaml import YAML
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from llm_mde_core.geometry import Camera, back_project
from llm_mde_core.prediction import DepthPrediction
from llm_mde_ros.conversions import camera_to_info
from llm_mde_ros.frame_times import FrameTimes
from llm_mde_ros.image_files import write_depth, write_ply, write_png

UNFINISHED = '.unfinished_'
ABANDONED_AFTER_S = 3600.0  # writing takes seconds


@dataclass(frozen=True)
class WorkedFrame:
    """A frame after it was published, and how it came about."""

    rgb: np.ndarray  # uint8 (H, W, 3)
    prediction: DepthPrediction  # filtered
    camera: Camera
    source_info: CameraInfo | None  # what the camera came from
    header: Header
    times: FrameTimes


def save_frame(frame: WorkedFrame, *, folder: Path, about: dict[str, Any]) -> Path:
    """
    Write a folder inside `folder`, whole or not at all, and return its path.

    It holds color.png, depth.png (16 bits, millimetres, 0 unknown), depth.npy (float32 metres,
    NaN unknown), cloud.ply, camera_info.yaml and info.json with `about`. OSError when it cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    depth_m = frame.prediction.depth_m
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as scratch:
        part = Path(scratch) / 'frame'
        part.mkdir()
        write_png(part / 'color.png', cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))
        write_depth(part / 'depth.png', depth_m)
        _write_npy(part / 'depth.npy', depth_m)
        write_ply(part / 'cloud.ply', back_project(depth_m, frame.camera), frame.rgb)
        info = camera_to_info(frame.camera, frame.header, frame.source_info)
        _write_yaml(part / 'camera_info.yaml', _calibration(info))
        text = json.dumps(_figures(frame, depth_m) | about, indent=2, ensure_ascii=False)
        (part / 'info.json').write_text(text, encoding='utf-8')
        return part.rename(_free_name(folder, frame.header))


def _remove_abandoned(folder: Path) -> None:
    """Remove what was left by writers that were killed; other nodes may be writing, too."""
    for scratch in folder.glob(f'{UNFINISHED}*'):
        with suppress(OSError):  # another node removes it, too, or it is another user's
            if time.time() - scratch.lstat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(scratch)


def _free_name(folder: Path, header: Header) -> Path:
    name = f'frame_{header.stamp.sec}_{header.stamp.nanosec:09d}'
    names = (folder / (f'{name}_{number}' if number > 1 else name) for number in count(1))
    return next(path for path in names if not path.exists())


def _figures(frame: WorkedFrame, depth_m: np.ndarray) -> dict[str, Any]:
    known = depth_m[np.isfinite(depth_m)]
    return {
        'stamp': f'{frame.header.stamp.sec}.{frame.header.stamp.nanosec:09d}',
        'frame_id': frame.header.frame_id,
        'camera': 'hfov_deg' if frame.source_info is None else 'camera_info',
        'prompt': frame.prediction.prompt,
        'depth_class': frame.prediction.depth_class,
        'stats': {
            'valid_fraction': known.size / depth_m.size,
            'depth_median_m': float(np.median(known)) if known.size else None,
            'confidence_mean': float(frame.prediction.confidence.mean()),
            'latency_s': frame.times.latency_s,
            'age_s': frame.times.age_s if math.isfinite(frame.times.age_s) else None,
            'stage_s': frame.times.stage_s,
        },
    }


def _calibration(info: CameraInfo) -> dict[str, Any]:
    """Return the fields as camera_calibration_parsers reads them."""

    def matrix(values: Any, columns: int) -> dict[str, Any]:
        data = [float(value) for value in values]
        return {'rows': len(data) // columns, 'cols': columns, 'data': data}

    return {
        'image_width': info.width,
        'image_height': info.height,
        'camera_name': info.header.frame_id,
        'camera_matrix': matrix(info.k, 3),
        'distortion_model': info.distortion_model,
        'distortion_coefficients': matrix(info.d, max(len(info.d), 1)),
        'rectification_matrix': matrix(info.r, 3),
        'projection_matrix': matrix(info.p, 4),
    }


def _write_npy(path: Path, values: np.ndarray) -> None:
    stream = BytesIO()
    np.save(stream, values, allow_pickle=False)
    path.write_bytes(stream.getvalue())


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    stream, yaml = BytesIO(), YAML(typ='safe')
    yaml.version = (1, 1)  # that of most readers, for which 1e-05 is text
    yaml.dump(content, stream)
    path.write_bytes(stream.getvalue())
