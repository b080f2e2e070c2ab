"""The running node and models and adapters that are no good: it says why, and takes others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import hashlib
import json
import os
from pathlib import Path
import pickle
import shutil
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
import torch

from llm_mde_core import LLMMDEForDepthEstimation
from llm_mde_core.lora import BASE
from llm_mde_train.adapted_parts import make_adaptable, save_adapter

WEIGHTS = 'model.safetensors'
ADAPTER = 'adapter_model.safetensors'


class Payload:
    """What a pickle does when it is loaded."""

    def __init__(self, planted: Path) -> None:
        self.planted = planted

    def __reduce__(self) -> tuple:
        return Path.mkdir, (self.planted,)


def pickled(folder: Path, name: str) -> None:
    """Write a pickle that plants a folder when it is loaded."""
    (folder / name).write_bytes(pickle.dumps({'head.weight': Payload(folder / 'planted')}))


def change_config(folder: Path, **values: object) -> None:
    path = folder / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(
    folder: Path,
    change: Callable[[dict[str, torch.Tensor]], object],
    *,
    name: str = WEIGHTS,
    made_for: str | None = None,
) -> None:
    weights = load_file(folder / name)
    change(weights)
    base = {BASE: made_for} if made_for else {}
    save_file(weights, folder / name, metadata={'format': 'pt', **base})


def cut(path: Path, part: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])


def index_names_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    pickled(folder, 'pytorch_model.bin')
    index = {'weight_map': {'head.weight': 'pytorch_model.bin'}}
    (folder / f'{WEIGHTS}.index.json').write_text(json.dumps(index))


def pickle_alone(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    pickled(folder, 'pytorch_model.bin')


def spoil(weights: dict[str, torch.Tensor]) -> None:
    weights['head.out.3.bias'][:] = float('nan')


def name_no_text(folder: Path) -> None:
    """Write a file whose name is no UTF-8, and no index."""
    with open(os.fsencode(folder) + b'/\xff.index.json', 'w') as file:
        file.write('[]')


def write_sums(folder: Path) -> None:
    lines = [
        f'{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n'
        for file in folder.iterdir()
        if file.suffix in ('.json', '.safetensors')
    ]
    (folder / 'SHA256SUMS').write_text(''.join(lines))


def weights_changed_after_sums(folder: Path) -> None:
    write_sums(folder)
    change_weights(folder, lambda weights: weights['head.norm.bias'].add_(0.1))


def configuration_changed_after_sums(folder: Path) -> None:
    write_sums(folder)
    change_config(folder, max_depth_m=5.0)


FAULTS = {  # what is done to the folder, and what is said
    'missing': (shutil.rmtree, 'give a bundled name'),
    'without weights': (lambda folder: (folder / WEIGHTS).unlink(), 'safetensors'),
    'weights cut off': (lambda folder: cut(folder / WEIGHTS, 0.5), 'get them again'),
    'weights of no bytes': (lambda folder: cut(folder / WEIGHTS, 0.0), 'get them again'),
    'a weight missing': (
        lambda folder: change_weights(folder, lambda weights: weights.pop('head.norm.bias')),
        'head.norm.bias',
    ),
    'weights of other shapes': (
        lambda folder: change_config(folder, num_prototypes=11),
        'mismatched_keys',
    ),
    'weights that are no numbers': (lambda folder: change_weights(folder, spoil), 'finite'),
    'weights that somebody changed': (weights_changed_after_sums, 'somebody changed it'),
    'configuration that somebody changed': (
        configuration_changed_after_sums,
        'somebody changed it',
    ),
    'a pickle as weights': (lambda folder: pickled(folder, WEIGHTS), 'get them again'),
    'a pickle in place of weights': (pickle_alone, 'safetensors'),
    'a pickle in the index': (index_names_a_pickle, 'only safetensors'),
    'configuration cut off': (lambda folder: cut(folder / 'config.json', 0.5), 'no JSON'),
    'of another architecture': (
        lambda folder: change_config(folder, model_type='bert'),
        "type 'bert'",
    ),
    'a file whose name is no text': (name_no_text, r'\udcff.index.json holds no JSON object'),
    'a tokenizer cut off': (lambda folder: cut(folder / 'tokenizer.json', 0.5), 'tokenizer'),
}


@pytest.fixture(scope='module')
def robot(robot_with: Any, tiny_model_dir: Path) -> Iterator[Any]:
    parameters = {'model': tiny_model_dir, 'device': 'cpu', 'autostart': False}
    with robot_with(parameters) as robot:
        yield robot


@pytest.fixture(scope='module', autouse=True)
def serves_in_the_end(robot: Any, tiny_model_dir: Path) -> Iterator[None]:
    yield
    assert robot.set_parameter('model', str(tiny_model_dir)).successful
    assert robot.transition('configure')
    assert robot.transition('activate')
    robot.wait_for(lambda: robot.told('model') == 'Loaded.', 'word of it')
    robot.listen('depth/image')
    image = robot.answer('depth/image', robot.show(np.zeros((48, 64, 3), np.uint8)))
    assert image.width == 64
    assert 'Traceback' not in robot.under_test.text()


@pytest.mark.parametrize('fault', FAULTS)
def test_a_faulty_model_is_not_served(
    robot: Any, tiny_model_dir: Path, tmp_path: Path, fault: str
):
    spoil_folder, words = FAULTS[fault]
    folder = tmp_path / 'model'
    shutil.copytree(tiny_model_dir, folder)
    spoil_folder(folder)
    assert robot.set_parameter('model', str(folder)).successful
    is_not_served(robot, folder, words)


def is_not_served(robot: Any, folder: Path, words: str) -> None:
    assert not robot.transition('configure')
    robot.wait_for(lambda: str(folder) in robot.told('model'), 'word of it')
    assert words in robot.told('model')
    assert robot.statuses['model'].level == b'\2'
    assert robot.state() == 'unconfigured'
    assert not robot.node.get_publishers_info_by_topic('depth/image')
    assert not (folder / 'planted').exists()


def pickle_in_place_of_adapter(folder: Path) -> None:
    (folder / ADAPTER).unlink()
    pickled(folder, 'adapter_model.bin')


def change_adapter(folder: Path, **values: object) -> None:
    path = folder / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def spoil_first(weights: dict[str, torch.Tensor]) -> None:
    weights[min(weights)][:] = float('nan')


ADAPTER_FAULTS = {  # what is done to the folder, and what is said
    'missing': (shutil.rmtree, 'no adapter in'),
    'without weights': (lambda folder: (folder / ADAPTER).unlink(), 'no adapter in'),
    'weights cut off': (lambda folder: cut(folder / ADAPTER, 0.5), 'get them again'),
    'weights of no bytes': (lambda folder: cut(folder / ADAPTER, 0.0), 'get them again'),
    'a weight missing': (
        lambda folder: change_weights(folder, lambda w: w.pop(min(w)), name=ADAPTER),
        'not of this model',
    ),
    'weights that are no numbers': (
        lambda folder: change_weights(folder, spoil_first, name=ADAPTER),
        'not finite',
    ),
    'of another model': (
        lambda folder: change_weights(folder, len, name=ADAPTER, made_for=64 * '0'),
        'made for another model',
    ),
    'of another architecture': (
        lambda folder: change_adapter(folder, target_modules=['encoder.elsewhere']),
        'not of this model',
    ),
    'of another kind': (lambda folder: change_adapter(folder, peft_type='IA3'), "'IA3'"),
    'a setting whose name is no text': (
        lambda folder: change_adapter(folder, **{'\ud800': 1}),
        r'\ud800',
    ),
    'a pickle as weights': (lambda folder: pickled(folder, ADAPTER), 'get them again'),
    'a pickle in place of weights': (pickle_in_place_of_adapter, 'no adapter in'),
    'configuration cut off': (lambda folder: cut(folder / 'adapter_config.json', 0.5), 'no JSON'),
}


@pytest.fixture(scope='module')
def adapter(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('adapters') / 'sound'
    model = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir)
    save_adapter(make_adaptable(model, train='lora_head'), folder, model='')
    return folder


@pytest.mark.parametrize('fault', ADAPTER_FAULTS)
def test_a_faulty_adapter_is_not_served(
    robot: Any, tiny_model_dir: Path, adapter: Path, tmp_path: Path, fault: str
):
    spoil_folder, words = ADAPTER_FAULTS[fault]
    folder = tmp_path / 'adapter'
    shutil.copytree(adapter, folder)
    spoil_folder(folder)
    assert robot.set_parameter('model', str(tiny_model_dir)).successful
    with robot.parameter('adapter', str(folder), default=''):
        is_not_served(robot, folder, words)
