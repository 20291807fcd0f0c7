from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from aioseed.errors import RunDirectoryError, RunDirectoryInUse
from aioseed.training.files import Files
from aioseed.training.rundir import RunDirectory, owner_of


def test_a_new_directory_is_the_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        run = RunDirectory.open(tmp_path / "runs" / "today" / "one")
    finally:
        os.umask(before)
    with run:
        assert run.path.stat().st_mode & 0o777 == 0o700
        assert (run.path / "learner.lock").stat().st_mode & 0o777 == 0o600
        assert run.checkpoints == run.path / "checkpoints"


def test_a_second_owner_is_refused_with_the_name_of_the_first(tmp_path):
    with RunDirectory.open(tmp_path), pytest.raises(RunDirectoryInUse) as caught:
        RunDirectory.open(tmp_path)
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
    assert caught.value.path == str(tmp_path)


def test_an_owner_is_named_whatever_stood_there_before(tmp_path):
    (tmp_path / "learner.lock").write_text("process 1234567890 on a-machine-with-a-long-name.example.org\n" * 3)
    with RunDirectory.open(tmp_path):
        assert owner_of(tmp_path) == f"process {os.getpid()} on {socket.gethostname()}"
        (tmp_path / "learner.lock").write_bytes(b"process 7 on \xff\n")
        assert owner_of(tmp_path) == "process 7 on \N{REPLACEMENT CHARACTER}"


def test_no_descriptor_is_left(tmp_path):
    with open(os.devnull) as probe:
        lowest = probe.fileno()
    with RunDirectory.open(tmp_path) as run:
        with pytest.raises(RunDirectoryInUse):
            RunDirectory.open(tmp_path)
        (tmp_path / "learner.lock").unlink()
        run.check()
    with open(os.devnull) as probe:
        assert probe.fileno() == lowest


def test_a_directory_can_be_taken_again_once_it_is_given_up(tmp_path):
    first = RunDirectory.open(tmp_path)
    first.close()
    first.close()
    RunDirectory.open(tmp_path).close()


def test_whoever_looks_for_an_owner_keeps_nobody_out(tmp_path):
    assert owner_of(tmp_path) is None
    for _ in range(2):
        with RunDirectory.open(tmp_path):
            assert owner_of(tmp_path) == f"process {os.getpid()} on {socket.gethostname()}"
        assert owner_of(tmp_path) is None


def test_a_dead_owner_does_not_hold_it(tmp_path):
    code = "import os, sys, pathlib; from aioseed.training.rundir import RunDirectory\n"
    code += "RunDirectory.open(pathlib.Path(sys.argv[1])); os._exit(9)"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == 9
    RunDirectory.open(tmp_path).close()


def test_an_owner_notices_that_its_directory_was_moved_and_that_it_is_back(tmp_path):
    with RunDirectory.open(tmp_path / "run") as run:
        run.check()
        run.path.rename(tmp_path / "elsewhere")
        with pytest.raises(RunDirectoryError, match="moved or removed; move it back"):
            run.check()
        (tmp_path / "elsewhere").rename(run.path)
        run.check()


def test_whoever_gave_a_directory_up_saves_nothing_there(tmp_path):
    run = RunDirectory.open(tmp_path)
    run.close()
    with pytest.raises(RunDirectoryError, match="was given up"):
        run.check()


def test_an_owner_notices_that_another_directory_lies_in_the_place_of_its_own(tmp_path):
    with RunDirectory.open(tmp_path / "run") as run:
        run.path.rename(tmp_path / "elsewhere")
        with RunDirectory.open(tmp_path / "run") as other:
            with pytest.raises(
                RunDirectoryError, match=rf"another run directory \(of process {os.getpid()} on .*\) lies"
            ):
                run.check()
            other.check()
        with pytest.raises(RunDirectoryError, match="another run directory lies at"):
            run.check()


def test_a_lock_file_that_was_removed_is_made_anew_and_keeps_others_out(tmp_path):
    with RunDirectory.open(tmp_path) as run:
        (tmp_path / "learner.lock").unlink()
        run.check()
        run.check()
        with pytest.raises(RunDirectoryInUse):
            RunDirectory.open(tmp_path)
    RunDirectory.open(tmp_path).close()


def test_a_missing_directory_is_an_error_where_none_is_to_be_made(tmp_path):
    with pytest.raises(RunDirectoryError, match="no run directory"):
        RunDirectory.open(tmp_path / "missing", create=False)


def test_a_file_in_its_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=f"the run directory {tmp_path / 'file'} cannot be used: File exists$"):
        RunDirectory.open(tmp_path / "file")


def test_generations_only_grow(tmp_path):
    for expected in (1, 2, 3):
        with RunDirectory.open(tmp_path) as run:
            assert run.next_generation() == expected


def test_a_lost_file_does_not_make_an_old_generation_new(tmp_path):
    with RunDirectory.open(tmp_path) as run:
        assert [run.next_generation() for _ in range(3)] == [1, 2, 3]
        (tmp_path / "generation").unlink()
        assert run.next_generation(restored=3) == 4
        assert run.next_generation(restored=2) == 5


def test_every_flipped_bit_of_the_generation_is_noticed(tmp_path):
    with RunDirectory.open(tmp_path) as run:
        run.next_generation(restored=41)
        path = tmp_path / "generation"
        sound = path.read_bytes()
        for bit in range(8 * len(sound)):
            flipped = bytearray(sound)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(RunDirectoryError, match="damaged"):
                run.next_generation()
        path.write_bytes(sound)
        assert run.next_generation() == 43


def test_the_names_of_new_folders_reach_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(Files, "sync_directory", lambda self, path: synced.append(path))
    RunDirectory.open(tmp_path / "runs" / "one").close()
    assert synced == [tmp_path / "runs", tmp_path]


def test_a_damaged_generation_is_an_error_and_not_a_new_beginning(tmp_path):
    (tmp_path / "generation").write_bytes(b"\xff12")
    with RunDirectory.open(tmp_path) as run, pytest.raises(RunDirectoryError, match="damaged"):
        run.next_generation()


def test_a_generation_is_never_given_twice_whenever_the_process_dies(tmp_path, faulty_files, killed):
    for call in range(1, 6):
        path = tmp_path / str(call)
        with RunDirectory.open(path) as run:
            given = run.next_generation(998)
        with RunDirectory.open(path, files=faulty_files(call)) as run:
            try:
                given = run.next_generation()
            except killed:
                pass
        with RunDirectory.open(path) as run:
            assert run.next_generation() > given


@pytest.mark.parametrize("error", [OSError(28, "full"), OSError("full")])
def test_a_disk_that_fails_is_a_run_directory_error(tmp_path, faulty_files, error):
    with (
        RunDirectory.open(tmp_path, files=faulty_files(1, error)) as run,
        pytest.raises(RunDirectoryError, match=r"cannot be used: full$"),
    ):
        run.next_generation()


def test_the_configuration_is_kept_and_replaced(tmp_path):
    with RunDirectory.open(tmp_path) as run:
        run.save_config('{"a": 1}')
        run.save_config('{"a": 2}')
        assert run.config.read_text() == '{"a": 2}'
