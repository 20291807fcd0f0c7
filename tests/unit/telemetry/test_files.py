from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from aioseed.telemetry import files
from aioseed.telemetry.files import NamedFile

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows moves no open file")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_a_file_that_was_moved_or_removed_is_begun_anew(run: Path) -> None:
    file = NamedFile(run / "log")
    file.append(b"1\n")
    (run / "log").rename(run / "log.1")
    file.append(b"2\n")
    (run / "log").unlink()
    file.append(b"3\n")
    file.append(b"4\n")
    file.close()
    file.close()
    assert {path.name: path.read_text() for path in run.iterdir()} == {"log": "3\n4\n", "log.1": "1\n"}


def test_one_that_was_copied_and_emptied_goes_on_from_its_beginning(run: Path) -> None:
    file = NamedFile(run / "log")
    file.append(b"1\n")
    os.truncate(run / "log", 0)
    file.append(b"2\n")
    file.close()
    assert (run / "log").read_bytes() == b"2\n"


def test_it_goes_with_its_folder_and_never_into_another_that_lies_there_now(run: Path) -> None:
    file = NamedFile(run / "log")
    file.open()
    moved = run.rename(run.with_name("moved"))
    run.mkdir()
    (run / "log").write_text("another's\n")
    file.append(b"1\n")
    (moved / "log").unlink()
    file.append(b"2\n")
    assert ((moved / "log").read_text(), (run / "log").read_text()) == ("2\n", "another's\n")
    shutil.rmtree(moved)
    with pytest.raises(FileNotFoundError):
        file.append(b"3\n")
    file.close()
    assert (run / "log").read_text() == "another's\n"


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o000, 0o666)])
def test_the_umask_says_who_may_read_it(run: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    file = NamedFile(run / "log")
    try:
        file.append(b"1\n")
    finally:
        os.umask(before)
        file.close()
    assert (run / "log").stat().st_mode & 0o777 == mode


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was opened."""
    found: list[str] = []
    really = os.open

    def noting(path: str | Path, *arguments: int, **named: int) -> int:
        found.append(Path(path).name)
        return really(path, *arguments, **named)

    monkeypatch.setattr(os, "open", noting)
    return found


def test_one_that_stays_where_it_is_is_opened_once(run: Path, opened: list[str]) -> None:
    file = NamedFile(run / "log")
    for _ in range(3):
        file.append(b"1\n")
    file.close()
    assert opened == ["run", "log"]


def test_where_nothing_can_be_opened_by_its_folder_a_path_will_do(
    run: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_BY_FOLDER", False)
    before = os.umask(0)
    file = NamedFile(run / "log")
    file.append(b"1\n")
    os.umask(before)
    file.append(b"2\n")
    file.close()
    assert opened == ["log"] and (run / "log").read_text() == "1\n2\n"
    assert (run / "log").stat().st_mode & 0o777 == 0o666


def test_what_cannot_be_opened_is_tried_anew_each_time(run: Path) -> None:
    (run / "log").mkdir()
    file = NamedFile(run / "log")
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            file.append(b"lost\n")
    (run / "log").rmdir()
    file.append(b"1\n")
    file.close()
    assert (run / "log").read_text() == "1\n"


def test_a_part_of_a_line_is_ended_also_where_the_disk_was_full_at_first(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "log").write_text("a par")
    file, append_whole = NamedFile(run / "log"), files.append_whole

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "append_whole", full)
    with pytest.raises(OSError, match="No space left"):
        file.open()
    monkeypatch.setattr(files, "append_whole", append_whole)
    file.append(b"1\n")
    file.close()
    assert (run / "log").read_text() == "a par\n1\n"


def test_no_descriptor_is_left(run: Path) -> None:
    with open(os.devnull) as probe:
        lowest = probe.fileno()
    file = NamedFile(run / "log")
    file.append(b"1\n")
    (run / "log").unlink()
    file.append(b"2\n")
    file.close()
    with open(os.devnull) as probe:
        assert probe.fileno() == lowest
