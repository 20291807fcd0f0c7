"""Compiled programs that cannot be read are removed: JAX keeps them, and warns at every start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from aioseed.host.compiled import STAMP, YOUNG_S, remove_damaged

PACKED = zlib.compress(b"a program" * 50)


def write(path: Path, data: bytes, age_s: float = 2 * YOUNG_S) -> Path:
    path.write_bytes(data)
    written_s = time.time() - age_s
    os.utime(path, (written_s, written_s))
    return path


@pytest.mark.parametrize(
    "damaged",
    [b"", bytes(100), PACKED[:-5], PACKED[:10] + b"?" + PACKED[11:]],
    ids=["empty", "zeros", "half", "flipped"],
)
def test_what_cannot_be_read_is_removed_and_nothing_else(tmp_path, damaged):
    write(tmp_path / "jit_step-1-cache", damaged)
    kept = [
        write(tmp_path / "jit_act-2-cache", PACKED),
        write(tmp_path / "jit_act-3-cache", b"of another form"),
        write(tmp_path / "jit_act-3-atime", b""),
    ]
    assert remove_damaged(tmp_path) == ["jit_step-1-cache"]
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / STAMP])


def test_one_that_may_still_be_written_is_looked_at_the_next_time(tmp_path):
    young = write(tmp_path / "jit_step-1-cache", PACKED[:-5], age_s=YOUNG_S / 2)
    assert remove_damaged(tmp_path) == []
    write(young, PACKED[:-5], age_s=1.1 * YOUNG_S)  # time goes by, and with it the last look
    looked_s = time.time() - 1.6 * YOUNG_S
    os.utime(tmp_path / STAMP, (looked_s, looked_s))
    assert remove_damaged(tmp_path) == [young.name]


def test_what_was_looked_at_is_not_read_again(tmp_path, monkeypatch):
    write(tmp_path / "jit_act-2-cache", PACKED)
    remove_damaged(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read again"))
    assert remove_damaged(tmp_path) == []


def test_a_folder_that_is_not_there_or_cannot_be_looked_through_is_no_failure(tmp_path, caplog):
    assert remove_damaged(tmp_path / "none") == []
    (tmp_path / "jit-1-cache").mkdir()
    os.utime(tmp_path / "jit-1-cache", (1, 1))
    assert remove_damaged(tmp_path) == [] and "cannot be looked through" in caplog.text


def test_jax_keeps_a_damaged_program_until_it_is_removed(tmp_path):
    """Hold the reason against the JAX that is installed."""
    compile_one = (
        "from pathlib import Path; from aioseed.host.accelerator import prepare; import jax;"
        f"prepare(Path({str(tmp_path)!r})); jax.jit(lambda x: x * 3 + 1)(1.0)"
    )
    named = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}

    def warned() -> bool:
        ran = [sys.executable, "-c", compile_one]
        shown = subprocess.run(ran, env=named, capture_output=True, text=True, check=True, timeout=60)
        return "Error reading persistent compilation cache entry" in shown.stderr

    assert not warned()
    for entry in tmp_path.glob("*-cache"):
        write(entry, entry.read_bytes()[:-5], age_s=0)
    assert warned() and warned()  # too young to be removed
    for entry in tmp_path.glob("*-cache"):
        write(entry, entry.read_bytes())
    (tmp_path / STAMP).unlink()
    assert not warned()
