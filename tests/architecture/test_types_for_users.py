"""What the type checker of somebody's own program sees of the installed packages."""

from __future__ import annotations

import ast

import aioseed


def seen_by_type_checkers(tree: ast.Module) -> dict[str, str]:
    """Return the names that a module imports for type checkers alone, and from where."""
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    lines = [line for block in blocks for line in block.body if isinstance(line, ast.ImportFrom)]
    return {alias.name: str(line.module) for line in lines for alias in line.names}


def test_every_public_name_has_a_type_although_it_is_imported_when_asked_for(sources):
    (face,) = (source for source in sources if source.module == "aioseed")
    assert seen_by_type_checkers(face.tree) == aioseed._LAZY
    assert set(aioseed.__all__) == {*aioseed._LAZY, "__version__"}


def test_every_package_says_that_it_is_typed(sources):
    packages = {source.path.parent for source in sources if "." not in source.module and source.path.stem == "__init__"}
    assert len(packages) == 8
    assert [folder.name for folder in sorted(packages) if not (folder / "py.typed").is_file()] == []
