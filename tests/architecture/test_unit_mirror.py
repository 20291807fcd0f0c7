"""tests/unit/ mirrors aioseed/: who reads a room finds its tests in the folder of the same name."""

from __future__ import annotations

import ast

# Rooms, and files beside them, without unit tests of their own, each with the reason.
EXCEPTIONS: dict[str, str] = {}


def defines_code(tree: ast.Module) -> bool:
    """Return True where a module has a function or a class, and not only a docstring and re-exports."""
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body)


def test_every_room_with_code_has_unit_tests(sources, root):
    rooms = {
        source.module.split(".")[1]
        for source in sources
        if source.module.startswith("aioseed.") and defines_code(source.tree)
    }
    unit = root / "tests" / "unit"
    without = [
        room
        for room in sorted(rooms - set(EXCEPTIONS))
        if not any((unit / room).rglob("test_*.py")) and not (unit / f"test_{room}.py").is_file()
    ]
    assert without == []


def test_no_exception_outlives_its_reason(root):
    unit = root / "tests" / "unit"
    assert [name for name in EXCEPTIONS if (unit / name).is_dir() or (unit / f"test_{name}.py").is_file()] == []


def test_unit_tests_belong_to_a_room_that_exists(root):
    folders = [folder.name for folder in (root / "tests" / "unit").iterdir() if folder.is_dir()]
    plugins = {path.name for base in ("transports", "envs") for path in (root / base).iterdir()}
    strays = [
        name
        for name in sorted(folders)
        if name != "__pycache__" and not (root / "aioseed" / name).is_dir() and name not in plugins
    ]
    assert strays == []
