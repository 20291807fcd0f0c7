from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from aioseed.cli import common
from aioseed.errors import ConfigError, EnvironmentFailed, UsageError
from aioseed.training.rundir import RunDirectory


@pytest.mark.parametrize(("error", "code"), [(ConfigError("no"), 2), (EnvironmentFailed("no"), 5)])
def test_an_error_of_ours_is_one_sentence_and_an_exit_code(capsys, error, code):
    def fail() -> int:
        raise error

    assert common.guarded("train", fail) == code
    assert capsys.readouterr().err == "aioseed train: no\n"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere nobody removes a current directory")
def test_a_current_directory_that_was_removed_is_said_where_something_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    gone = tmp_path / "gone"
    gone.mkdir()

    def named() -> int:
        with RunDirectory.open(Path("runs/a")):
            return 0

    def another() -> int:
        raise ConfigError("no")

    assert common.guarded("train", named) == 0  # the directory is there
    os.chdir(gone)
    gone.rmdir()
    assert [common.guarded("train", each) for each in (named, lambda: len(os.getcwd()), another)] == [2, 2, 2]
    nowhere = "the current directory itself was removed: go to one that is there"
    missing = "the run directory runs/a cannot be used: No such file or directory (runs)"
    assert capsys.readouterr().err.splitlines() == [
        f"aioseed train: {missing}; {nowhere}",
        f"aioseed train: {nowhere}",
        "aioseed train: no",
    ]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        common.guarded("train", lambda: len(os.listdir("nothing")))


def test_an_interrupt_is_130_and_other_errors_are_left_alone():
    def interrupted() -> int:
        raise KeyboardInterrupt

    def broken() -> int:
        raise ZeroDivisionError

    assert common.guarded("train", interrupted) == 130
    with pytest.raises(ZeroDivisionError):
        common.guarded("train", broken)


class NoThreads(asyncio.SelectorEventLoop):
    """A loop on a system that starts no thread any more."""

    async def shutdown_default_executor(self, *_: object) -> None:
        raise RuntimeError("can't start new thread")


def test_a_limit_on_threads_is_one_sentence_and_hides_none_that_came_first(capsys):
    async def fails():
        raise EnvironmentFailed("no process could be started")

    async def ends():
        return 0

    def run(body):
        with asyncio.Runner(loop_factory=NoThreads) as runner:
            return runner.run(body())

    assert common.guarded("train", lambda: run(fails)) == EnvironmentFailed.exit_code
    assert capsys.readouterr().err == "aioseed train: no process could be started\n"
    assert common.guarded("train", lambda: run(ends)) == 1
    assert capsys.readouterr().err.startswith("aioseed train: no thread can be started: this user, container or job ")


def test_words_that_are_missing_are_named_without_the_optional_overrides():
    parser = common.Parser(prog="aioseed x")
    parser.add_argument("config", metavar="PRESET")
    common.add_overrides(parser)
    with pytest.raises(UsageError) as caught:
        parser.parse_intermixed_args([])
    assert str(caught.value) == "the following arguments are required: PRESET (see aioseed x --help)"


def test_an_override_has_an_equals_sign():
    assert common.split_overrides(["a.b=1", "c="]) == ["a.b=1", "c="]
    with pytest.raises(UsageError, match=r'"a\.b" is not of the form'):
        common.split_overrides(["a.b"])


def test_json_has_no_nan(capsys):
    common.print_json({"a": float("nan"), "b": float("inf"), "c": 1, "d": None})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": None, "c": 1, "d": None}


def test_a_run_is_told_to_stop_once_and_returns_what_it_made(monkeypatch):
    said: list[str] = []

    async def body(stop: asyncio.Event) -> str:
        import signal

        signal.raise_signal(signal.SIGINT)
        await stop.wait()
        return "saved"

    assert common.run_until_interrupted(body, said.append) == "saved"
    assert said == ["aioseed: ending in order; press Ctrl-C again to end at once"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is no signal there")
@pytest.mark.parametrize(
    ("second", "same_s", "ended"), [("SIGTERM", 60.0, []), ("SIGTERM", 0.0, [130]), ("SIGINT", 60.0, [130])]
)
def test_a_sigterm_that_comes_twice_at_once_is_one_and_else_a_second_signal_ends_it(monkeypatch, second, same_s, ended):
    exits: list[int] = []
    monkeypatch.setattr(common.os, "_exit", exits.append)
    monkeypatch.setattr(common, "SAME_S", same_s)

    async def body(stop: asyncio.Event) -> str:
        import signal

        signal.raise_signal(signal.SIGTERM)
        await stop.wait()
        heard = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
        signal.raise_signal(signal.Signals[second])
        signal.raise_signal(signal.SIGUSR1)  # once this one was handled, so was the one before
        await heard.wait()
        return "saved"

    assert common.run_until_interrupted(body, lambda words: None) == "saved"
    assert exits == ended


@pytest.fixture
def shown():
    return []


@pytest.fixture
def log(shown):
    with common.RunLog(shown.append) as opened:
        yield opened


def test_the_log_waits_for_the_run_directory_and_has_everything(shown, tmp_path):
    with common.RunLog(shown.append) as log:
        logging.getLogger("aioseed.learner").info("before")
        log.write_to(tmp_path / "learner.log")
        logging.getLogger("aioseed.actors").warning("after")
    lines = (tmp_path / "learner.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO aioseed.learner: before",
        "WARNING aioseed.actors: after",
    ]


def test_a_run_that_never_begins_writes_and_shows_nothing(shown, capsys, tmp_path):
    with common.RunLog(shown.append):
        logging.getLogger("aioseed.training.store").warning("checkpoint 3 is skipped")
    assert not shown and not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_warnings_of_serving_and_training_are_shown_once_the_run_has_begun(log, shown):
    logging.getLogger("aioseed.training.store").warning("checkpoint %d is skipped", 3)
    logging.getLogger("aioseed.actors").warning("told as an event")
    logging.getLogger("aioseed.serving").info("an actor joined")
    assert shown == []
    log.begin()
    logging.getLogger("aioseed.serving").warning("an actor is silent")
    assert shown == ["checkpoint 3 is skipped", "an actor is silent"]


def test_a_flood_of_one_kind_is_cut(log, shown):
    log.begin()
    for number in range(100):
        logging.getLogger("aioseed.serving").warning("refused actor %d", number)
    logging.getLogger("aioseed.serving").warning("something else")
    assert shown == [*(f"refused actor {number}" for number in range(5)), "something else"]


def test_whoever_logs_does_not_fail_where_nobody_reads_the_warnings_any_more(tmp_path):
    def unread(line: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    path = tmp_path / "learner.log"
    with common.RunLog(unread) as log:
        logging.getLogger("aioseed.serving").warning("held back")
        log.begin()
        logging.getLogger("aioseed.serving").warning("shown at once")
        log.write_to(path)
    assert [line.partition(": ")[2] for line in path.read_text().splitlines()] == ["held back", "shown at once"]
    with common.RunLog(unread) as log:
        log.write_to(tmp_path)  # which is no file, as is to be told


def test_a_clock_that_is_set_back_keeps_no_warning_from_the_screen(log, shown, monkeypatch):
    log.begin()
    for number in range(6):
        logging.getLogger("aioseed.serving").warning("refused actor %d", number)
    back_s = time.time() - 3600.0
    monkeypatch.setattr("time.time", lambda: back_s)
    monkeypatch.setattr("time.time_ns", lambda: int(back_s * 1e9))  # what Python 3.13 and later ask
    logging.getLogger("aioseed.serving").warning("refused actor %d", 6)
    assert shown[4:] == ["refused actor 4", "refused actor 6"]


def test_the_logger_is_left_as_it_was_found():
    logger = logging.getLogger("aioseed")
    before = list(logger.handlers)
    with common.RunLog(io.StringIO().write):
        assert logger.handlers != before and not logger.propagate
    assert logger.handlers == before and logger.propagate


@pytest.mark.parametrize("on_the_path", [True, False])
def test_a_command_to_copy_begins_with_what_works_here(monkeypatch, tmp_path, on_the_path):
    script = tmp_path / "my tools" / "aioseed"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "train"])
    monkeypatch.setenv("PATH", str(script.parent) if on_the_path else "/nowhere")
    words = shlex.split(common.command_line("train", Path("my runs/a.yaml"), "--steps", 3))
    assert words == ["aioseed" if on_the_path else str(script), "train", "my runs/a.yaml", "--steps", "3"]


def test_a_command_to_copy_names_the_interpreter_where_there_is_no_script(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert shlex.split(common.command_line("presets")) == [sys.executable, "-m", "aioseed", "presets"]


def test_an_address_to_dial_has_a_name_where_all_addresses_are_listened_on():
    assert common.reachable("ws://127.0.0.1:8700") == "ws://127.0.0.1:8700"
    for url in ("grpc://0.0.0.0:8701", "grpc://[::]:8701"):
        assert "0.0.0.0" not in common.reachable(url) and common.reachable(url).endswith(":8701")
