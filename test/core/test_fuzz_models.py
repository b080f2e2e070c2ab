"""Damaged model folders and adapters: a sentence or a working network, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
import json
from pathlib import Path
import shutil
from tempfile import TemporaryDirectory

from fuzzing import damaged_bytes, fuzz, little_memory, odd_document
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_core.lora import add_lora

ERRORS = (OSError, ValueError)  # which the node and the command turn into a sentence
CAMERA = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
BLACK = np.zeros((48, 64, 3), np.uint8)
DOCUMENTS = [
    'config.json',
    'config.json',
    'config.json',
    'tokenizer.json',
    'tokenizer_config.json',
]


@pytest.fixture(scope='module', autouse=True)
def _little_memory() -> Iterator[None]:
    with little_memory(2.0):
        yield


@pytest.fixture(scope='module')
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('adapter')
    model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    add_lora(model).save_pretrained(folder)
    return folder


def check(model: Path, adapter: Path | None = None) -> None:
    """Whatever loads works; what does not is refused with a sentence."""
    with suppress(*ERRORS):
        estimator = DepthEstimator.from_pretrained(model, adapter=adapter, device='cpu')
        check_depth(estimator)


def check_depth(estimator: DepthEstimator) -> None:
    prediction = estimator.infer(BLACK, CAMERA)
    depth_m = prediction.depth_m
    assert depth_m.shape == prediction.confidence.shape == (48, 64)
    assert isinstance(prediction.prompt, str)
    known = depth_m[~np.isnan(depth_m)]
    low, high = estimator.info()['depth_range_m']
    assert ((low <= known) & (known <= high)).all()


# What fuzzing once found: (file, where, value).
FOUND = [
    ('config.json', ['vision_config', 'hidden_act'], 3),
    ('config.json', ['vision_config', 'num_hidden_layers'], 10**9),
    ('config.json', ['language_config'], ['x']),
    ('config.json', ['vision_config', 'hidden_size'], 'x'),
    ('config.json', ['language_config', 'pad_token_id'], 300000),
    ('config.json', ['language_config', 'id2label'], True),
    ('config.json', ['num_prototypes'], 10**9),
    ('config.json', ['image_mean'], [0.5, 0.5]),
    ('config.json', ['vision_levels'], 0.5),
    ('config.json', ['min_depth_m'], 'x'),
    ('config.json', ['prompt_layout', 'slot_starts', 'median'], 'x'),
    ('config.json', ['prompt_layout', 'slot_starts', 'median'], -7),
    ('config.json', ['prompt_layout'], {}),
    ('config.json', ['image_size'], 10**9),
    ('tokenizer.json', [], None),
    ('tokenizer.json', ['model', 'vocab'], 3),
    ('tokenizer_config.json', [], 'x'),
    ('tokenizer_config.json', ['unk_token'], 3),
]


@pytest.mark.parametrize(('name', 'where', 'value'), FOUND)
def test_what_once_failed_is_refused(
    tiny_model_dir: Path, tmp_path: Path, name: str, where: list[str], value: object
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path, dirs_exist_ok=True)
    whole = {'': json.loads((tmp_path / name).read_text())}
    holder, key = whole, ''
    for inner in where:
        holder, key = holder[key], inner
    holder[key] = value
    (tmp_path / name).write_text(json.dumps(whole['']))
    with pytest.raises(ERRORS):
        DepthEstimator.from_pretrained(tmp_path, device='cpu').infer(BLACK, CAMERA)


@contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    """Return a copy to spoil, which is there for one example."""
    with TemporaryDirectory() as place:
        yield Path(shutil.copytree(folder, Path(place) / folder.name))


@pytest.mark.parametrize('table', ['ids', 'numbers', 'classes', 'order'])
def test_a_prompt_of_words_that_do_not_exist_is_refused(
    tiny_model: LLMMDEForDepthEstimation, tmp_path: Path, table: str
) -> None:
    getattr(tiny_model.prompt, table).view(-1)[-1] = 10**6
    tiny_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='of the prompt'):
        LLMMDEForDepthEstimation.from_pretrained(tmp_path)


@fuzz(12)
@given(data=st.data())
def test_a_model_with_another_document_works_or_is_refused(
    data: st.DataObject, tiny_model_dir: Path
) -> None:
    with copy_of(tiny_model_dir) as folder:
        path = folder / data.draw(st.sampled_from(DOCUMENTS))
        path.write_text(json.dumps(data.draw(odd_document(json.loads(path.read_text())))))
        check(folder)


@fuzz(12)
@given(data=st.data())
def test_a_model_with_damaged_files_works_or_is_refused(
    data: st.DataObject, tiny_model_dir: Path
) -> None:
    with copy_of(tiny_model_dir) as folder:
        names = sorted(path.name for path in folder.iterdir())
        path = folder / data.draw(st.sampled_from([*names, 'model.safetensors']))
        path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
        check(folder)


@fuzz(12)
@given(data=st.data())
def test_an_adapter_with_another_document_works_or_is_refused(
    data: st.DataObject,
    tiny_model_dir: Path,
    adapter_dir: Path,
) -> None:
    with copy_of(adapter_dir) as folder:
        path = folder / 'adapter_config.json'
        path.write_text(json.dumps(data.draw(odd_document(json.loads(path.read_text())))))
        check(tiny_model_dir, folder)


@fuzz(12)
@given(data=st.data())
def test_an_adapter_with_damaged_files_works_or_is_refused(
    data: st.DataObject,
    tiny_model_dir: Path,
    adapter_dir: Path,
) -> None:
    with copy_of(adapter_dir) as folder:
        path = folder / data.draw(
            st.sampled_from(['adapter_config.json', 'adapter_model.safetensors'])
        )
        path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
        check(tiny_model_dir, folder)
