"""
Building blocks of self-contained HTML reports: text, tables, charts and pictures of depth.

Every block returns HTML, marked as such; a plain string given to `page` or into a block is text
and is escaped. Nothing is fetched when the page is opened: pictures and charts are inside it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
import math

import cv2
from jinja2 import Environment
from markupsafe import Markup
import matplotlib
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

PICTURE_WIDTH_PX = 320
DEPTH_COLORS = 'turbo_r'  # near is warm, as in the node's depth/preview
ERROR_COLORS = 'RdBu'  # red too near, blue too far
CONFIDENCE_COLORS = 'viridis'
UNKNOWN_COLOR = 'black'
LEAST_RANGE = 1e-6  # of colours, for images of one depth
LINE_COLORS = ('#3366aa', '#cc5533', '#338866', '#8855aa', '#998833', '#555555')
MARKED_POINTS = 40  # a line of more points has no dots

_TEMPLATES = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_PAGE = _TEMPLATES.from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; }
body { max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff;
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem;
     border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .93em; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: .3rem; }
th, td { padding: .2rem .55rem; border-bottom: 1px solid #e5e5e5; text-align: left;
         white-space: nowrap; }
th { border-bottom: 2px solid #999; }
td:last-child { white-space: normal; overflow-wrap: anywhere; }
.number, td.number:last-child { white-space: nowrap; text-align: right; }
.total td { font-weight: 600; border-top: 2px solid #999; }
.pictures td, .pictures th { border: 0; padding: .15rem; white-space: normal;
                             font-weight: normal; color: #555; }
.pictures img { display: block; width: 100%; min-width: 7rem; max-width: {{ picture_px }}px; }
.pictures .label { padding-bottom: .8rem; }
.chart { display: inline-block; margin: .4rem .8rem .4rem 0; max-width: 100%; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for block in body %}
{{ block }}
{% endfor %}
</body>
</html>
""")
_TABLE = _TEMPLATES.from_string("""\
<div class="wide"><table>
{% if caption %}<caption>{{ caption }}</caption>{% endif %}

<tr>{% for name in columns %}<th{% if numeric[loop.index0] %} class="number"{% endif %}>\
{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr{% if last_is_total and loop.last %} class="total"{% endif %}>{% for cell in row %}\
<td{% if numeric[loop.index0] %} class="number"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>""")
_PICTURES = _TEMPLATES.from_string("""\
<div class="wide"><table class="pictures">
<tr>{% for caption in captions %}<th>{{ caption }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr>{% for source in row %}<td><img alt="{{ captions[loop.index0] }}" src="{{ source }}"></td>\
{% endfor %}</tr>
{% if labels %}
<tr><td class="label" colspan="{{ captions|length }}">{{ labels[loop.index0] }}</td></tr>
{% endif %}
{% endfor %}
</table></div>""")


def page(title: str, body: Sequence[str]) -> str:
    """Return an HTML page of blocks; whatever is no block of this module is escaped as text."""
    return _PAGE.render(title=title, body=body, picture_px=PICTURE_WIDTH_PX)


def heading(text: str, *, level: int = 2) -> Markup:
    """Return a heading; the page's title is level 1."""
    return Markup('<h{0}>{1}</h{0}>').format(level, text)


def paragraph(text: str, *, bold: bool = False) -> Markup:
    """Return a paragraph."""
    return Markup('<p><strong>{}</strong></p>' if bold else '<p>{}</p>').format(text)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | float]],
    *,
    caption: str = '',
    last_is_total: bool = False,
) -> Markup:
    """
    Return a table; floats get three decimals, NaN a dash, and their columns are set to the right.

    `last_is_total` sets the last row apart. Raises ValueError for a row of another length.
    """
    for row in rows:
        _check_length(row, columns, of='a row of the table')
    numeric = [any(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    return Markup(
        _TABLE.render(
            columns=columns,
            rows=[[_cell(value) for value in row] for row in rows],
            numeric=numeric,
            caption=caption,
            last_is_total=last_is_total,
        )
    )


def _cell(value: str | float) -> str:
    if isinstance(value, str | int):
        return str(value)
    return f'{value:.3f}' if math.isfinite(value) else '–'


def pictures(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    *,
    labels: Sequence[str] = (),
) -> Markup:
    """
    Return a grid of pictures, uint8 (H, W, 3) RGB, with a caption over each column.

    `labels` are lines under the rows. Large pictures are made smaller. Raises ValueError for
    another type of picture, and when rows, captions or labels do not fit each other.
    """
    for row in rows:
        _check_length(row, captions, of='a row of pictures')
    if labels:
        _check_length(labels, rows, of='the labels of the pictures')
    sources = [[_jpeg_source(picture) for picture in row] for row in rows]
    return Markup(_PICTURES.render(rows=sources, captions=captions, labels=labels))


def _jpeg_source(picture: np.ndarray) -> str:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f'a picture must be uint8 (H, W, 3) RGB, got {picture.dtype} {picture.shape}'
        )
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    height, width = bgr.shape[:2]
    if width > PICTURE_WIDTH_PX:
        size = (PICTURE_WIDTH_PX, max(1, round(height * PICTURE_WIDTH_PX / width)))
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return _data_uri(encoded.tobytes(), 'image/jpeg')


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = '',
    from_zero: bool = True,
    whole_x: bool = False,
) -> Markup:
    """
    Return a chart of named lines of (x, y); a NaN interrupts a line.

    `from_zero` makes the y axis begin at zero, so that heights can be compared. `whole_x`
    marks only whole numbers on the x axis.
    """
    with matplotlib.rc_context({'font.size': 9, 'svg.hashsalt': 'report'}):
        figure = Figure(figsize=(5.0, 3.2), layout='constrained')
        axes = figure.subplots()
        for number, (name, points) in enumerate(series.items()):
            x, y = zip(*points, strict=True) if points else ((), ())
            marker = 'o' if len(points) <= MARKED_POINTS else ''
            color = LINE_COLORS[number % len(LINE_COLORS)]
            axes.plot(x, y, label=name, marker=marker, markersize=3.5, color=color)
        axes.set(xlabel=x_label, ylabel=y_label, title=title)
        if from_zero:
            highest = max((y for line in series.values() for _, y in line if y > 0), default=1.0)
            axes.set_ylim(0.0, 1.05 * highest)  # else dots of a level line are cut
        if whole_x:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        if len(series) > 1:
            axes.legend(frameon=False)
        return _chart(figure, alt=title or f'{y_label} over {x_label}')


def depth_scale(*, min_m: float, max_m: float) -> Markup:
    """Return the legend of `color_depth`'s colours."""
    return _color_scale(DEPTH_COLORS, label='depth (m); black: unknown', low=min_m, high=max_m)


def error_scale(*, limit: float) -> Markup:
    """Return the legend of `color_error`'s colours."""
    return _color_scale(
        ERROR_COLORS, label='too near  ·  relative error  ·  too far', low=-limit, high=limit
    )


def confidence_scale() -> Markup:
    """Return the legend of `color_confidence`'s colours."""
    return _color_scale(CONFIDENCE_COLORS, label='confidence', low=0.0, high=1.0)


def _color_scale(colors: str, *, label: str, low: float, high: float) -> Markup:
    with matplotlib.rc_context({'font.size': 9, 'svg.hashsalt': 'report'}):
        figure = Figure(figsize=(4.0, 0.65), layout='constrained')
        scale = ScalarMappable(Normalize(low, high), colors)
        figure.colorbar(scale, cax=figure.subplots(), orientation='horizontal', label=label)
        return _chart(figure, alt=f'{label}, colours from {low:g} to {high:g}')


def _chart(figure: Figure, *, alt: str) -> Markup:
    file = BytesIO()
    figure.savefig(file, format='svg', metadata={'Date': None})
    source = _data_uri(file.getvalue(), 'image/svg+xml')
    return Markup('<img class="chart" alt="{}" src="{}">').format(alt, source)


def _data_uri(content: bytes, kind: str) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def color_depth(depth_m: np.ndarray, *, min_m: float, max_m: float) -> np.ndarray:
    """Return depth (H, W) as colours, uint8 (H, W, 3) RGB: near is warm, unknown is black."""
    return _colors(depth_m, DEPTH_COLORS, low=min_m, high=max_m)


def color_error(predicted_m: np.ndarray, true_m: np.ndarray, *, limit: float) -> np.ndarray:
    """
    Return (predicted - true) / true of two depths (H, W) as colours, uint8 (H, W, 3) RGB.

    Red is too near, blue too far, full colour at `limit`, white right, black unknown.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        return _colors((predicted_m - true_m) / true_m, ERROR_COLORS, low=-limit, high=limit)


def color_confidence(confidence: np.ndarray) -> np.ndarray:
    """Return confidence (H, W), 0 to 1, as colours, uint8 (H, W, 3) RGB: sure is bright."""
    return _colors(confidence, CONFIDENCE_COLORS, low=0.0, high=1.0)


def _colors(values: np.ndarray, colors: str, *, low: float, high: float) -> np.ndarray:
    colormap = matplotlib.colormaps[colors].with_extremes(bad=UNKNOWN_COLOR)
    level = np.ma.masked_invalid((values - low) / max(high - low, LEAST_RANGE))
    return np.ascontiguousarray(colormap(level, bytes=True)[..., :3])


def _check_length(items: Sequence[object], names: Sequence[object], *, of: str) -> None:
    if len(items) != len(names):
        raise ValueError(f'{of} has {len(items)} entries, expected {len(names)}')
