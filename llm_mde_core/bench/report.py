"""The report as ratios and text, and two reports compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm_mde_core.bench.case import AUTHORS, AUTHORS_AT_OUR_INPUT, DEPTH_ANYTHING, WAYS

Row = Mapping[str, Any]  # one case and its figures, as in the JSON file
Cell = Callable[[Row], str]
KEY = ('model', 'door', 'width', 'height', 'batch', 'precision', 'compile')
COLUMNS: Mapping[str, Cell] = {
    'model': lambda row: row['model'],
    'door': lambda row: row['door'],
    'image': lambda row: f'{row["width"]}x{row["height"]}' if row['door'] == 'frame' else '',
    'input': lambda row: '{}x{}'.format(*row['input']),
    'batch': lambda row: str(row['batch']),
    'precision': lambda row: row['precision'] + WAYS[row['compile']],
    'p50 ms': lambda row: _shown(row['ms']['total']['p50']),
    'p95': lambda row: _shown(row['ms']['total']['p95']),
    'p99': lambda row: _shown(row['ms']['total']['p99']),
    'runs': lambda row: str(row['runs']),  # what a percentile is worth
    'images/s': lambda row: _shown(row['images_per_s']),
    'ns/pixel': lambda row: _shown(row['ns_per_pixel']),
    'GFLOP': lambda row: _shown(row['gflop']),
    '% of limit': lambda row: _shown(row['percent_of_limit']),
    'peak MiB': lambda row: _shown(row['peak_mib']),
    'J/image': lambda row: _shown(row['joule_per_image']),
}


NODE_FIGURES: Mapping[str, Callable[[Row], float]] = {
    'sum of decode, camera, outputs, publish': lambda f: f['overhead_ms']['sum_of_p50'],
    'images one by one': lambda f: f['frames'],
    'stamp to subscriber p50': lambda f: f['latency_ms']['p50'],
    'stamp to subscriber p95': lambda f: f['latency_ms']['p95'],
    'stamp to subscriber p99': lambda f: f['latency_ms']['p99'],
    'flood: images sent': lambda f: f['flood']['sent'],
    'flood: depth received': lambda f: f['flood']['depth'],
    'flood: skipped': lambda f: f['flood']['skipped'],
    'flood: depth images/s': lambda f: f['flood']['images_per_s'],
    'flood: CPU % node': lambda f: f['flood']['cpu_percent']['node'],
    'flood: CPU % publisher': lambda f: f['flood']['cpu_percent']['publisher'],
    'flood: CPU % subscriber': lambda f: f['flood']['cpu_percent']['subscriber'],
}


def ratios(rows: Sequence[Row]) -> dict[str, float | None]:
    """
    Return how many times faster we are beside the references; None where not measured.

    'fp32' is our plain eager path, 'best' the fastest way that was measured. The authors' network
    has an input of its own size; 'equal_input' compares with it at the size of ours. `tiny` and
    Depth Anything are each taken at the fastest of the ways that both were measured in. The
    node's overhead, milliseconds, is filled in by who measures the node.
    """
    eager = ('fp32', 'off')
    authors = _times_ms(rows, AUTHORS).get(eager)
    at_our_input = _times_ms(rows, AUTHORS_AT_OUR_INPUT).get(eager)
    paper = _times_ms(rows, 'paper')
    plain, best = paper.get(eager), min(paper.values(), default=None)
    anything, tiny = _times_ms(rows, DEPTH_ANYTHING), _times_ms(rows, 'tiny')
    common = anything.keys() & tiny.keys()
    return {
        'paper_vs_authors_fp32': _ratio(authors, plain),
        'paper_vs_authors_best': _ratio(authors, best),
        'paper_vs_authors_fp32_equal_input': _ratio(at_our_input, plain),
        'paper_vs_authors_best_equal_input': _ratio(at_our_input, best),
        'tiny_vs_depth_anything_small': _ratio(
            min((anything[way] for way in common), default=None),
            min((tiny[way] for way in common), default=None),
        ),
        'node_overhead_ms': None,
    }


def _times_ms(rows: Sequence[Row], model: str) -> dict[tuple[str, str], float]:
    """Return p50 by precision and compile, of frames of the first size."""
    return {
        (row['precision'], row['compile']): row['ms']['total']['p50']
        for row in rows
        if row['model'] == model and row['door'] == 'frame' and row['width'] == rows[0]['width']
    }


def report_text(report: Mapping[str, Any]) -> str:
    """Lay a report out for people."""
    cells = [[str(cell(row)) for cell in COLUMNS.values()] for row in report['rows']]
    stages = [f'{_name(row)}: {_stages(row)}' for row in report['rows'] if row['door'] == 'frame']
    rates = [
        [precision, *map(_shown, rate.values())] for precision, rate in report['rates'].items()
    ]
    figures = [[name, _shown(value)] for name, value in report['ratios'].items()]
    return '\n\n'.join(
        [
            _facts({**report['machine'], 'commit': report['commit'], **report['versions']}),
            table([list(COLUMNS), *cells]),
            '\n'.join(['Stages, p50 ms', *stages]),
            table([['measured rate', 'GFLOP/s', 'GB/s'], *rates]),
            table([['ratios', ''], *figures]),
        ]
    )


def comparison_text(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Lay out what two reports have in common, and how many times faster the second is."""
    old = {_key(row): row for row in before['rows']}
    times = []
    for row in after['rows']:
        if _key(row) in old:
            ms = [r['ms']['total']['p50'] for r in (old[_key(row)], row)]
            times.append([_name(row), *map(_shown, (*ms, _ratio(*ms)))])
    figures = []
    for name, value in after['ratios'].items():
        was = before['ratios'].get(name)
        figures.append([name, *map(_shown, (was, value, _ratio(value, was)))])
    return '\n\n'.join(
        [
            f'before: {_facts({"commit": before["commit"], **before["machine"]})}\n'
            f'after: {_facts({"commit": after["commit"], **after["machine"]})}',
            table([['p50 ms', 'before', 'after', 'times faster'], *times]),
            table([['ratios', 'before', 'after', 'after / before'], *figures]),
        ]
    )


def node_text(strides: Sequence[Row]) -> str:
    """Lay out the figures of the node, one column for each stride of its points."""
    head = ['node, p50 ms', *(f'points.stride {figures["stride"]}' for figures in strides)]
    rows = [
        [stage, *(_shown(figures['stages_ms'][stage]['p50']) for figures in strides)]
        for stage in strides[0]['stages_ms']
    ]
    for label, read in NODE_FIGURES.items():
        rows.append([label, *(_shown(read(figures)) for figures in strides)])
    return table([head, *rows])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        '  '.join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return '\n'.join([lines[0], '-' * max(map(len, lines)), *lines[1:]])


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def _name(row: Row) -> str:
    return (
        f'{row["model"]}, {row["door"]} {row["width"]}x{row["height"]}, batch {row["batch"]}, '
        f'{row["precision"]}{WAYS[row["compile"]]}'
    )


def _stages(row: Row) -> str:
    return ', '.join(f'{n} {_shown(ms["p50"])}' for n, ms in row['ms'].items() if n != 'total')


def _facts(facts: Mapping[str, Any]) -> str:
    return ', '.join(f'{name} {value}' for name, value in facts.items() if value is not None)


def _ratio(slow: float | None, fast: float | None) -> float | None:
    return round(slow / fast, 3) if slow is not None and fast else None


def _shown(value: float | None) -> str:
    if value is None:
        return '-'
    return f'{value:.0f}' if abs(value) >= 1000 else f'{value:.3g}'
