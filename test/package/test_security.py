"""Nothing in a model or an adapter is executed: pickles and code of their own are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
import json
from pathlib import Path
import pickle
import re
import shutil
import socket

import pytest

from llm_mde_core import DepthEstimator, LLMMDEForDepthEstimation, add_lora

ROOT = Path(__file__).resolve().parents[2]
ALWAYS_LOADED = 'from pathlib import Path\nPath({!r}).write_text("ran")\n'


class Bomb:
    """A pickle of it writes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.mark, 'ran')


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Return the file that a payload would write; it must not be there in the end."""
    mark = tmp_path / 'executed'
    yield mark
    assert not mark.exists()


@pytest.fixture
def pickled(mark: Path) -> bytes:
    return pickle.dumps(Bomb(mark))


@pytest.fixture
def model(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / 'model'))


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    network = LLMMDEForDepthEstimation.from_pretrained(model)
    add_lora(network).save_pretrained(tmp_path / 'adapter')
    return tmp_path / 'adapter'


def load(model: Path, adapter: Path | None = None) -> DepthEstimator:
    return DepthEstimator.from_pretrained(model, adapter=adapter, device='cpu')


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / 'proof')))
    assert (tmp_path / 'proof').read_text() == 'ran'


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.bin', 'model.pt', 'model.pkl'])
def test_a_model_of_pickled_weights_alone_is_refused(
    model: Path, pickled: bytes, name: str
) -> None:
    (model / 'model.safetensors').unlink()
    (model / name).write_bytes(pickled)
    with pytest.raises(OSError, match='safetensors'):
        load(model)


def test_a_pickle_beside_the_weights_is_not_looked_at(model: Path, pickled: bytes) -> None:
    for name in ('pytorch_model.bin', 'tokenizer.pkl', 'training_args.bin'):
        (model / name).write_bytes(pickled)
    load(model)


def test_a_pickle_that_is_called_safetensors_is_refused(model: Path, pickled: bytes) -> None:
    (model / 'model.safetensors').write_bytes(pickled)
    with pytest.raises(ValueError, match='damaged'):
        load(model)


def test_an_index_that_names_pickled_parts_is_refused(model: Path, pickled: bytes) -> None:
    (model / 'model.safetensors').unlink()
    (model / 'part.bin').write_bytes(pickled)
    index = json.dumps({'metadata': {}, 'weight_map': {'head.weight': 'part.bin'}})
    for name in ('model.safetensors.index.json', 'pytorch_model.bin.index.json'):
        (model / name).write_text(index)
    with pytest.raises(ValueError, match='only safetensors files of the same folder'):
        load(model)


@pytest.mark.parametrize('keeps_weights', [True, False])
def test_a_pickle_beside_or_in_place_of_an_adapter_is_not_read(
    model: Path, adapter: Path, pickled: bytes, keeps_weights: bool
) -> None:
    (adapter / 'adapter_model.bin').write_bytes(pickled)
    if keeps_weights:
        load(model, adapter)
        return
    (adapter / 'adapter_model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'adapter_model\.safetensors'):
        load(model, adapter)


def test_an_adapter_that_is_a_pickle_is_refused(
    model: Path, adapter: Path, pickled: bytes
) -> None:
    (adapter / 'adapter_model.safetensors').write_bytes(pickled)
    with pytest.raises(ValueError, match='damaged'):
        load(model, adapter)


def change_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_code_that_a_model_brings_along_is_not_run(model: Path, mark: Path) -> None:
    for name in ('configuration_own', 'modeling_own', 'tokenization_own', 'processing_own'):
        (model / f'{name}.py').write_text(ALWAYS_LOADED.format(str(mark)))
    auto = {
        'AutoConfig': 'configuration_own.Own',
        'AutoModel': 'modeling_own.Own',
        'AutoModelForDepthEstimation': 'modeling_own.Own',
        'AutoImageProcessor': 'processing_own.Own',
    }
    whole = (model / 'config.json').read_text()
    for part in ('', 'vision_config', 'language_config'):
        config = json.loads(whole)
        (config[part] if part else config)['auto_map'] = auto
        (model / 'config.json').write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r'config\.json sets auto_map'):
            load(model)
    (model / 'config.json').write_text(whole)
    tokenizer = {'AutoTokenizer': ['tokenization_own.Own', 'tokenization_own.Own']}
    change_json(model / 'tokenizer_config.json', auto_map=tokenizer)
    change_json(model / 'preprocessor_config.json', auto_map=auto)
    load(model)


def test_a_class_of_tokenizer_that_only_its_own_code_has_is_not_run(
    model: Path, mark: Path
) -> None:
    (model / 'tokenization_own.py').write_text(ALWAYS_LOADED.format(str(mark)))
    change_json(
        model / 'tokenizer_config.json',
        tokenizer_class='OwnTokenizer',
        auto_map={'AutoTokenizer': ['tokenization_own.OwnTokenizer', None]},
    )
    with suppress(OSError, ValueError):  # transformers may take a class of its own instead
        load(model)


def test_code_that_an_adapter_names_is_not_run(model: Path, adapter: Path, mark: Path) -> None:
    (adapter / 'own.py').write_text(ALWAYS_LOADED.format(str(mark)))
    change_json(
        adapter / 'adapter_config.json',
        auto_mapping={'base_model_class': 'Own', 'parent_library': 'own'},
    )
    load(model, adapter)


class NetworkUsedError(AssertionError):
    """Something asked for another machine."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **_: object) -> None:
        raise NetworkUsedError(f'asked for {args[:2]}')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)


@pytest.mark.usefixtures('no_network')
@pytest.mark.parametrize('name', ['someone/model', 'tinny', 'https://somewhere/model'])
def test_nothing_is_downloaded_unless_it_is_allowed(name: str) -> None:
    with pytest.raises(FileNotFoundError, match='allow_download'):
        DepthEstimator.from_pretrained(name)


@pytest.mark.usefixtures('no_network')
def test_a_model_or_adapter_in_a_folder_needs_no_network(model: Path, adapter: Path) -> None:
    load(model, adapter)
    with pytest.raises(FileNotFoundError, match='no adapter'):
        load(model, Path('someone/adapter'))


def test_every_file_that_the_page_names_is_there() -> None:
    page = (ROOT / 'SECURITY.md').read_text()
    names = re.findall(r'\b(?:test|config)/[\w/]+\.\w+', page) + re.findall(r'\b\w+\.lock\b', page)
    names = [name for name in names if name != 'torch.lock']
    assert len(names) >= 8
    for name in names:
        assert (ROOT / name).exists(), name
