"""Checkpoints that go bad on the disk, and disks that fail under a save."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aioseed.errors import CheckpointError
from aioseed.training.store import CheckpointStore

from .test_recorded_saves import restored, snapshot

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

SEED = 31

SAVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from aioseed.errors import CheckpointError
from aioseed.training.store import CheckpointStore
from chaos.test_recorded_saves import restored, snapshot
folder = Path(sys.argv[2])
store = CheckpointStore(folder / "checkpoints")
store.newest()
try:
    store.save(snapshot(3), 2)
except CheckpointError:
    store.save(snapshot(4), 2)
    sys.exit(RECOVERED)
"""
RECOVERED = 7


@pytest.fixture
def run_dir(tmp_path):
    """Two checkpoints, of steps 1 and 2, which share segments of replay."""
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    (tmp_path / "run").mkdir()
    for step in (1, 2):
        store.save(snapshot(step), 1)
    return tmp_path / "run"


def test_flipped_bits_are_noticed_and_the_save_before_is_restored(run_dir, full):
    """A file that both checkpoints share makes both unsound: then nothing is restored, and that is an error."""
    choose, flips = random.Random(SEED), 10_000 if full else 2_000
    victims = sorted(path for path in (run_dir / "checkpoints" / "000000000002").iterdir())
    outcomes = {"fell back": 0, "refused": 0}
    for _ in range(flips):
        victim = choose.choice(victims)
        place, bit = choose.randrange(victim.stat().st_size), choose.randrange(8)
        flip(victim, place, bit)
        if victim.stat().st_nlink > 1:
            with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
                restored(run_dir)
            outcomes["refused"] += 1
        else:
            assert restored(run_dir) == 1
            outcomes["fell back"] += 1
        flip(victim, place, bit)
    assert restored(run_dir) == 2
    print(f"seed {SEED}: {flips} flips, {outcomes}, 0 bad restores")


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("what", ["error=EIO", "error=ENOSPC", "signal=KILL"])
@pytest.mark.parametrize("call", ["fsync", "write", "mkdir", "rename", "link", "unlinkat"])
def test_a_system_call_that_fails_or_kills_costs_one_save_at_most(run_dir, tmp_path, call, what):
    """At the first, the second, ... such call, until the save makes none so late."""
    for number in range(1, 100):
        folder = tmp_path / str(number)
        shutil.copytree(run_dir, folder)
        code, injected = save_under_strace(folder, f"inject={call}:{what}:when={number}")
        step = restored(folder)
        if code == RECOVERED:
            assert step == 4
            assert not list((folder / "checkpoints").glob("*.tmp"))
        elif code == 0:
            assert step == 3
        else:
            assert what == "signal=KILL" and step in (2, 3)
        if not injected:
            print(f"{call} {what}: {number - 1} times")
            assert number > 1
            return
        shutil.rmtree(folder)
    raise AssertionError("the save never ended")


def save_under_strace(folder: Path, inject: str) -> tuple[int, bool]:
    """Save step 3 (and 4 if that fails) in a process of its own; return its exit code and whether a fault struck."""
    trace = folder / "trace"
    words = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={inject.split('=')[1].split(':')[0]}", "-e", inject]
    python = [sys.executable, "-B", "-c", SAVE.replace("RECOVERED", str(RECOVERED))]
    done = subprocess.run([*words, *python, str(Path(__file__).parents[1]), str(folder)], check=False)
    struck = "INJECTED" in trace.read_text() or done.returncode not in (0, RECOVERED)
    trace.unlink()
    return done.returncode, struck


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_file_system_costs_saves_and_nothing_else(tiny_disk):
    store = CheckpointStore(tiny_disk / "checkpoints")
    store.save(snapshot(1), 1)
    failed = 0
    for room in range(0, 40_000, 1_000):
        filler = tiny_disk / "filler"
        with filler.open("wb") as file:
            free = shutil.disk_usage(tiny_disk).free
            file.write(bytes(max(0, free - room)))
        try:
            store.save(snapshot(2), 1)
            break
        except CheckpointError as error:
            assert "No space left on device" in str(error)
            failed += 1
            assert restored(tiny_disk) == 1
            assert [path.name for path in (tiny_disk / "checkpoints").iterdir()] == ["000000000001"]
        filler.unlink()
    print(f"{failed} saves failed on a full disk")
    assert failed > 1
    filler.unlink(missing_ok=True)
    store.save(snapshot(3), 1)
    assert restored(tiny_disk) == 3
