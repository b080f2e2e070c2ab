"""Parameter files that are nearly right: the node starts with sound values, or says why not."""

from __future__ import annotations

from contextlib import suppress
import json
import math
from pathlib import Path
import signal
from typing import Any

from fuzzing import damaged_bytes, fuzz, mostly, odd_document
from hypothesis import given
from hypothesis import strategies as st
import pytest
import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
import yaml

from llm_mde_ros.__main__ import main
from llm_mde_ros.parameters import SPECS, DepthNodeParameters, declare

RCLError = rclpy_implementation.RCLError
REPOSITORY = Path(__file__).resolve().parents[2]
USUAL = yaml.safe_load((REPOSITORY / 'config/depth.yaml').read_text())


@st.composite
def files(draw: Any) -> bytes:
    """Return our parameter file with other values, or damaged."""
    text = json.dumps(draw(odd_document(USUAL))).encode()  # JSON is YAML
    return draw(mostly(st.just(text), damaged_bytes(text)))


@pytest.fixture(scope='module')
def folder(own_domain: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('parameters')


@fuzz(25)
@given(text=files())
def test_a_parameter_file_gives_sound_values_or_a_sentence(text: bytes, folder: Path) -> None:
    path = folder / 'parameters.yaml'
    path.write_bytes(text)
    context = rclpy.Context()
    with suppress(RCLError):  # main makes a sentence of it
        rclpy.init(args=['--ros-args', '--params-file', str(path)], context=context)
    if not context.ok():
        return
    with suppress(ValueError):
        node = Node(
            'depth_node', context=context, automatically_declare_parameters_from_overrides=True
        )
        check(declare(node))
    context.try_shutdown()


def check(parameters: DepthNodeParameters) -> None:
    for spec in SPECS.values():
        value, limits = getattr(parameters, spec.name), spec.metadata['limits']
        assert type(value) is type(spec.default)
        if limits:
            assert math.isfinite(value)
            assert limits[0] <= value <= limits[1]
    assert not parameters.save_folder.startswith('~')


@pytest.mark.parametrize(
    'text',
    [
        '""',
        '/**: {ros__parameters: {model: []}}',
        '/**: {ros__parameters: {save_folder: ~nobody_at_all/frames}}',
        '[',
        'a: b',
    ],
)
def test_the_program_ends_with_a_sentence(text: str, folder: Path) -> None:
    path = folder / 'broken.yaml'
    path.write_text(text)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit, match='depth_node: '):
            main(['--ros-args', '--params-file', str(path)])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not rclpy.ok()
