"""Loading and warming up, with the real model and a log that can be read."""

from __future__ import annotations

from dataclasses import replace
import hashlib
import math
from pathlib import Path
import threading

import pytest
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from llm_mde_core.estimator import DepthEstimator
from llm_mde_core.export import export
from llm_mde_core.geometry import Camera
from llm_mde_core.lora import add_lora
from llm_mde_core.model import LLMMDEForDepthEstimation
from llm_mde_core.model_files import CHECKPOINTS
from llm_mde_ros.announced_camera import announced_camera
from llm_mde_ros.model_loading import expected_camera, load_model
from llm_mde_ros.parameters import DepthNodeParameters


class Log:
    """Keeps the sentences by level."""

    def __init__(self) -> None:
        self.sentences: list[tuple[str, str]] = []

    def info(self, sentence: str) -> None:
        self.sentences.append(('info', sentence))

    def warning(self, sentence: str) -> None:
        self.sentences.append(('warning', sentence))


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> list[Camera]:
    """Return the cameras that an estimator is warmed up with."""
    cameras, warm_up = [], DepthEstimator.warm_up

    def recorded(estimator: DepthEstimator, camera: Camera) -> float:
        cameras.append(camera)
        return warm_up(estimator, camera)

    monkeypatch.setattr(DepthEstimator, 'warm_up', recorded)
    return cameras


def parameters_of(model: Path, **more: object) -> DepthNodeParameters:
    return DepthNodeParameters(model=str(model), device='cpu', compile='off', **more)


def test_the_model_is_warmed_up_for_the_expected_camera(
    tiny_model_dir: Path, cameras: list[Camera]
):
    log = Log()
    parameters = parameters_of(tiny_model_dir, warm_up_width=96, warm_up_height=64, hfov_deg=90.0)
    assert load_model(parameters, log).estimator.name == str(tiny_model_dir)
    (camera,) = cameras
    assert (camera.width, camera.height, round(camera.fx, 6)) == (96, 64, 48.0)
    (before, after) = log.sentences
    assert '96x64' in before[1]
    assert after[1].startswith('Warm after')


@pytest.mark.parametrize('compiles', [True, False])
def test_what_is_compiled_is_compiled_for_the_camera_that_is_announced(
    tiny_model_dir: Path,
    cameras: list[Camera],
    monkeypatch: pytest.MonkeyPatch,
    compiles: bool,
):
    monkeypatch.setattr('llm_mde_core.estimator.compile_frame', lambda frame, *_: frame)
    parameters = replace(parameters_of(tiny_model_dir), compile='on' if compiles else 'off')
    announced = Camera.from_hfov(width=80, height=60, hfov_deg=70.0)
    load_model(parameters, Log(), announced=lambda: announced)
    load_model(parameters, Log(), announced=lambda: None)
    expected = expected_camera(parameters)
    assert cameras == [announced if compiles else expected, expected]


@pytest.mark.parametrize(('focal_px', 'found'), [(500.0, True), (math.nan, False)])
def test_the_camera_is_announced_by_its_calibration(
    camera_node: Node, focal_px: float, found: bool
):
    info = CameraInfo(width=640, height=480, distortion_model='plumb_bob')
    info.k = [focal_px, 0.0, 320.0, 0.0, focal_px, 240.0, 0.0, 0.0, 1.0]
    publisher = camera_node.create_publisher(CameraInfo, 'camera_info', 1)
    done = threading.Event()

    def publish() -> None:
        while not done.wait(0.02):
            publisher.publish(info)

    camera_driver = threading.Thread(target=publish)
    camera_driver.start()
    try:
        camera = announced_camera(camera_node, timeout_s=20.0, rectified=False)
    finally:
        done.set()
        camera_driver.join()
    assert (camera is not None) == found
    assert not found or (camera.fx, camera.width) == (focal_px, 640)
    assert 'camera_configuring' not in camera_node.get_node_names()


def test_no_camera_may_be_announced(camera_node: Node):
    assert announced_camera(camera_node, timeout_s=0.1, rectified=False) is None


def test_a_camera_info_that_is_refused_does_not_stop_the_configuration(
    camera_node: Node, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise rclpy_implementation.RCLError('topic not found in allow rule')

    monkeypatch.setattr(Node, 'create_subscription', refuse)
    assert announced_camera(camera_node, timeout_s=20.0, rectified=False) is None


@pytest.mark.parametrize('zero', ['warm_up_width', 'warm_up_height'])
def test_without_a_size_there_is_no_warm_up(
    tiny_model_dir: Path, cameras: list[Camera], zero: str
):
    log = Log()
    load_model(parameters_of(tiny_model_dir, **{zero: 0}), log)
    assert cameras == log.sentences == []


def test_a_size_that_the_network_refuses_is_a_warning(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_estimator: DepthEstimator, _camera: Camera) -> float:
        raise ValueError('it was exported for 320x240')

    monkeypatch.setattr(DepthEstimator, 'warm_up', refuse)
    log = Log()
    assert load_model(parameters_of(tiny_model_dir), log)
    assert log.sentences[-1] == ('warning', 'Not warmed up: it was exported for 320x240')


def sha256sum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_weights_of_model_and_adapter_are_told_by_their_digests(
    tiny_model_dir: Path, tiny_model: LLMMDEForDepthEstimation, tmp_path: Path
):
    add_lora(tiny_model).save_pretrained(tmp_path)
    parameters = parameters_of(tiny_model_dir, warm_up_width=0)
    plain = load_model(parameters, Log()).identity
    adapted = load_model(replace(parameters, adapter=str(tmp_path)), Log()).identity
    assert plain['model_sha256'] == sha256sum(tiny_model_dir / 'model.safetensors')
    assert 'adapter_sha256' not in plain
    assert adapted['model_sha256'] == plain['model_sha256']
    assert adapted['adapter_sha256'] == sha256sum(tmp_path / 'adapter_model.safetensors')


def test_a_bundled_model_tells_the_digest_of_its_weights_also_on_the_cpu():
    loaded = load_model(parameters_of(Path('tiny'), warm_up_width=0), Log())
    expected = sha256sum(CHECKPOINTS / 'tiny' / 'model.safetensors')
    assert loaded.identity['model_sha256'] == expected
    assert loaded.on_cpu().identity['model_sha256'] == expected


def test_the_digest_of_weights_in_parts_is_of_all_of_them(
    tiny_model: LLMMDEForDepthEstimation, tmp_path: Path
):
    tiny_model.save_pretrained(tmp_path, max_shard_size='40KB')
    parts = sorted(tmp_path.glob('*.safetensors'))
    assert len(parts) > 1
    identity = load_model(parameters_of(tmp_path, warm_up_width=0), Log()).identity
    together = b''.join(part.read_bytes() for part in parts)
    assert identity['model_sha256'] == hashlib.sha256(together).hexdigest()


def test_an_exported_model_tells_the_digest_of_its_network(tiny_model_dir: Path, tmp_path: Path):
    pytest.importorskip('onnxruntime')
    export(tiny_model_dir, Camera.from_hfov(width=64, height=48, hfov_deg=60.0), tmp_path / 'onnx')
    identity = load_model(parameters_of(tmp_path / 'onnx', warm_up_width=0), Log()).identity
    assert identity['model_sha256'] == sha256sum(tmp_path / 'onnx' / 'network.onnx')
