from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

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


def test_the_umask_says_who_may_read_it(run: Path) -> None:
    before = os.umask(0o027)
    file = NamedFile(run / "log")
    try:
        file.append(b"1\n")
    finally:
        os.umask(before)
        file.close()
    assert (run / "log").stat().st_mode & 0o777 == 0o640


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
