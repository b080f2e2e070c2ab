"""A model as ONNX: the same depth, for one size; what differs is not left behind."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
import shlex
import shutil
import sys
from typing import Any

from conftest import small_config
import numpy as np
import pytest
import torch
from transformers import Dinov2Config, GPT2Config, PreTrainedTokenizerBase

from llm_mde_core import Camera, DepthEstimator, LLMMDEForDepthEstimation
from llm_mde_core import export as module
from llm_mde_core import exported as exported_module
from llm_mde_core.export import TOLERANCE, compare, export
from llm_mde_core.exported import FILE, ExportedNetwork, choose_providers

CAMERA = Camera.from_hfov(width=64, height=48, hfov_deg=60.0)
GPUS = ['TensorrtExecutionProvider', 'CUDAExecutionProvider']


@pytest.fixture(scope='session')
def exported(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('export') / 'new' / 'tiny_onnx'
    assert export(tiny_model_dir, CAMERA, folder) <= TOLERANCE
    return folder


@pytest.fixture(scope='session')
def estimators(tiny_model_dir: Path, exported: Path) -> tuple[DepthEstimator, DepthEstimator]:
    """Return the model in torch and in onnxruntime."""
    folders = (tiny_model_dir, exported)
    return tuple(DepthEstimator.from_pretrained(folder, device='cpu') for folder in folders)


@pytest.mark.parametrize('times', [1, 2])
def test_exported_model_says_what_the_model_says(
    estimators: tuple[DepthEstimator, DepthEstimator], rgb: np.ndarray, times: int
) -> None:
    """Twice the pixels through the same lens become the same input of the network."""
    image = rgb.repeat(times, axis=0).repeat(times, axis=1)
    camera = CAMERA.resized(width=64 * times, height=48 * times)
    ours, theirs = (estimator.infer(image, camera) for estimator in estimators)
    np.testing.assert_allclose(theirs.depth_m, ours.depth_m, rtol=1e-4)
    np.testing.assert_allclose(theirs.confidence, ours.confidence, atol=1e-4)
    assert (theirs.prompt, theirs.depth_class) == (ours.prompt, ours.depth_class)
    assert theirs.prompt


def test_focal_length_is_an_input(
    estimators: tuple[DepthEstimator, DepthEstimator], rgb: np.ndarray
) -> None:
    """A longer lens that makes as large an input gives the depth that torch gives."""
    camera = Camera.from_hfov(width=64, height=48, hfov_deg=59.0)
    ours, theirs = (estimator.infer(rgb, camera).depth_m for estimator in estimators)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    assert np.abs(ours / estimators[0].infer(rgb, CAMERA).depth_m - 1.0).max() > 0.01


def test_other_size_is_refused_with_the_command_that_mends_it(
    estimators: tuple[DepthEstimator, DepthEstimator],
) -> None:
    plain, onnx = estimators
    camera = Camera.from_hfov(width=80, height=30, hfov_deg=100.0)
    with pytest.raises(ValueError, match=r'64 x 48 pixels at 60.0 degrees, not for 80 x 30 pixel'):
        onnx.infer(np.zeros((30, 80, 3), np.uint8), camera)
    with pytest.raises(ValueError, match=r'llm-mde export .* --out FOLDER$') as refusal:
        onnx.infer(np.zeros((30, 80, 3), np.uint8), camera)

    words = shlex.split(str(refusal.value))
    options = dict(pairwise(words))
    assert options['export'] == plain.name
    again = Camera.from_hfov(
        width=int(options['--width']),
        height=int(options['--height']),
        hfov_deg=float(options['--hfov-deg']),
    )
    fits = [
        plain.processor.fit(height=c.height, width=c.width, focal_px=c.focal_px)
        for c in (again, camera)
    ]
    assert fits[0] == fits[1]


def test_network_takes_one_size(exported: Path) -> None:
    network = ExportedNetwork(exported, device='cpu')
    with pytest.raises(ValueError, match=r'shape \(1, 3, 48, 64\), not \(1, 3, 64, 64\)'):
        network(torch.zeros(1, 3, 64, 64), torch.ones(1))


def test_on_the_cpu_onnxruntime_opens_it_anew(
    exported: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = DepthEstimator.from_pretrained(exported)
    devices, open_session = [], exported_module.open_session

    def recorded(file: Path, *, device: str) -> Any:
        devices.append(device)
        return open_session(file, device=device)

    monkeypatch.setattr(exported_module, 'open_session', recorded)
    moved = estimator.on_cpu()
    assert devices == ['cpu']
    assert (moved.name, moved.precision) == (estimator.name, 'fp32')
    depth_m = estimator.infer(rgb, CAMERA).depth_m
    np.testing.assert_allclose(moved.infer(rgb, CAMERA).depth_m, depth_m, rtol=1e-4)


def test_warm_up_needs_no_right_guess_of_the_camera(
    estimators: tuple[DepthEstimator, DepthEstimator],
) -> None:
    _, onnx = estimators
    assert onnx.warm_up(Camera.from_hfov(width=640, height=200, hfov_deg=90.0)) > 0.0


def test_info_is_the_models(estimators: tuple[DepthEstimator, DepthEstimator]) -> None:
    plain, onnx = (estimator.info() for estimator in estimators)
    assert onnx['parameters_total'] > 0
    names = ('parameters', 'parameters_total', 'vision', 'depth_range_m', 'precision')
    assert {name: onnx[name] for name in names} == {name: plain[name] for name in names}


def test_causal_language_model_and_dinov2_can_be_exported(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    vision = {'hidden_size': 32, 'num_attention_heads': 2, 'image_size': 64, 'patch_size': 16}
    config = small_config(
        vision_config=Dinov2Config(num_hidden_layers=1, **vision),
        vision_levels=(1, 1),
        language_config=GPT2Config(vocab_size=400, n_embd=24, n_layer=1, n_head=2),
    )
    torch.manual_seed(0)
    LLMMDEForDepthEstimation.create(config, tokenizer).save_pretrained(tmp_path / 'model')
    assert export(tmp_path / 'model', CAMERA, tmp_path / 'onnx') <= TOLERANCE


def test_what_differs_is_not_left_behind(
    exported: Path,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if the exporter had made a mistake: it writes the network of another model."""

    class WrongProgram:
        def save(self, file: Path) -> None:
            shutil.copy(exported / FILE, file)

    torch.manual_seed(1)
    LLMMDEForDepthEstimation.create(small_config(), tokenizer).save_pretrained(tmp_path / 'model')
    monkeypatch.setattr(module, 'to_onnx', lambda *_: WrongProgram())
    with pytest.raises(ValueError, match=r'differs from torch by .* more than 0\.1%: not written'):
        export(tmp_path / 'model', CAMERA, tmp_path / 'out' / 'onnx')
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize('value', [1.0, float('nan')])
def test_comparison_notices_one_changed_weight(
    tiny_model_dir: Path, exported: Path, value: float
) -> None:
    network = LLMMDEForDepthEstimation.from_pretrained(tiny_model_dir).eval()
    onnx = ExportedNetwork(exported, device='cpu')
    assert compare(network, onnx) <= TOLERANCE
    with torch.no_grad():
        network.language.backbone.encoder.layer[1].output.dense.bias[0] += value
    assert not compare(network, onnx) <= TOLERANCE


def test_nothing_is_overwritten(tiny_model_dir: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match='remove it, or name another folder'):
        export(tiny_model_dir, CAMERA, tmp_path)
    with pytest.raises(ValueError, match=f'is exported already: export {tiny_model_dir}'):
        export(exported, CAMERA, tmp_path / 'again')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'adapter': 'my_room'}, 'takes no adapter: give it to llm-mde export'),
        ({'precision': 'bf16'}, "of precision 'fp32', not 'bf16'"),
        ({'compile': 'on'}, "compile is 'auto' or 'off'"),
    ],
)
def test_what_was_decided_at_export_cannot_be_changed(
    exported: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DepthEstimator.from_pretrained(exported, device='cpu', **options)


def test_without_onnxruntime_a_sentence_says_what_to_install(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(RuntimeError, match='pip install onnxruntime'):
        DepthEstimator.from_pretrained(exported)


def test_damaged_file_is_named(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / 'damaged'))
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:1000])
    with pytest.raises(RuntimeError, match=f'cannot run {folder / FILE}'):
        DepthEstimator.from_pretrained(folder)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that stands for a network; this user's cache is beside its folder."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / FILE).write_bytes(b'network')
    return tmp_path / 'model' / FILE


def test_fastest_provider_comes_first_and_cpu_means_cpu(network: Path) -> None:
    available = ['CPUExecutionProvider', *reversed(GPUS)]
    auto = choose_providers('auto', available=available, file=network)
    assert [name for name, _ in auto] == [*GPUS, 'CPUExecutionProvider']
    assert [sorted(options) for _, options in auto[1:]] == [['device_id'], []]
    on_cpu = choose_providers('cpu', available=available, file=network)
    assert [name for name, _ in on_cpu] == ['CPUExecutionProvider']
    bare = choose_providers('auto', available=['CPUExecutionProvider'], file=network)
    assert bare == on_cpu
    cuda = choose_providers('auto', available=[GPUS[1], 'CPUExecutionProvider'], file=network)
    assert cuda == auto[1:]


def engines_of(network: Path) -> Path:
    _, options = choose_providers('auto', available=GPUS, file=network)[0]
    assert options['trt_engine_cache_enable']
    return Path(options['trt_engine_cache_path'])


def test_an_engine_is_kept_for_its_network_where_only_this_user_writes(network: Path) -> None:
    engines = engines_of(network)
    assert engines.parent == network.parents[1] / 'cache' / 'llm_mde_ros' / 'engines'
    assert engines.stat().st_mode & 0o777 == 0o700
    assert engines_of(network) == engines
    (network.parent / f'{FILE}.data').write_bytes(b'weights')
    with_weights = engines_of(network)
    network.write_bytes(b'another network')
    assert len({engines, with_weights, engines_of(network)}) == 3


def test_without_a_folder_of_this_user_no_engine_is_kept(network: Path) -> None:
    (network.parents[1] / 'cache').write_text('no folder')
    _, options = choose_providers('auto', available=GPUS, file=network)[0]
    assert sorted(options) == ['device_id']
