"""NYU Depth v2: axes of the .mat, the split, borders, and how to get what is missing."""

from __future__ import annotations

from pathlib import Path
import pickle

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import savemat

from llm_mde_train.nyu import NYU_CAMERA, read_nyu, read_nyu_list

SCENES = ('kitchen_0004', 'kitchen_0004', 'office_0012')


@pytest.fixture(scope='module')
def mat(tmp_path_factory) -> Path:
    """Return a labelled file of three images as MATLAB writes it, axes backwards."""
    path = tmp_path_factory.mktemp('nyu') / 'nyu_depth_v2_labeled.mat'
    rgb = np.zeros((3, 480, 640, 3), np.uint8)
    rgb[..., 0] = 200  # red
    rgb[:, 100, 300, 2] = 50  # a mark in row 100, column 300
    depth_m = np.full((3, 480, 640), 2.0, np.float32)
    depth_m[:, 100, 300] = 3.0
    depth_m[:, 200, 200] = 0.0
    depth_m += np.arange(3, dtype=np.float32)[:, None, None] * (depth_m > 0)
    with h5py.File(path, 'w') as file:
        file['images'] = rgb.transpose(0, 3, 2, 1)
        file['rawDepths'] = depth_m.transpose(0, 2, 1)
        names = [
            file.create_dataset(f'#refs#/{n}', data=np.array([[ord(c)] for c in name], np.uint16))
            for n, name in enumerate(SCENES)
        ]
        references = np.array([[name.ref for name in names]], h5py.ref_dtype)
        file.create_dataset('scenes', data=references, dtype=h5py.ref_dtype)
    save_splits(path)
    return path


def save_splits(mat: Path, *, name: str = 'splits.mat', train=(3, 1), test=(2,)) -> Path:
    columns = {'trainNdxs': train, 'testNdxs': test}
    savemat(mat.with_name(name), {n: np.array([v], np.uint16).T for n, v in columns.items()})
    return mat.with_name(name)


def test_official_split_counts_from_one(mat):
    train, test = (read_nyu(mat, split=split) for split in ('train', 'test'))
    assert [frame.number for frame in train] == [0, 2]
    assert [frame.name for frame in train] == ['image 1', 'image 3']
    assert [frame.scene for frame in train] == ['kitchen_0004', 'office_0012']
    assert [frame.load().depth_m[50, 50] for frame in (*train, *test)] == [2.0, 4.0, 3.0]
    assert pickle.loads(pickle.dumps(train)) == train


def test_axes_colours_and_unknown_depth(mat):
    sample = read_nyu(mat, split='train')[0].load()
    assert sample.rgb.shape == (480, 640, 3)
    assert sample.rgb[100, 300].tolist() == [200, 0, 50]
    assert sample.depth_m[100, 300] == 3.0
    assert np.isnan(sample.depth_m[200, 200])
    assert (sample.camera, sample.max_depth_m) == (NYU_CAMERA, 10.0)


def test_border_is_unknown_and_holds_eigens_crop(mat):
    known = np.isfinite(read_nyu(mat, split='train')[0].load().depth_m)
    rows, columns = (np.flatnonzero(known.any(axis=axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (7, 473, 7, 631)


def test_what_is_missing_says_where_to_get_it(mat, tmp_path):
    with pytest.raises(ValueError, match=r'gone\.mat does not exist; llm_mde_train/nyu\.py says'):
        read_nyu(tmp_path / 'gone.mat', split='train')
    with pytest.raises(ValueError, match=r'none\.mat does not exist; llm_mde_train/nyu\.py says'):
        read_nyu(mat, split='train', splits_mat=tmp_path / 'none.mat')


def test_other_files_are_refused(mat, tmp_path):
    other = tmp_path / 'other.mat'
    other.write_text('no matlab')
    with pytest.raises(ValueError, match=r'other\.mat is not the splits\.mat of NYU'):
        read_nyu(mat, split='train', splits_mat=other)
    splits = mat.with_name('splits.mat')
    with pytest.raises(ValueError, match=r'other\.mat is not the labelled NYU file'):
        read_nyu(other, split='train', splits_mat=splits)
    with h5py.File(tmp_path / 'empty.mat', 'w'):
        pass
    with pytest.raises(ValueError, match=r'empty\.mat is not the labelled NYU file'):
        read_nyu(tmp_path / 'empty.mat', split='train', splits_mat=splits)
    with pytest.raises(ValueError, match=r"'val'"):
        read_nyu(mat, split='val')
    far = save_splits(mat, name='far.mat', train=(1, 9))
    with pytest.raises(ValueError, match=r'far\.mat names image 9, .* has 3'):
        read_nyu(mat, split='train', splits_mat=far)


@pytest.fixture
def bts_list(tmp_path) -> Path:
    """Return a list of one pair, its depth 1.5 m but for a hole."""
    folder = tmp_path / 'kitchen_0028b'
    folder.mkdir()
    cv2.imwrite(str(folder / 'rgb_00045.png'), np.full((480, 640, 3), (0, 0, 200), np.uint8))
    depth_mm = np.full((480, 640), 1500, np.uint16)
    depth_mm[200, 300] = 0
    cv2.imwrite(str(folder / 'sync_depth_00045.png'), depth_mm)
    path = tmp_path / 'list.txt'
    path.write_text(
        '/kitchen_0028b/rgb_00045.png /kitchen_0028b/sync_depth_00045.png 518.8579\n\n'
    )
    return path


def test_bts_list(bts_list):
    (frame,) = read_nyu_list(bts_list)
    sample = frame.load()
    assert (sample.scene, sample.stamp_ns, sample.max_depth_m) == ('kitchen_0028b', 45, 10.0)
    assert sample.rgb[0, 0].tolist() == [200, 0, 0]
    assert sample.depth_m[240, 320] == 1.5
    assert np.isnan(sample.depth_m[200, 300])
    assert sample.camera.fx == 518.8579
    assert (sample.camera.fy, sample.camera.cx) == (pytest.approx(519.46961), NYU_CAMERA.cx)


def test_border_of_the_list_holds_eigens_crop(bts_list):
    known = np.isfinite(read_nyu_list(bts_list)[0].load().depth_m)
    assert known.sum() == (472 - 45) * (608 - 41) - 1
    assert known[45:471, 41:601].mean() > 0.9999


def test_bts_list_elsewhere_and_errors(bts_list, tmp_path):
    other = tmp_path / 'lists' / 'train.txt'
    other.parent.mkdir()
    other.write_text(bts_list.read_text())
    assert len(read_nyu_list(other, root=tmp_path)) == 1
    with pytest.raises(ValueError, match=r'rgb_00045\.png does not exist; llm_mde_train/nyu\.py'):
        read_nyu_list(other)
    other.write_text('a.png b.png\n')
    with pytest.raises(ValueError, match=r"train\.txt:1 must be .*, it is 'a\.png b\.png'"):
        read_nyu_list(other)
