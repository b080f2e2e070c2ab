"""The picture of a demonstration: colour, depth, true depth, and the cloud from two sides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_mde_core.geometry import back_project
from llm_mde_ros.bags import BagReader, CameraTopics, to_depth, to_rgb
from llm_mde_ros.conversions import camera_from_info, cloud_to_points
from llm_mde_ros.true_depth import true_depth_at

BACKGROUND, PANEL, TEXT, FAINT = '#0f141b', '#161d27', '#e6edf3', '#8b98a8'
CAMERA, TRUTH = '#ffb454', '#6b7888'
DEPTH_COLOURS = 'turbo_r'  # near is warm, as in depth/preview
SIZE_IN, DPI = (12.8, 8.0), 125
MAX_POINTS = 80_000


@dataclass(frozen=True)
class DemoFrame:
    """One frame of a demonstration, all from messages."""

    rgb: np.ndarray  # uint8 (H, W, 3)
    depth_m: np.ndarray  # float32 (H, W), NaN unknown
    true_depth_m: np.ndarray | None  # the same
    points: np.ndarray  # float32 (N, 3): x right, y down, z forward, metres
    colours: np.ndarray | None  # uint8 (N, 3) RGB
    true_points: np.ndarray  # as points, of the true depth; (0, 3) when unknown


def draw_demo(
    path: Path,
    *,
    recorded: BagReader,
    source: BagReader,
    topics: CameraTopics,
    report: dict[str, Any],
) -> None:
    """Draw the frame in the middle of the recording; RuntimeError when there is none."""
    frame = read_middle_frame(recorded, source=source, topics=topics)
    latency, abs_rel = report['latency_ms'], report['abs_rel']
    lines = [
        *([f'adapter {report["adapter"]}'] if report['adapter'] else []),
        f'{report["frames_in"]} images in, {report["frames_out"]} depth images out',
        f'latency {latency["p50"]:.0f} ms (p95 {latency["p95"]:.0f} ms)',
        *([f'AbsRel {abs_rel:.3f}'] if abs_rel is not None else []),
    ]
    draw_frame(path, frame, title=report['bag'], subtitle='   ·   '.join(lines))


def read_middle_frame(
    recorded: BagReader, *, source: BagReader, topics: CameraTopics
) -> DemoFrame:
    """Read the frame in the middle of those that have depth and a cloud."""
    stamps = {
        name: {message.stamp_ns for message in recorded.messages([name])}
        for name in ('/depth/image', '/depth/camera_info', '/points')
    }
    complete = sorted(set.intersection(*stamps.values()))
    if not complete:
        raise RuntimeError('The node published no frame with both depth and points.')
    stamp_ns = complete[len(complete) // 2]
    points, colours = cloud_to_points(_message_at(recorded, '/points', stamp_ns))
    known = np.isfinite(points).all(axis=-1)
    true_depth_m = true_depth_at(source, topics.depth, stamp_ns) if topics.depth else None
    true_points = np.zeros((0, 3), np.float32)
    if true_depth_m is not None:
        camera = camera_from_info(_message_at(recorded, '/depth/camera_info', stamp_ns))
        true_points = back_project(true_depth_m, camera)
        true_points = true_points[np.isfinite(true_points).all(axis=-1)]
    return DemoFrame(
        rgb=to_rgb(_message_at(source, topics.image, stamp_ns)),
        depth_m=to_depth(_message_at(recorded, '/depth/image', stamp_ns)),
        true_depth_m=true_depth_m,
        points=points[known],
        colours=None if colours is None else colours[known],
        true_points=true_points,
    )


def _message_at(bag: BagReader, topic: str, stamp_ns: int) -> Any:
    return next(m for m in bag.messages([topic]) if m.stamp_ns == stamp_ns).decode()


def draw_frame(path: Path, frame: DemoFrame, *, title: str, subtitle: str) -> None:
    """Draw one frame into a PNG."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError(
            'The picture is drawn with matplotlib, which is not installed: pip install matplotlib.'
        ) from error
    figure = Figure(figsize=SIZE_IN, dpi=DPI, facecolor=BACKGROUND)
    figure.text(0.025, 0.955, title, color=TEXT, fontsize=15, fontweight='bold', va='center')
    figure.text(0.975, 0.955, subtitle, color=FAINT, fontsize=11, va='center', ha='right')
    _draw_images(figure, frame)
    _draw_clouds(figure, frame)
    figure.savefig(path)


def _draw_images(figure: Any, frame: DemoFrame) -> None:
    depths = {'depth, as published': frame.depth_m}
    if frame.true_depth_m is not None:
        depths['true depth'] = frame.true_depth_m
    *_, scale_m = depths.values()  # the truth says what there is to see
    panels = len(depths) + 1
    grid = figure.add_gridspec(
        1, panels, left=0.025, right=0.925, bottom=0.5, top=0.9, wspace=0.04
    )
    _image_axes(figure, grid[0], 'colour').imshow(frame.rgb)
    known = scale_m[np.isfinite(scale_m)]
    far_m = np.ceil(np.percentile(known, 99) * 2) / 2 if known.size else 1.0
    for place, (name, depth_m) in enumerate(depths.items(), start=1):
        axes = _image_axes(figure, grid[place], name)
        drawn = axes.imshow(depth_m, cmap=DEPTH_COLOURS, vmin=0.0, vmax=far_m)
    bar = figure.colorbar(drawn, cax=axes.inset_axes((1.03, 0.0, 0.035, 1.0)))
    bar.ax.invert_yaxis()
    bar.set_label('metres', color=FAINT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=FAINT)


def _image_axes(figure: Any, place: Any, name: str) -> Any:
    axes = figure.add_subplot(place, facecolor=PANEL)
    axes.set_title(name, color=TEXT, fontsize=11, loc='left', pad=6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes


def _draw_clouds(figure: Any, frame: DemoFrame) -> None:
    grid = figure.add_gridspec(1, 2, left=0.06, right=0.975, bottom=0.075, top=0.44, wspace=0.13)
    points, colours = _thinned(frame.points), FAINT
    if frame.colours is not None:
        colours = _thinned(frame.colours) / 255.0
    true_points = _thinned(frame.true_points)
    note = ' · grey: true depth' if len(true_points) else ''
    # Seen from the right of the camera, and from the ceiling: nearer points are drawn last.
    for place, name, label, across, order in (
        (
            grid[0],
            'cloud from the side',
            'up in the image [m]',
            1,
            np.argsort(points[:, 0]),
        ),
        (grid[1], 'cloud from above', 'left in the image [m]', 0, np.argsort(-points[:, 1])),
    ):
        axes = figure.add_subplot(place, facecolor=PANEL)
        axes.set_title(f'{name}{note}', color=TEXT, fontsize=11, loc='left', pad=6)
        axes.scatter(
            true_points[:, 2], -true_points[:, across], c=TRUTH, s=0.6, linewidths=0, alpha=0.5
        )
        axes.scatter(
            points[order, 2],
            -points[order, across],
            c=colours if isinstance(colours, str) else colours[order],
            s=min(6.0, 120_000 / max(1, len(order))),
            linewidths=0,
        )
        axes.plot(0.0, 0.0, marker='>', color=CAMERA, markersize=9)
        axes.set_xlabel('along the optical axis [m]', color=FAINT)
        axes.set_ylabel(label, color=FAINT)
        both = np.concatenate([points, true_points])
        _limit(axes, both[:, 2], -both[:, across])
        axes.grid(color='#2a3442', linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=FAINT)
        axes.spines[:].set_visible(False)


def _thinned(rows: np.ndarray) -> np.ndarray:
    return rows[:: max(1, len(rows) // MAX_POINTS)]


def _limit(axes: Any, x_m: np.ndarray, y_m: np.ndarray) -> None:
    """Show the camera and all but the outermost points; a metre is as long in both directions."""
    box = axes.get_window_extent()
    (x_low, x_high), (y_low, y_high) = _bounds(x_m), _bounds(y_m)
    metres_per_pixel = 1.08 * max((x_high - x_low) / box.width, (y_high - y_low) / box.height)
    for set_limits, middle, pixels in (
        (axes.set_xlim, (x_low + x_high) / 2, box.width),
        (axes.set_ylim, (y_low + y_high) / 2, box.height),
    ):
        half = metres_per_pixel * pixels / 2
        set_limits(middle - half, middle + half)


def _bounds(values_m: np.ndarray) -> tuple[float, float]:
    """Return the range of the values with 0 in it, without 0.5 % of outliers at either end."""
    low, high = np.percentile(values_m, (0.5, 99.5)) if values_m.size else (0.0, 1.0)
    return min(0.0, low), max(0.0, high)
