"""
The node's interface as documents: config/depth.yaml and the tables of the README.

    python -m llm_mde_ros.interface yaml|parameters|topics|services
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import Field
import json
from typing import Any

from llm_mde_ros.parameters import SPECS
from llm_mde_ros.topics import DIAGNOSTICS, OUTPUTS, SERVICES, SUBSCRIBED


def parameters_yaml() -> str:
    """Return the text of config/depth.yaml: every parameter with its default."""
    lines = [
        '# Every parameter of depth_node with its default.',
        '# Made by `python -m llm_mde_ros.interface yaml`; a test compares.',
        '/**:',
        '  ros__parameters:',
    ]
    for name, spec in SPECS.items():
        about = spec.metadata
        unit = f' [{about["unit"]}]' if about['unit'] else ''
        allowed = f' ({_allowed(spec)})' if _allowed(spec) else ''
        lines.append(f'    # {about["description"]}{unit}{allowed}')
        lines.append(f'    {name}: {_literal(spec.default)}')
    return '\n'.join(lines) + '\n'


def parameters_markdown() -> str:
    """Return the README's table of parameters."""
    head = ('parameter', 'default', 'unit', 'allowed', 'meaning', 'can change')
    rows = (
        (
            f'`{name}`',
            f'`{_literal(spec.default)}`',
            spec.metadata['unit'],
            _allowed(spec),
            spec.metadata['description'],
            spec.metadata['changes'],
        )
        for name, spec in SPECS.items()
    )
    return _table(head, *rows)


def topics_markdown() -> str:
    """Return the README's tables of topics."""
    parts = (('Subscribes', SUBSCRIBED), ('Publishes', (*OUTPUTS, DIAGNOSTICS)))
    return '\n'.join(
        _table((title, 'type', 'meaning'), *((f'`{t.name}`', t.type_name, t.meaning) for t in ts))
        for title, ts in parts
    )


def services_markdown() -> str:
    """Return the README's table of services."""
    rows = ((f'`{s.name}`', s.type_name, s.meaning) for s in SERVICES)
    return _table(('service', 'type', 'what it does'), *rows)


def _table(head: tuple[str, ...], *rows: tuple[str, ...]) -> str:
    lines = [head, ('---',) * len(head), *rows]
    return ''.join(f'| {" | ".join(cells)} |\n' for cells in lines)


def _literal(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _allowed(spec: Field) -> str:
    limits = spec.metadata['limits']
    if limits:
        return f'{limits[0]:g} to {limits[1]:g}'
    return ', '.join(spec.metadata['choices'])


DOCUMENTS: dict[str, Callable[[], str]] = {
    'yaml': parameters_yaml,
    'parameters': parameters_markdown,
    'topics': topics_markdown,
    'services': services_markdown,
}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Print a part of the interface of the node.')
    parser.add_argument('document', choices=DOCUMENTS)
    print(DOCUMENTS[parser.parse_args().document](), end='')
