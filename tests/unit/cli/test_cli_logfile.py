from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aioseed.cli.logfile import LogFile
from aioseed.telemetry.files import NamedFile


@pytest.fixture
def shown() -> list[str]:
    return []


class Opened:
    """Hand records to a log file without a logger: pytest listens there."""

    def __init__(self, path: Path, shown: list[str]) -> None:
        self.path = path
        self.file = LogFile(path, shown.append)

    def log(self, words: str, *args: object, name: str = "aioseed.serving") -> None:
        self.file.handle(logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": words, "args": args}))

    def written(self) -> list[str]:
        """Close the file and return what its lines say."""
        self.file.close()
        assert not self.file._thread.is_alive()
        return [line.partition(": ")[2] for line in self.path.read_text().splitlines()]


@pytest.fixture
def opened(tmp_path: Path, shown: list[str]) -> Iterator[Opened]:
    (tmp_path / "run").mkdir()
    made = Opened(tmp_path / "run" / "learner.log", shown)
    yield made
    made.file.close()


def test_one_that_cannot_be_opened_costs_its_lines_until_it_can_and_not_the_run(tmp_path, shown):
    path = tmp_path / "learner.log"
    path.mkdir()
    opened = Opened(path, shown)
    path.rmdir()
    opened.log("after")
    assert opened.written() == ["after"]
    assert shown == [f"the log {path} cannot be written: Is a directory"]


def test_each_time_that_it_cannot_be_written_is_shown_once(opened, shown, monkeypatch):
    append, failing = NamedFile.append, iter([True, True, False, True])

    def fails(self: NamedFile, data: bytes) -> None:
        if next(failing):
            raise OSError(28, "No space left on device")
        append(self, data)

    monkeypatch.setattr(NamedFile, "append", fails)
    for number in range(4):
        opened.log("line %d", number)
    assert opened.written() == ["line 2"]
    assert shown == [f"the log {opened.path} cannot be written: No space left on device"] * 2


def test_it_is_there_before_its_first_line_so_that_it_moves_with_its_directory(opened, tmp_path):
    (tmp_path / "run").rename(tmp_path / "moved")
    opened.log("after")
    opened.path = tmp_path / "moved" / "learner.log"
    assert opened.written() == ["after"]


def test_a_path_that_is_not_utf8_is_spelt_out(opened, capsys):
    opened.log("saved %s", Path("h\udce9"))
    opened.log("%d words do not fit", "x")
    assert opened.written() == ["saved h\\udce9"]
    assert "Logging error" in capsys.readouterr().err


def test_a_flood_of_one_kind_fills_no_disk_and_what_is_left_out_is_counted(opened, monkeypatch, capsys):
    now_s = 100.0
    monkeypatch.setattr("aioseed.cli.logfile.time.monotonic", lambda: now_s)
    for number in range(5000):
        opened.log("actor %d joined", number)
    opened.log("something else")
    for number in range(2000):
        opened.log("actor %d: what it prints", number, name="aioseed.actors")
    now_s += 2.0
    for number in range(3):
        opened.log("actor %d joined", number)
    now_s += 1.0
    opened.log("actor %d joined", 3)
    lines = opened.written()
    printed = [line for line in lines if "prints" in line]
    assert len(printed) == 2000
    rest = [line for line in lines if "prints" not in line]
    assert rest[:1000] == [f"actor {number} joined" for number in range(1000)]
    assert rest[1000:] == [
        "something else",
        "4000 lines like the next are left out",
        "actor 0 joined",
        "actor 1 joined",
        "1 lines like the next are left out",
        "actor 3 joined",
    ]
    assert {line.split(" ", 2)[2].partition(":")[0] for line in opened.path.read_text().splitlines()} == {
        "INFO aioseed.serving",
        "INFO aioseed.actors",
    }
    assert capsys.readouterr().err == ""


def test_a_disk_that_hangs_holds_up_nobody_and_costs_what_cannot_wait(tmp_path, shown, monkeypatch):
    append, hangs, goes_on, has_room = NamedFile.append, threading.Event(), threading.Event(), threading.Event()

    def hanging(self: NamedFile, data: bytes) -> None:
        hangs.set()
        assert goes_on.wait(10.0)
        append(self, data)
        if b"line 3" in data:
            has_room.set()

    monkeypatch.setattr(NamedFile, "append", hanging)
    monkeypatch.setattr(LogFile, "WAITING", 3)
    opened = Opened(tmp_path / "learner.log", shown)
    opened.log("line %d", 0)
    assert hangs.wait(10.0)
    for number in range(1, 8):
        opened.log("line %d", number)
    goes_on.set()
    assert has_room.wait(10.0)
    opened.log("line %d", 8)
    opened.log("line %d", 9)
    told = "4 lines are left out: the disk was too slow"
    assert opened.written() == ["line 0", "line 1", "line 2", "line 3", told, "line 8", "line 9"]


def test_the_end_does_not_wait_for_a_disk_that_hangs(tmp_path, shown, monkeypatch):
    goes_on = threading.Event()
    monkeypatch.setattr(NamedFile, "append", lambda self, data: goes_on.wait(10.0))
    monkeypatch.setattr(LogFile, "CLOSE_S", 0.0)
    opened = Opened(tmp_path / "learner.log", shown)
    opened.log("never written")
    opened.file.close()
    assert opened.file._thread.is_alive()
    assert opened.file._thread.daemon  # the process ends without it
    goes_on.set()
    opened.file._thread.join(10.0)
    assert not opened.file._thread.is_alive()
