from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from aioseed.errors import RunDirectoryError
from aioseed.host.doctor import examine, imbalance
from aioseed.host.rundir import open_run
from aioseed.telemetry.ledger import Account, Ledger, Reason
from aioseed.telemetry.sinks import JsonLinesSink
from aioseed.training.progress import Progress
from aioseed.training.store import Snapshot


def ledger() -> Ledger:
    books = Ledger()
    books.accept(10)
    books.drop(3, Reason.LEASE_ENDED, Account.OPEN)
    return books


def snapshot(step: int) -> Snapshot:
    state = {"training": Progress(version=step).to_json(), "ledger": ledger().to_json()}
    return Snapshot(step, {"x": np.zeros(step)}, state)


@pytest.fixture
def run_dir(small, tmp_path):
    """A sound run directory with two checkpoints and two lines of figures."""
    opened = open_run(tmp_path / "run", small(), "never")
    for step in (1, 2):
        opened.store.save(snapshot(step), opened.generation)
    sink = JsonLinesSink(tmp_path / "run" / "metrics.jsonl")
    for accepted in (10, 20):
        sink.write(accepted, {"ledger/accepted": accepted, "ledger/consumed": accepted - 3, "ledger/dropped_nan": 3})
    sink.close()
    (tmp_path / "run" / "learner.log").write_text("2026-01-01 INFO aioseed.learner: saved\n")
    opened.directory.close()
    return tmp_path / "run"


def trouble_in(run_dir) -> list[str]:
    """Return subject and text of all that is wrong; each must say what to do."""
    diagnosis = examine(run_dir)
    found = [one for one in diagnosis.found if one.level == "trouble"]
    assert diagnosis.sound == (not found)
    assert all(one.advice for one in found)
    return [f"{one.subject}: {one.text}" for one in found]


@pytest.mark.parametrize("inside", ["checkpoints/000000000002", "checkpoints", "config.json"])
def test_what_lies_in_a_run_directory_is_told_from_it(run_dir, inside):
    with pytest.raises(RunDirectoryError) as caught:
        examine(run_dir / inside)
    assert str(caught.value) == f"there is no run directory {run_dir / inside} (did you mean the run {run_dir}?)"


def notes_in(run_dir) -> str:
    return "\n".join(f"{one.subject}: {one.text}" for one in examine(run_dir).found if one.level == "note")


def test_an_installation_that_does_not_load_is_trouble_once_and_not_the_runs(run_dir, tmp_path, monkeypatch):
    (tmp_path / "optax.py").write_text("raise RuntimeError('jaxlib is too old')")
    (tmp_path / "broken_device.py").write_text("raise ImportError('no such library')")
    (tmp_path / "broken_device-1.dist-info").mkdir()
    (tmp_path / "broken_device-1.dist-info" / "METADATA").write_text("Name: broken-device\nVersion: 1\n")
    points = "[jax_plugins]\nbroken = broken_device\n"
    (tmp_path / "broken_device-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "optax", raising=False)
    assert trouble_in(run_dir) == [
        "installation: optax cannot be loaded: RuntimeError: jaxlib is too old",
        "installation: JAX's plugin broken cannot be loaded, and JAX passes it over: ImportError: no such library",
    ]


def test_without_a_directory_the_installation_is_looked_at():
    (found,) = examine(None).found
    assert (found.level, found.subject) == ("sound", "installation")
    assert f"jax {version('jax')}" in found.text


def test_a_sound_run_is_called_sound_and_nothing_is_changed(run_dir):
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    diagnosis = examine(run_dir)
    assert diagnosis.sound and {one.level for one in diagnosis.found} == {"sound"}
    said = {one.subject: one.text for one in diagnosis.found}
    assert said["checkpoints"] == "the run goes on from 000000000002"
    assert said["checkpoints/000000000001"].startswith("generation 1, 3 files, ")
    assert said["metrics.jsonl"] == "the ledger balances in all 2 lines"
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


def test_there_must_be_a_directory(tmp_path):
    with pytest.raises(RunDirectoryError, match="no run directory"):
        examine(tmp_path / "none")


def test_a_learner_at_work_is_named(run_dir, small):
    opened = open_run(run_dir, small(), "require")
    try:
        assert any("a learner is at work on it: process" in one.text for one in examine(run_dir).found)
    finally:
        opened.directory.close()
    assert any("no learner is at work" in one.text for one in examine(run_dir).found)


@pytest.mark.parametrize("name", ["arrays.safetensors", "state.json", "MANIFEST.json"])
def test_a_flipped_bit_in_a_checkpoint_is_trouble(run_dir, name):
    path = run_dir / "checkpoints" / "000000000002" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (sentence,) = trouble_in(run_dir)
    assert sentence.startswith("checkpoints/000000000002: is not sound") and name in sentence


def test_a_run_that_cannot_go_on_is_said_so(run_dir):
    for checkpoint in (run_dir / "checkpoints").iterdir():
        (checkpoint / "state.json").unlink()
    assert "checkpoints: holds no sound checkpoint: the run cannot go on" in trouble_in(run_dir)


def test_a_checkpoint_whose_ledger_does_not_balance_is_trouble(run_dir, small):
    opened = open_run(run_dir, small(), "require")
    state = {"training": Progress().to_json(), "ledger": {**ledger().to_json(), "accepted": 11}}
    opened.store.save(Snapshot(9, {}, state), opened.generation)
    opened.directory.close()
    name = "checkpoints/000000000009"
    assert trouble_in(run_dir) == [f"{name}: is what was written, but the saved ledger does not balance"]


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": 0}', None])
def test_a_configuration_that_is_no_configuration_is_trouble(run_dir, text):
    path = run_dir / "config.json"
    path.unlink() if text is None else path.write_text(text)
    assert [sentence.split(":")[0] for sentence in trouble_in(run_dir)] == ["config.json"]


def test_options_that_no_plugin_knows_are_trouble_and_code_of_the_run_itself_is_not_imported(run_dir, small):
    path = run_dir / "config.json"
    path.write_text(small("agent.discont=0.5").model_dump_json())
    [sentence] = trouble_in(run_dir)
    assert sentence.startswith("config.json: is not a configuration of this version: agent.discont is not a known key")
    path.write_text(small("network={name: 'antigravity:geohash'}").model_dump_json())
    assert trouble_in(run_dir) == []
    assert "config.json: names antigravity:geohash, which is not imported here: options are not looked at" in notes_in(
        run_dir
    )
    assert "antigravity" not in sys.modules


def test_a_damaged_or_missing_generation_is_trouble(run_dir):
    path = run_dir / "generation"
    path.write_bytes(path.read_bytes().replace(b"1", b"7", 1))
    assert [sentence.split(":")[0] for sentence in trouble_in(run_dir)] == ["generation"]
    path.unlink()
    assert trouble_in(run_dir) == ["generation: says nothing, the checkpoints were written by generation 1"]


def test_lines_cut_short_are_a_note_and_a_ledger_out_of_balance_is_trouble(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"ledger/acc\n')
    assert trouble_in(run_dir) == []
    assert "metrics.jsonl: 1 of 3 lines are cut short" in notes_in(run_dir)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"ledger/accepted": 5, "ledger/held": 4}) + "\n")
    assert trouble_in(run_dir) == ["metrics.jsonl: the ledger does not balance in 1 of 4 lines"]


def test_errors_in_the_log_interrupted_saves_and_open_doors_are_noted(run_dir):
    (run_dir / "learner.log").write_text("2026 ERROR aioseed.learner: the run failed\n")
    (run_dir / "checkpoints" / "000000000003.tmp").mkdir()
    run_dir.chmod(0o755)
    notes = notes_in(run_dir)
    assert trouble_in(run_dir) == []
    for words in ("has 1 errors, the last one: 2026 ERROR", "000000000003.tmp: is a save that is under way", "0755"):
        assert words in notes


def test_a_disk_without_room_for_the_next_save_is_trouble(run_dir, monkeypatch):
    size = sum(path.stat().st_size for path in (run_dir / "checkpoints" / "000000000002").iterdir())
    for free, troubles in ((2 * size, 0), (2 * size - 1, 1), (0, 1)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: shutil._ntuple_diskusage(0, 0, free))
        assert len(trouble_in(run_dir)) == troubles


@pytest.mark.parametrize("closed", [".", "checkpoints"])
def test_a_folder_that_its_user_cannot_write_is_trouble(run_dir, monkeypatch, closed):
    shut = run_dir / closed
    access = os.access  # asked by hand: root may write anywhere
    monkeypatch.setattr("os.access", lambda path, mode: path != shut and access(path, mode))
    [found] = trouble_in(run_dir)
    assert found == f"{closed}: cannot be written by this user: a learner of this user could not save"


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="elsewhere nobody can tell")
def test_a_run_that_is_mounted_read_only_is_trouble_of_the_mount_and_not_of_its_owner(run_dir, monkeypatch):
    def denied(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opens(path, flags, *rest)

    opens = os.open
    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr("aioseed.host.doctor.shutil.disk_usage", lambda path: SimpleNamespace(free=2**30))
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    found = examine(run_dir).found
    assert [(one.subject, one.text, one.advice) for one in found if one.level == "trouble"] == [
        (name, "is mounted read-only: a learner here could not save", "mount it for writing, or look where it trains")
        for name in (".", "checkpoints")
    ]
    assert [one.text for one in found if one.level == "note" and one.subject == "."] == [
        "whether a learner owns it cannot be seen: Read-only file system"
    ]


def test_checkpoints_that_are_gone_are_trouble_where_the_figures_tell_of_saves(run_dir):
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "checkpoints").mkdir()
    assert not trouble_in(run_dir) and "no save was completed yet" in notes_in(run_dir)
    with (run_dir / "metrics.jsonl").open("a") as figures:
        figures.write('{"step": 30, "checkpoints/saved": 2}\n')
    assert trouble_in(run_dir) == ["checkpoints: holds no checkpoint, and metrics.jsonl tells of saves"]


def test_other_libraries_than_those_that_wrote_it_are_noted(run_dir, monkeypatch):
    monkeypatch.setattr("aioseed.host.doctor.metadata.version", lambda library: "0")
    assert "was written with jax " in notes_in(run_dir)


def test_a_run_without_its_configuration_can_go_on(run_dir):
    (run_dir / "config.json").unlink()
    assert trouble_in(run_dir) == ["config.json: is missing"]


def test_an_empty_directory_is_no_run(tmp_path):
    assert [sentence.split(":")[0] for sentence in trouble_in(tmp_path)] == ["config.json"]
    assert "no save was completed yet" in notes_in(tmp_path)


def test_the_imbalance_of_a_line():
    balanced = {"ledger/accepted": 10, "ledger/consumed": 4, "ledger/evaluated": 1, "ledger/held": 2}
    assert imbalance({**balanced, "ledger/dropped_restart": 2, "ledger/dropped_nonfinite": 1}) == 0
    assert imbalance({**balanced, "ledger/dropped_restart": 1}) == 2
    assert imbalance({"loss": 1.0}) == 0
