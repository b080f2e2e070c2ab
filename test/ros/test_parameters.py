"""Parameters: one place for defaults, ranges checked, documents that equal the code."""

from dataclasses import fields
from pathlib import Path

import pytest
from rclpy.parameter import Parameter
import yaml

from llm_mde_ros.interface import parameters_markdown, parameters_yaml, topics_markdown
from llm_mde_ros.outputs import OUTPUT_TOPICS, OutputSettings
from llm_mde_ros.parameters import (
    SPECS,
    DepthNodeParameters,
    descriptor,
    read_on_configure,
    unknown_parameter_sentence,
)
from llm_mde_ros.topics import OUTPUTS

CONFIG = Path(__file__).resolve().parents[2] / 'config' / 'depth.yaml'


def test_the_parameter_file_is_the_generated_one():
    assert CONFIG.read_text() == parameters_yaml(), (
        'run: python -m llm_mde_ros.interface yaml > config/depth.yaml'
    )


def test_the_parameter_file_has_every_default():
    written = yaml.safe_load(CONFIG.read_text())['/**']['ros__parameters']
    assert written == {name: spec.default for name, spec in SPECS.items()}


def test_defaults_of_the_outputs_are_those_of_output_settings():
    assert DepthNodeParameters().output_settings == OutputSettings()


def test_the_tables_name_every_parameter_and_topic():
    for name in SPECS:
        assert f'| `{name}` |' in parameters_markdown()
    for name in (*OUTPUT_TOPICS, 'stats', 'image', 'camera_info', '/diagnostics'):
        assert f'| `{name}` |' in topics_markdown()
    assert {topic.name for topic in OUTPUTS} == {*OUTPUT_TOPICS, 'stats'}


@pytest.mark.parametrize('spec', fields(DepthNodeParameters), ids=lambda spec: spec.name)
def test_descriptors_have_type_description_unit_and_range(spec):
    made = descriptor(spec)
    assert made.type == Parameter.Type.from_parameter_value(spec.default).value
    assert made.description
    assert made.description.endswith(f'[{spec.metadata["unit"]}]') or not spec.metadata['unit']
    if isinstance(spec.default, float | int) and not isinstance(spec.default, bool):
        (limits,) = made.integer_range or made.floating_point_range
        assert limits.from_value <= spec.default <= limits.to_value
    assert made.read_only == (spec.metadata['changes'] == 'start')


@pytest.mark.parametrize(
    ('name', 'value', 'sentence'),
    [
        ('points.stride', 0, 'points.stride must be between 1 and 64 pixels, not 0.'),
        ('points.stride', True, 'points.stride must be of type int'),
        ('hfov_deg', float('nan'), 'hfov_deg must be between 1 and 170 deg, not nan.'),
        ('depth.encoding', 'mono8', "depth.encoding must be one of 32FC1, 16UC1, not 'mono8'."),
        ('depth.min_m', 30.0, 'depth.min_m (30) must be less than depth.max_m (20).'),
        ('points.max_range_m', 0.0, 'points.min_range_m (0.1) must be less than'),
        ('preview.min_m', 8.0, 'preview.min_m (8) must be less than preview.max_m (8).'),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_a_sentence(name, value, sentence):
    with pytest.raises(ValueError, match='must be') as error:
        DepthNodeParameters().changed([Parameter(name, value=value)])
    assert sentence in str(error.value)


def test_changed_takes_known_names_and_whole_numbers_for_floats():
    changed = DepthNodeParameters().changed(
        [Parameter('max_rate_hz', value=10), Parameter('points.stride', value=4)]
    )
    assert (changed.max_rate_hz, changed.points_stride) == (10.0, 4)
    assert isinstance(changed.max_rate_hz, float)
    assert (
        changed.changed([Parameter('qos_overrides./points.publisher.depth', value=3)]) == changed
    )


@pytest.mark.parametrize(('value', 'compile'), [(True, 'on'), (False, 'off'), ('auto', 'auto')])
def test_on_and_off_may_come_as_yaml_reads_them(value, compile):
    changed = DepthNodeParameters().changed([Parameter('compile', value=value)])
    assert changed.compile == compile
    with pytest.raises(ValueError, match='precision must be of type str, not True'):
        changed.changed([Parameter('precision', value=True)])


def test_parameters_of_the_model_act_on_configure():
    before = DepthNodeParameters()
    assert read_on_configure(before, before) == []
    after = before.changed([Parameter('model', value='other'), Parameter('hfov_deg', value=90.0)])
    assert read_on_configure(before, after) == ['model']


@pytest.mark.parametrize(
    ('wrong', 'right'), [('point.stride', 'points.stride'), ('max_rate', 'max_rate_hz')]
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(wrong, right):
    assert f"'{wrong}' is ignored; the nearest known one is '{right}'" in (
        unknown_parameter_sentence(wrong)
    )


def test_an_unknown_key_like_none_is_told_alone():
    assert unknown_parameter_sentence('qwx').endswith("'qwx' is ignored.")
