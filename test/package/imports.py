"""Read what Python files import, without importing anything."""

import ast


def imported(source: str) -> set[str]:
    """Return the top names of the modules that a source text imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or '').partition('.')[0])
    return names
