"""Files and functions stay small enough to be read in one go. Aim at half of these limits."""

from __future__ import annotations

import ast

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 80


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def test_no_file_is_longer_than_600_lines(sources):
    lengths = {source.name: source.text.count("\n") for source in sources}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_80_lines(sources):
    lengths = {
        f"{source.name}:{node.lineno} {node.name}": body_lines(node)
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_docstrings_do_not_count_but_nested_functions_do():
    tree = ast.parse(
        'def outer():\n    """One.\n\n    Two.\n    """\n    def inner():\n        return 1\n    return inner\n'
    )
    assert isinstance(tree.body[0], ast.FunctionDef)
    assert body_lines(tree.body[0]) == 3
