"""Blocks of reports: what is text stays text, pictures keep their meaning, nothing is fetched."""

from __future__ import annotations

import base64
from math import nan
import re
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from llm_mde_train import report

SOURCE = re.compile(r'src="data:([a-z/+]+);base64,([^"]+)"')


def contents(block: str) -> list[tuple[str, bytes]]:
    """Return the kind and the content of every picture in a block."""
    return [(kind, base64.b64decode(data)) for kind, data in SOURCE.findall(block)]


def test_page_is_whole_and_escapes_what_is_no_block():
    html = report.page(
        '<Room>', [report.heading('A & B'), 'a <script>', report.paragraph('1 < 2')]
    )
    assert html.startswith('<!doctype html>')
    assert html.count('&lt;Room&gt;') == 2  # in the title and on the page
    assert '<h2>A &amp; B</h2>' in html
    assert 'a &lt;script&gt;' in html
    assert '<p>1 &lt; 2</p>' in html


def test_nothing_is_fetched():
    picture = np.zeros((4, 6, 3), np.uint8)
    html = report.page(
        'all',
        [
            report.table(['a'], [[1.0]]),
            report.pictures([[picture]], ['colour']),
            report.line_chart({'a': [(0.0, 1.0)]}, x_label='x', y_label='y'),
            report.depth_scale(min_m=0.0, max_m=8.0),
            report.error_scale(limit=0.5),
        ],
    )
    assert html.count('src=') == len(contents(html)) == 4
    assert not re.search(r'(src|href)="(?!data:)|@import|url\(', html)


def test_table_aligns_and_rounds_numbers():
    html = report.table(
        ['scene', 'abs_rel'],
        [['<a>', 0.12345], ['mean', nan]],
        caption='m & m',
        last_is_total=True,
    )
    assert '<caption>m &amp; m</caption>' in html
    assert '<td>&lt;a&gt;</td><td class="number">0.123</td>' in html
    assert html.count('class="total"') == 1
    assert '<tr class="total"><td>mean</td><td class="number">–</td></tr>' in html


def test_pictures_keep_channels_and_shrink():
    red = np.zeros((100, 1000, 3), np.uint8)
    red[..., 0] = 255
    html = report.pictures([[red, red[:, :50]]], ['left', 'right'], labels=['a & b'])
    (kind, first), (_, second) = contents(html)
    assert kind == 'image/jpeg'
    shrunk = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
    assert shrunk.shape == (32, 320, 3)
    assert np.allclose(shrunk.mean(axis=(0, 1)), [0, 0, 255], atol=4)  # BGR
    assert cv2.imdecode(np.frombuffer(second, np.uint8), cv2.IMREAD_COLOR).shape == (100, 50, 3)
    assert '>a &amp; b<' in html


def test_line_chart_names_its_lines_and_is_the_same_each_time():
    def chart() -> str:
        series = {'before': [(1.0, 0.5), (2.0, nan), (3.0, 0.4)], 'after': []}
        return report.line_chart(series, x_label='distance (m)', y_label='abs_rel')

    ((kind, svg),) = contents(chart())
    assert kind == 'image/svg+xml'
    assert ElementTree.fromstring(svg).tag == '{http://www.w3.org/2000/svg}svg'
    for text in (b'before', b'after', b'distance', b'abs_rel'):
        assert text in svg
    assert 'alt="abs_rel over distance (m)"' in chart()
    assert chart() == chart()


def test_line_chart_of_steps_marks_whole_numbers():
    def chart(*, whole_x: bool) -> bytes:
        line = {'a': [(0.0, 1.0), (2.0, 1.0)]}
        ((_, svg),) = contents(
            report.line_chart(line, x_label='step', y_label='loss', whole_x=whole_x)
        )
        return svg

    assert [b'<!-- 0.25 -->' in chart(whole_x=whole) for whole in (False, True)] == [True, False]


def test_colors_of_depth_near_warm_unknown_black():
    depth_m = np.array([[0.5, 7.5, nan, 0.5]], np.float32)
    near, far, unknown, again = report.color_depth(depth_m, min_m=0.0, max_m=8.0)[0].astype(int)
    assert near[0] > near[2] + 50
    assert far[2] > far[0] + 20
    assert unknown.tolist() == [0, 0, 0]
    assert again.tolist() == near.tolist()


def test_one_depth_has_one_color():
    colors = report.color_depth(np.full((2, 2), 2.0), min_m=2.0, max_m=2.0)
    assert len(np.unique(colors.reshape(-1, 3), axis=0)) == 1
    assert report.depth_scale(min_m=2.0, max_m=2.0)


def test_colors_of_confidence_sure_is_bright():
    unsure, sure = report.color_confidence(np.array([[0.0, 1.0]]))[0].astype(int)
    assert sure.sum() > unsure.sum() + 100
    assert report.confidence_scale()


def test_colors_of_error_red_too_near_blue_too_far():
    true = np.array([[2.0, 2.0, 2.0, nan]], np.float32)
    said = np.array([[1.0, 2.0, 3.0, 1.0]], np.float32)
    near, right, far, unknown = report.color_error(said, true, limit=1.0)[0].astype(int)
    assert near[0] > near[2] + 50
    assert right.min() > 230
    assert far[2] > far[0] + 50
    assert unknown.tolist() == [0, 0, 0]


def test_what_does_not_fit_is_an_error():
    picture = np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ValueError, match='a row of the table has 1 entries, expected 2'):
        report.table(['a', 'b'], [[1.0]])
    with pytest.raises(ValueError, match='a row of pictures has 2 entries, expected 1'):
        report.pictures([[picture, picture]], ['one'])
    with pytest.raises(ValueError, match='labels of the pictures has 2 entries, expected 1'):
        report.pictures([[picture]], ['one'], labels=['a', 'b'])
    with pytest.raises(ValueError, match=r'uint8 \(H, W, 3\) RGB, got float64 \(4, 6, 3\)'):
        report.pictures([[picture / 255]], ['one'])
