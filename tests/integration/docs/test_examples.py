"""Python that the documentation calls runnable runs, and so does every file of docs/examples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aioseed.testing.transport_kit import TRANSPORT_CHECKS, Check
from aioseed.transport import Transport

from .pages import DOCS, Block, blocks

EXAMPLES = sorted((DOCS / "examples").glob("*.py"))

pytestmark = pytest.mark.timeout(120)


def programs() -> dict[str, str]:
    """Return the runnable blocks; one that continues another is joined to it."""
    found: dict[str, str] = {}
    last: Block | None = None
    for block in blocks():
        if block.language == "python" and block.mark == "runnable":
            found[block.name], last = block.text, block
        elif block.mark == "runnable: continues":
            assert last is not None and last.page == block.page
            found[last.name] += block.text
    return found


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(DOCS / "examples"), os.environ.get("PYTHONPATH", "")]
    outside = {"PYTHONPATH": os.pathsep.join(paths), "XDG_RUNTIME_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", program],
        cwd=folder,
        env={**os.environ, **outside},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("name", programs())
def test_a_runnable_block_runs(name: str, tmp_path: Path) -> None:
    ended = run(programs()[name], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_error_in_a_block_would_be_seen(tmp_path: Path) -> None:
    assert run("import aioseed\naioseed.nonsense", tmp_path).returncode != 0


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_can_be_run(example: Path, tmp_path: Path) -> None:
    ended = run(f"import runpy; runpy.run_path({str(example)!r}, run_name='__main__')", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
async def test_the_own_transport_passes_the_kit(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "examples")
    from own_transport import CountedTransport

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, str]]:
        yield CountedTransport(), "counted://127.0.0.1:0"

    await check(make)


def test_the_page_shows_the_own_transport_that_is_tested() -> None:
    page = [block.text for block in blocks() if block.page.name == "own-transport.md"]
    (shown,) = [text for text in page if "class CountedChannel" in text]
    assert shown in (DOCS / "examples" / "own_transport.py").read_text(encoding="utf-8")


def test_json_that_is_shown_is_json() -> None:
    for block in blocks():
        if block.language == "json":
            json.loads(block.text)
