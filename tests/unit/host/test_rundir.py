from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from aioseed.errors import CheckpointError, ConfigError, RunDirectoryError, RunDirectoryInUse, UsageError
from aioseed.host.doctor import examine
from aioseed.host.rundir import discard, name_of_run, new_run_path, open_run
from aioseed.host.saved import load_run
from aioseed.training.files import Files
from aioseed.training.store import Snapshot


@pytest.fixture
def opened(small, tmp_path):
    """Open a run in the folder ``run``, with a checkpoint if asked for; everything is closed at the end."""
    made = []

    def make(resume="never", *overrides, save=None):
        run = open_run(tmp_path / "run", small(*overrides), resume)
        made.append(run)
        if save is not None:
            run.store.save(Snapshot(save, {"x": np.zeros(1)}, {}), run.generation)
        return run

    yield make
    for run in made:
        run.directory.close()


def test_a_run_begins_with_its_configuration_and_generation_1(opened, tmp_path):
    run = opened("never", "seed=5")
    assert (run.generation, run.restored, run.config_before) == (1, None, None)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 5


def test_a_run_has_a_name_that_can_be_sent_whatever_its_folder_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_of_run(Path("runs/Fähre 1")) == "Fähre 1"
    assert name_of_run(Path()) == tmp_path.name
    assert name_of_run(Path("runs", os.fsdecode(b"h\xe9"))).encode() == "h\N{REPLACEMENT CHARACTER}".encode()


def test_the_configuration_of_a_run_holds_the_defaults_of_its_plugins(opened, tmp_path):
    opened()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["agent"]["lambda_"] == 1.0


def test_a_wrong_option_of_a_plugin_makes_no_directory(opened, tmp_path):
    with pytest.raises(ConfigError, match=r"agent\.discont is not a known key"):
        opened("never", "agent.discont=0.5")
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_never_begun_anew_in_silence(opened):
    opened().directory.close()
    with pytest.raises(CheckpointError, match="holds a run already: go on with --resume"):
        opened()


@pytest.mark.parametrize("resume", ["auto", "require"])
def test_a_saved_run_goes_on_with_the_next_generation(opened, resume):
    opened(save=7).directory.close()
    run = opened(resume)
    assert run.generation == 2 and run.restored.manifest.step == 7


def test_a_run_whose_configuration_is_lost_goes_on_if_asked_and_is_not_taken_for_none(opened, tmp_path):
    opened("never", "seed=5", save=7).directory.close()
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(CheckpointError, match="holds a run already: go on with --resume"):
        opened("never")
    assert opened("require", "seed=6").restored.manifest.step == 7
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 6


def test_no_generation_is_given_twice_where_its_file_is_lost(opened, tmp_path):
    opened(save=7).directory.close()
    opened("auto", save=9).directory.close()
    (tmp_path / "run" / "generation").unlink()
    assert opened("auto").generation == 3  # the newest checkpoint knows of 2


def test_what_an_interrupted_save_left_behind_is_gone_when_the_run_goes_on(opened, tmp_path):
    opened(save=7).directory.close()
    (tmp_path / "run" / "checkpoints" / "000000000008.tmp").mkdir()
    opened("auto")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["000000000007"]


@pytest.mark.parametrize("resume", ["Never", True, None])
def test_a_way_to_open_that_is_misspelt_opens_nothing(opened, tmp_path, resume):
    opened("never", "seed=5", save=7).directory.close()
    with pytest.raises(UsageError, match=f"resume is {resume!r}: expected 'never', 'auto' or 'require'"):
        opened(resume, "seed=6")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 5


@pytest.mark.parametrize("look", [load_run, examine, None])
def test_a_run_of_somebody_else_is_neither_none_nor_a_crash(opened, tmp_path, monkeypatch, look):
    """As for anyone but its owner: the directory is 0700, and whoever runs this may be allowed everything."""
    opened(save=7).directory.close()

    stat = os.stat

    def denied(path, **options):
        if f"{tmp_path / 'run'}{os.sep}" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(os, "lstat", lambda path: denied(path, follow_symlinks=False))
    with pytest.raises(RunDirectoryError, match=r"run cannot be looked into: Permission denied; is it yours\?"):
        opened("require") if look is None else look(tmp_path / "run")


def test_auto_begins_where_nothing_is_and_again_where_no_save_was_completed(opened):
    first = opened("auto")
    assert first.restored is None
    first.directory.close()
    run = opened("auto")
    assert run.restored is None and run.generation == 2


def test_require_insists_on_a_run_and_on_a_checkpoint(opened, tmp_path):
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        opened("require")
    assert not (tmp_path / "run").exists()
    opened().directory.close()
    with pytest.raises(
        CheckpointError, match=r"never completed a save.*; --run-dir .*run --resume auto begins it anew$"
    ):
        opened("require")


def test_a_checkpoint_is_no_run_to_resume_and_its_run_is_named(small, opened, tmp_path):
    opened().directory.close()
    (tmp_path / "run" / "checkpoints" / "000000000003").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=rf"holds no run to resume \(did you mean the run {tmp_path / 'run'}\?\)"):
        open_run(tmp_path / "run" / "checkpoints" / "000000000003", small(), "require")


def test_a_path_that_cannot_be_is_told_without_numbers(small):
    with pytest.raises(
        RunDirectoryError, match=r"the run directory /dev/null/x cannot be used: [A-Z][a-z ]+ \(/dev/null\)$"
    ):
        open_run(Path("/dev/null/x"), small(), "never")


@pytest.mark.parametrize("resume", ["auto", "require"])
def test_a_run_that_saved_and_whose_disk_is_not_mounted_is_not_begun_anew(opened, tmp_path, resume):
    opened().directory.close()
    run = tmp_path / "run"
    (tmp_path / "mount").mkdir()
    (run / "checkpoints").symlink_to(tmp_path / "mount")
    (run / "metrics.jsonl").write_text('{"step": 0, "checkpoints/failed": 1}\n{"step": 9, "checkpoints/saved": 1}\n')
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(
        CheckpointError, match=r"holds no checkpoint, and metrics\.jsonl tells of saves: is its disk there"
    ):
        opened(resume, "seed=99")
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_run_whose_saves_all_failed_is_begun_again(opened, tmp_path):
    opened().directory.close()
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 9, "checkpoints/failed": 3, "checkpoints/saved": 0}\n')
    assert opened("auto").restored is None


@pytest.mark.parametrize("resume", ["auto", "require"])
def test_a_run_of_which_no_checkpoint_is_sound_is_an_error(opened, tmp_path, resume):
    opened(save=7).directory.close()
    for file in (tmp_path / "run" / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(b"dust")
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        opened(resume, "seed=99")
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_one_learner_owns_a_run_directory_and_a_failed_attempt_gives_it_back(opened):
    opened(save=7)
    with pytest.raises(RunDirectoryInUse, match=f"process {os.getpid()}"):
        opened("auto")


def test_an_attempt_that_fails_lets_go_of_the_directory(opened):
    opened(save=7).directory.close()
    with pytest.raises(CheckpointError):
        opened("never")
    assert opened("auto").restored is not None


def test_a_configuration_that_cannot_be_read_is_an_error_of_the_directory(opened, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").mkdir()
    with pytest.raises(RunDirectoryError, match=r"config\.json cannot be read: .*; if it is damaged, remove it"):
        opened("auto")


@pytest.mark.parametrize("written", ["write", "replace"])
def test_a_start_that_a_full_disk_ends_leaves_no_folder_that_it_made(small, tmp_path, monkeypatch, written):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    # The lock's own text is the first that is written.
    monkeypatch.setattr(*((os, "write") if written == "write" else (Files, "replace")), full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        open_run(tmp_path / "runs" / "run", small(), "auto")
    assert list(tmp_path.iterdir()) == []


def test_discarding_a_new_run_leaves_no_folder_that_it_made(small, tmp_path):
    run = open_run(tmp_path / "runs" / "deep" / "run", small(), "never")
    discard(run)
    run.directory.close()
    assert list(tmp_path.iterdir()) == []


def test_discarding_keeps_a_folder_that_was_there_and_what_others_put_into_it(opened, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    run = opened()
    discard(run)
    run.directory.close()
    assert (tmp_path / "run" / "notes.txt").exists()
    assert opened("never").config_before is None


def test_discarding_gives_a_resumed_run_its_configuration_back(opened, tmp_path):
    opened("never", "seed=5", save=7).directory.close()
    run = opened("auto", "seed=6")
    discard(run)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 5
    assert (tmp_path / "run" / "checkpoints").exists()


def test_new_paths_are_free(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: form)  # all in one second
    made = []
    for _ in range(3):
        made.append(new_run_path("cartpole", tmp_path))
        made[-1].mkdir()
    stem = f"cartpole-%Y%m%d-%H%M%S-{os.getpid()}"
    assert [path.name for path in made] == [stem, f"{stem}-2", f"{stem}-3"]


def test_a_run_begun_again_before_its_first_save_is_not_configured_otherwise_than_it_was(opened):
    opened("auto", "seed=5").directory.close()
    begun = opened("auto", "seed=6", save=7)
    assert begun.changes == ""
    begun.directory.close()
    assert opened("auto", "seed=7").changes == "configured otherwise than before: seed is 7 (was 6)"


def test_figures_that_cannot_be_read_are_not_no_figures(opened, tmp_path):
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl cannot be read: Is a directory$"):
        opened("auto")


@pytest.mark.parametrize("locale", ["utf-8", "iso-8859-1", "ascii"])
def test_a_configuration_is_utf8_whatever_the_locale_says(opened, tmp_path, monkeypatch, locale):
    text_encoding = io.text_encoding
    monkeypatch.setattr(io, "text_encoding", lambda given, *_: locale if given is None else text_encoding(given))
    opened("never", "transport.tls.certificate=Fähre/c.pem", "transport.tls.key=k", save=7).directory.close()
    before = (tmp_path / "run" / "config.json").read_bytes()
    assert "Fähre".encode() in before
    run = opened("auto", "seed=6")
    assert "(was " in run.changes and "Fähre" in run.changes
    discard(run)
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    run.directory.close()
    assert {found.level for found in examine(tmp_path / "run").found if found.subject == "config.json"} == {"sound"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_folder_that_cannot_be_looked_into_is_one_sentence_also_where_a_run_begins(small, monkeypatch, code):
    """As in a current directory that is somebody else's, or on a disk of the network that does not answer."""

    def denied(path, **options):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(os, "lstat", denied)
    for begin in (lambda: new_run_path("cartpole"), lambda: open_run(Path("runs/a"), small(), "auto")):
        with pytest.raises(RunDirectoryError, match=rf"runs/.* cannot be looked into: {os.strerror(code)}"):
            begin()


def test_a_run_whose_directory_was_moved_saves_nothing_in_the_run_that_lies_there_now(opened, tmp_path):
    former = opened(save=7)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    opened(save=2)
    with pytest.raises(CheckpointError, match=r"checkpoint 000000000008 could not be saved: another run directory"):
        former.store.save(Snapshot(8, {"x": np.zeros(1)}, {}), former.generation)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["000000000002"]
