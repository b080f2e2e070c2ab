"""
NYU Depth v2: the labelled .mat with its official split, and lists in the format of BTS.

    Labelled: nyu_depth_v2_labeled.mat (2.8 GB, 1449 images) from
        http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat
    Split: splits.mat (795 training, 654 test images), beside it, from
        http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat
    List: nyudepthv2_train_files_with_gt.txt (24,231 images), in train_test_inputs/ of
        https://github.com/cleinc/bts, whose README says where the images are (sync.zip).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import os
from pathlib import Path
import re
import threading
from typing import Literal

import h5py
import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from llm_mde_core import Camera
from llm_mde_train.bts_list import read_list
from llm_mde_train.image_pairs import PairFrame, check_files_exist, forget_outside
from llm_mde_train.samples import Sample

# Of the colour camera, toolbox_nyu_depth_v2/camera_params.m; MATLAB counts pixels from 1.
NYU_CAMERA = Camera(width=640, height=480, fx=518.85790, fy=519.46961, cx=324.58245, cy=252.73617)
MAX_DEPTH_M = 10.0
LIST_UNITS_PER_M = 1000.0
LABELLED_BORDER = (7, 474, 7, 632)  # outside, undistorting left the colour image white
# Where BTS trains, two columns wider to the left so that it holds Eigen's crop.
LIST_BORDER = (45, 472, 41, 608)
SPLIT_NAMES = {'train': 'trainNdxs', 'test': 'testNdxs'}
HOW_TO_GET = 'llm_mde_train/nyu.py says where to get it'


@dataclass(frozen=True)
class LabelledFrame:
    """An image of the labelled .mat; its depth is the sensor's, not the filled-in one."""

    mat: Path
    number: int  # from 0
    scene: str
    camera: Camera

    @property
    def stamp_ns(self) -> int:
        """Return the number: the file has no times, but is in their order."""
        return self.number

    @property
    def name(self) -> str:
        """Return the number that the file gives the image, from 1."""
        return f'image {self.number + 1}'

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the .mat."""
        return (self.mat,)

    def load(self) -> Sample:
        """Read the image and its depth, nothing else, out of the file."""
        file = _open_mat(self.mat, os.getpid(), threading.get_ident())
        # MATLAB's (H, W, 3, N) and (H, W, N) are stored backwards.
        depth_m = file['rawDepths'][self.number].T.astype(np.float32)
        depth_m[~(depth_m > 0)] = np.nan
        return Sample(
            rgb=np.ascontiguousarray(file['images'][self.number].transpose(2, 1, 0)),
            depth_m=forget_outside(depth_m, LABELLED_BORDER),
            camera=self.camera,
            scene=self.scene,
            max_depth_m=MAX_DEPTH_M,
            stamp_ns=self.number,
        )


def read_nyu(
    mat: Path, *, split: Literal['train', 'test'], splits_mat: Path | None = None
) -> list[LabelledFrame]:
    """
    List the images of the official split; `splits_mat` is `splits.mat` beside the .mat if None.

    Raises ValueError, saying where to get them, when a file is missing or another one.
    """
    if split not in SPLIT_NAMES:
        raise ValueError(f'the split is one of {", ".join(SPLIT_NAMES)}, not {split!r}')
    splits_mat = splits_mat or mat.with_name('splits.mat')
    for path in (mat, splits_mat):
        if not path.is_file():
            raise ValueError(f'{path} does not exist; {HOW_TO_GET}')
    try:
        numbers = loadmat(splits_mat)[SPLIT_NAMES[split]].ravel().astype(int) - 1
    except (KeyError, ValueError, NotImplementedError, MatReadError) as error:
        raise ValueError(f'{splits_mat} is not the splits.mat of NYU: {error}') from error
    try:
        with h5py.File(mat) as file:
            count = min(len(file['images']), len(file['rawDepths']))
            scenes = [_text(file, reference) for reference in file['scenes'][0]]
    except (KeyError, OSError) as error:
        raise ValueError(f'{mat} is not the labelled NYU file ({error}); {HOW_TO_GET}') from error
    if numbers.max() >= count:
        raise ValueError(f'{splits_mat} names image {numbers.max() + 1}, {mat} has {count}')
    return [
        LabelledFrame(mat=mat, number=int(number), scene=scenes[number], camera=NYU_CAMERA)
        for number in sorted(numbers)
    ]


def read_nyu_list(list_file: Path, *, root: Path | None = None) -> list[PairFrame]:
    """
    List pairs in the format of BTS: a line is `rgb depth focal_px`, paths below `root`.

    `root` is the list's folder when None. Depth is 16-bit millimetres; the scene is the folder
    of the image. Raises ValueError for a line of another form and for a missing file.
    """
    root = root or list_file.parent
    frames = []
    for number, rgb, depth, focal_px in read_list(list_file):
        frames.append(
            PairFrame(
                rgb=root / rgb,
                depth=root / depth,
                units_per_m=LIST_UNITS_PER_M,
                camera=_camera(focal_px),
                scene=Path(rgb).parent.name,
                max_depth_m=MAX_DEPTH_M,
                stamp_ns=int((re.findall(r'\d+', Path(rgb).stem) or [number])[-1]),
                window=LIST_BORDER,
            )
        )
    check_files_exist(frames, hint=HOW_TO_GET)
    return frames


def _camera(focal_px: float) -> Camera:
    """Return NYU's camera with the focal length of a list."""
    larger = focal_px / NYU_CAMERA.fx
    return Camera(
        width=NYU_CAMERA.width,
        height=NYU_CAMERA.height,
        fx=focal_px,
        fy=NYU_CAMERA.fy * larger,
        cx=NYU_CAMERA.cx,
        cy=NYU_CAMERA.cy,
    )


def _text(file: h5py.File, reference: h5py.Reference) -> str:
    return ''.join(chr(code) for code in np.ravel(file[reference]))


@lru_cache(maxsize=8)
def _open_mat(path: Path, _process: int, _thread: int) -> h5py.File:
    return h5py.File(path)
