"""
Every parameter of the node: default, range, unit, meaning and when it can change.

This is the one place for them: the descriptors that the node declares, config/depth.yaml and
the table of the README (see interface.py) are made from it. Defaults of the outputs are those of
OutputSettings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, replace
import difflib
from functools import cached_property
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_mde_core.filters import FilterSettings
from llm_mde_ros.outputs import DEPTH_ENCODINGS, PREVIEW_COLORMAPS, OutputSettings
from llm_mde_ros.reference_settings import ReferenceSettings

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node
    from rclpy.parameter import Parameter

# When a parameter can change.
ANY_TIME = 'any time'  # acts on the next frame
CONFIGURE = 'configure'  # while no model is loaded
START = 'start'

# Parameters that rclpy itself declares.
FOREIGN_PREFIXES = ('use_sim_time', 'start_type_description_service', 'qos_overrides.')


def _parameter(
    default: Any,
    description: str,
    *,
    name: str = '',
    unit: str = '',
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    changes: str = ANY_TIME,
) -> Any:
    metadata = {
        'name': name,
        'description': description,
        'unit': unit,
        'limits': limits,
        'choices': choices,
        'changes': changes,
    }
    return field(default=default, metadata=metadata)


def _output(name: str, description: str, **more: Any) -> Any:
    """Parameter that is a field of OutputSettings; its default lives there."""
    default = getattr(OutputSettings, name.replace('.', '_'))
    return _parameter(default, description, name=name, **more)


def _filter(name: str, description: str, **more: Any) -> Any:
    """Parameter that is a field of FilterSettings; its default lives there."""
    default = getattr(FilterSettings, name.replace('.', '_'))
    return _parameter(default, description, name=f'filters.{name}', **more)


def _reference(name: str, description: str, **more: Any) -> Any:
    """Parameter that is a field of ReferenceSettings; its default lives there."""
    default = getattr(ReferenceSettings, name.replace('.', '_'))
    return _parameter(default, description, name=name, **more)


@dataclass(frozen=True)
class DepthNodeParameters:
    """Values of all parameters, checked: ValueError with a sentence when one cannot be."""

    model: str = _parameter(
        'tiny',
        'Model: bundled name, folder, or (allow_download) owner/name@commit of the hub',
        changes=CONFIGURE,
    )
    adapter: str = _parameter(
        '',
        'Folder of a peft adapter; empty: none. While a model is loaded, one that fails its '
        'self-test is refused, and the parameter says again what serves',
    )
    device: str = _parameter('auto', 'auto, cpu, cuda, cuda:N or mps', changes=CONFIGURE)
    precision: str = _parameter(
        'auto',
        'Number format of the network; auto: what suits the device',
        choices=('auto', 'fp32', 'fp16', 'bf16'),
        changes=CONFIGURE,
    )
    compile: str = _parameter(
        'auto',
        'Compile the network; auto: on CUDA',
        choices=('auto', 'on', 'off'),
        changes=CONFIGURE,
    )
    warm_up_width: int = _parameter(
        640,
        'Expect images of this width, so that the first one is as fast as the next; 0: do not',
        name='warm_up.width',
        unit='pixels',
        limits=(0, 8192),
        changes=CONFIGURE,
    )
    warm_up_height: int = _parameter(
        480,
        'Expect images of this height, and of hfov_deg where no camera_info comes; 0: do not',
        name='warm_up.height',
        unit='pixels',
        limits=(0, 8192),
        changes=CONFIGURE,
    )
    allow_download: bool = _parameter(
        False, 'Fetch a model from the hub when it is not on this machine', changes=START
    )
    cpu_fallback: bool = _parameter(
        False, 'Go on, more slowly, on the CPU when the GPU is out of memory'
    )
    allowed_folder: str = _parameter(
        '',
        'A model or adapter asked for at run time is a folder in here, its files too; empty: any',
        changes=START,
    )
    save_folder: str = _parameter(
        '~/.ros/llm_mde_ros', 'Where ~/save_frame makes a folder for each frame', changes=START
    )
    autostart: bool = _parameter(
        True, 'Configure and activate without a lifecycle manager', changes=START
    )

    image_transport: str = _parameter(
        'raw', 'Subscribe to image or to image/compressed', choices=('raw', 'compressed')
    )
    image_reliability: str = _parameter(
        'auto',
        'QoS of the image and camera_info subscriptions; auto: what the publishers offer',
        choices=('auto', 'reliable', 'best_effort'),
    )
    output_reliability: str = _parameter(
        'reliable', 'QoS of the outputs', choices=('reliable', 'best_effort'), changes=START
    )
    output_depth: int = _parameter(
        1,
        'QoS history of the outputs; more than 1 gives slow readers old frames',
        unit='messages',
        limits=(1, 100),
        changes=START,
    )

    image_rectified: bool = _parameter(
        False,
        'The image is rectified though camera_info has distortion, as from image_proc: P holds',
    )
    hfov_deg: float = _parameter(
        60.0, 'Horizontal field of view without camera_info', unit='deg', limits=(1.0, 170.0)
    )
    camera_info_timeout_s: float = _parameter(
        2.0, 'Wait this long for camera_info, then use hfov_deg', unit='s', limits=(0.0, 3600.0)
    )
    max_rate_hz: float = _parameter(
        0.0, 'Process at most this many images per second; 0: all', unit='Hz', limits=(0.0, 1000.0)
    )
    target_rate_hz: float = _parameter(
        0.0,
        'Diagnostics warn when depth comes less often; 0: than the images',
        unit='Hz',
        limits=(0.0, 1000.0),
    )
    max_megapixels: float = _parameter(
        16.0,
        'Larger images are dropped before they are decoded',
        unit='megapixels',
        limits=(0.01, 64.0),
    )
    diagnostics_period_s: float = _parameter(
        1.0, 'Time between two messages on /diagnostics', unit='s', limits=(0.1, 3600.0)
    )

    filters_temporal_enable: bool = _filter('temporal.enable', 'Smooth depth over time')
    filters_temporal_time_s: float = _filter(
        'temporal.time_s',
        'Follow 63 % of a small change in this time',
        unit='s',
        limits=(0.01, 60.0),
    )
    filters_temporal_max_step: float = _filter(
        'temporal.max_step',
        'Follow a larger change at once; relative to the depth',
        limits=(0.001, 10.0),
    )
    filters_median_enable: bool = _filter(
        'median.enable', 'Take the median of each pixel and its eight neighbours'
    )
    filters_edge_enable: bool = _filter(
        'edge.enable', 'Points that fly between a near and a far surface become unknown'
    )
    filters_edge_max_step: float = _filter(
        'edge.max_step',
        'Surfaces closer than this are one; relative to the depth',
        limits=(0.001, 10.0),
    )

    depth_encoding: str = _output(
        'depth.encoding',
        'Of depth/image: metres with NaN, or millimetres with 0',
        choices=DEPTH_ENCODINGS,
    )
    depth_min_m: float = _output(
        'depth.min_m', 'Nearer depth is published as unknown', unit='m', limits=(0.0, 1000.0)
    )
    depth_max_m: float = _output(
        'depth.max_m', 'Farther depth is published as unknown', unit='m', limits=(0.0, 1000.0)
    )
    preview_min_m: float = _output(
        'preview.min_m', 'Depth of the first colour', unit='m', limits=(0.0, 1000.0)
    )
    preview_max_m: float = _output(
        'preview.max_m', 'Depth of the last colour', unit='m', limits=(0.0, 1000.0)
    )
    preview_colormap: str = _output(
        'preview.colormap', 'Colours of depth/preview', choices=tuple(PREVIEW_COLORMAPS)
    )
    points_color: bool = _output('points.color', 'Points carry rgb')
    points_organized: bool = _output(
        'points.organized', 'One point per pixel with NaN; false: one row of valid points'
    )
    points_stride: int = _output(
        'points.stride', 'Take every n-th row and column', unit='pixels', limits=(1, 64)
    )
    points_range_enable: bool = _output(
        'points.range.enable', 'Points nearer or farther than these limits are left out'
    )
    points_min_range_m: float = _output(
        'points.min_range_m', 'Nearer points are left out', unit='m', limits=(0.0, 1000.0)
    )
    points_max_range_m: float = _output(
        'points.max_range_m', 'Farther points are left out', unit='m', limits=(0.0, 1000.0)
    )
    points_confidence_enable: bool = _output(
        'points.confidence.enable', 'Points less certain than this limit are left out'
    )
    points_min_confidence: float = _output(
        'points.min_confidence', 'Less certain points are left out', limits=(0.0, 1.0)
    )
    points_max_rate_hz: float = _parameter(
        0.0,
        'At most this many clouds per second; 0: one per image',
        name='points.max_rate_hz',
        unit='Hz',
        limits=(0.0, 1000.0),
    )

    reference_topic: str = _reference(
        'reference.topic',
        'Depth image, LaserScan or PointCloud2 of the robot to compare depth with; empty: none',
    )
    reference_extrinsics: str = _reference(
        'reference.extrinsics',
        'Where that sensor stands, seen from the camera, both x forward, y left, z up: '
        "'x y z roll pitch yaw' in m and rad; empty: /tf says it",
    )
    reference_tolerance_s: float = _reference(
        'reference.tolerance_s',
        'Compare with a message at most this much older or newer than the image',
        unit='s',
        limits=(0.0, 10.0),
    )
    reference_correct: bool = _reference(
        'reference.correct',
        'Correct depth by a scale and a shift that follow the sensor slowly',
    )
    reference_max_factor: float = _reference(
        'reference.max_factor',
        'The correction changes no depth by more than this factor, up or down',
        limits=(1.0, 2.0),
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            _check(spec, getattr(self, spec.name))
        for group, suffix in (('depth', 'm'), ('preview', 'm'), ('points', 'range_m')):
            low, high = (getattr(self, f'{group}_{end}_{suffix}') for end in ('min', 'max'))
            if not low < high:
                raise ValueError(
                    f'{group}.min_{suffix} ({low:g}) must be less than '
                    f'{group}.max_{suffix} ({high:g}).'
                )
        self.reference_settings  # noqa: B018 - ValueError when extrinsics are no six numbers

    @cached_property  # made once, though every frame reads it
    def output_settings(self) -> OutputSettings:
        """Return the part that make_outputs() needs."""
        return OutputSettings(**{f.name: getattr(self, f.name) for f in fields(OutputSettings)})

    @cached_property
    def filter_settings(self) -> FilterSettings:
        """Return the part that DepthFilters need."""
        return FilterSettings(
            **{f.name: getattr(self, f'filters_{f.name}') for f in fields(FilterSettings)}
        )

    @cached_property
    def reference_settings(self) -> ReferenceSettings:
        """Return the part that LiveAccuracy needs."""
        names = [f.name for f in fields(ReferenceSettings)]
        return ReferenceSettings(**{name: getattr(self, name) for name in names})

    def changed(self, parameters: Iterable[Parameter]) -> DepthNodeParameters:
        """Return a copy with the given rclpy parameters; names that are not ours are ignored."""
        values = {
            SPECS[p.name].name: _as_type_of(SPECS[p.name], p.value)
            for p in parameters
            if p.name in SPECS
        }
        return replace(self, **values)


def ros_name(spec: Field) -> str:
    """Return the name of the ROS parameter, which may have dots."""
    return spec.metadata['name'] or spec.name


# ROS name -> field
SPECS: dict[str, Field] = {ros_name(spec): spec for spec in fields(DepthNodeParameters)}


def _as_type_of(spec: Field, value: Any) -> Any:
    """Let `10` stand for `10.0`, and `on` for 'on', which YAML reads as true; nothing else."""
    if isinstance(value, bool) and 'on' in spec.metadata['choices']:
        return 'on' if value else 'off'
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and isinstance(spec.default, float) else value


def _check(spec: Field, value: Any) -> None:
    name, limits, choices = ros_name(spec), spec.metadata['limits'], spec.metadata['choices']
    if type(value) is not type(spec.default):
        raise ValueError(f'{name} must be of type {type(spec.default).__name__}, not {value!r}.')
    if choices and value not in choices:
        raise ValueError(f'{name} must be one of {", ".join(choices)}, not {value!r}.')
    if limits and not (math.isfinite(value) and limits[0] <= value <= limits[1]):
        raise ValueError(
            f'{name} must be between {limits[0]:g} and {limits[1]:g} '
            f'{spec.metadata["unit"]}'.rstrip()
            + f', not {value:g}.'
        )


def declare(node: Node) -> DepthNodeParameters:
    """
    Declare all parameters on the node and return their first values.

    The node must have been made with automatically_declare_parameters_from_overrides=True: that
    is how rclpy shows which keys a parameter file has. A key that nobody knows is a warning, not
    an error, because one file with /** may serve several nodes.
    """
    overrides = node.get_parameters_by_prefix('')
    for name in overrides:
        if name not in SPECS and not name.startswith(FOREIGN_PREFIXES):
            node.get_logger().warning(unknown_parameter_sentence(name))
            node.undeclare_parameter(name)
    parameters = _at_home(DepthNodeParameters().changed(overrides.values()))
    for name, spec in SPECS.items():
        if node.has_parameter(name):
            node.undeclare_parameter(name)
        value = getattr(parameters, spec.name)
        node.declare_parameter(name, value, descriptor(spec), ignore_override=True)
    return parameters


def _at_home(parameters: DepthNodeParameters) -> DepthNodeParameters:
    """Put the home folder in place of ~; ValueError where nobody has one."""
    folders = {name: getattr(parameters, name) for name in ('allowed_folder', 'save_folder')}
    for name, folder in folders.items():
        try:
            folders[name] = str(Path(folder).expanduser()) if folder else ''
        except RuntimeError as error:
            raise ValueError(f'{name} {folder!r}: there is no such home folder.') from error
    return replace(parameters, **folders)


def unknown_parameter_sentence(name: str) -> str:
    """Return the warning for a key that no parameter has."""
    nearest = difflib.get_close_matches(name, SPECS, n=1)
    known = f"; the nearest known one is '{nearest[0]}'" if nearest else ''
    return f"Unknown parameter '{name}' is ignored{known}."


def descriptor(spec: Field) -> ParameterDescriptor:
    """Return what `ros2 param describe` shows."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.parameter import Parameter

    about = spec.metadata
    constraints = [f'one of: {", ".join(about["choices"])}'] if about['choices'] else []
    if about['changes'] == CONFIGURE:
        constraints.append('read on configure')
    made = ParameterDescriptor(
        name=ros_name(spec),
        type=Parameter.Type.from_parameter_value(spec.default).value,
        description=about['description'] + (f' [{about["unit"]}]' if about['unit'] else ''),
        additional_constraints='; '.join(constraints),
        read_only=about['changes'] == START,
    )
    if about['limits']:
        low, high = about['limits']
        if isinstance(spec.default, int):
            made.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        else:
            made.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return made


def read_on_configure(before: DepthNodeParameters, after: DepthNodeParameters) -> list[str]:
    """Return the names of the changed parameters that only act when the node is configured."""
    return [
        name
        for name, spec in SPECS.items()
        if spec.metadata['changes'] == CONFIGURE
        and getattr(before, spec.name) != getattr(after, spec.name)
    ]
