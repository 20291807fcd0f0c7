"""The source files that the architecture tests read."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Source(NamedTuple):
    """One module of ours, parsed."""

    module: str  # dotted name, packages without `.__init__`
    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Return the path below the root of the repository, for messages."""
        return self.path.relative_to(ROOT).as_posix()


def read_sources() -> list[Source]:
    """Read every module below aioseed/, transports/ and envs/."""
    sources = []
    for base in (ROOT, ROOT / "transports", ROOT / "envs"):
        for path in sorted(base.glob("aioseed*/**/*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            sources.append(Source(module, path, text, ast.parse(text, str(path))))
    return sources


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Return every module of ours."""
    return read_sources()
