"""Commands as a user runs them: real processes, real sockets, the smallest run that shows the point."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

SMALL = (
    "actor.processes=2",
    "actor.groups=2",
    "actor.envs_per_group=4",
    "actor.reconnect_s=5",
    "serving.max_environments=64",
    "serving.max_batch_rows=32",
    "serving.buckets=[32]",
    "experience.unroll_steps=8",
    "training.batch_unrolls=8",
    "network={name: mlp, hidden: [16]}",
    "stop.return_mean=null",
    "telemetry.tensorboard=false",
    "telemetry.every_s=0.2",
)
"""A run that compiles fast and ends only when it is told to."""

LONGEST_S = 60.0


class Command:
    """One ``aioseed`` process, in a session of its own, whose lines can be waited for."""

    def __init__(self, words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.words = list(words)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aioseed", *words],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                self._lines.put(lines[-1])
        self._lines.put(None)

    def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line that matches, on either output; what came before is passed over."""
        ended = 0
        while ended < 2:
            line = self._lines.get(timeout=LONGEST_S)
            if line is None:
                ended += 1
            elif match := re.search(pattern, line):
                return match
        raise AssertionError(f"{' '.join(self.words)} ended without saying {pattern!r}:\n{self.text}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(LONGEST_S)
        for reader in self._readers:
            reader.join(LONGEST_S)
        assert "Traceback" not in self.text, self.text
        return code

    def succeeds(self) -> dict[str, Any]:
        """Wait for a good end and return the JSON object in the last line."""
        assert self.ends() == 0, self.text
        result: dict[str, Any] = json.loads(self.out[-1])
        return result

    def fails(self, code: int) -> str:
        """Wait for a failure with `code` and return the one sentence on standard error."""
        assert self.ends() == code, self.text
        # An actor without a learner says first that it waits for one.
        sentence, *others = [line for line in self.err if not line.startswith("aioseed actor: waiting")]
        assert not others, self.text
        return sentence

    @property
    def text(self) -> str:
        return "\n".join([*self.out, *self.err])


Start = Callable[..., Command]


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Give the commands a runtime directory of their own, one cache for all of them, and XLA as users have it."""
    folder = tmp_path_factory.mktemp("user")
    own = {"XDG_RUNTIME_DIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return {**own, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}


@pytest.fixture(scope="session")
def start_in(caches: dict[str, str]) -> Iterator[Start]:
    """Start a command in a folder; whatever still runs is killed at the end of all tests."""
    with _starter(caches) as run:
        yield run


@pytest.fixture
def start(tmp_path: Path, caches: dict[str, str]) -> Iterator[Start]:
    """Start a command in an empty folder; whatever still runs is killed at the end of the test."""
    with _starter(caches) as run:
        yield partial(run, tmp_path)


@contextlib.contextmanager
def _starter(environment: dict[str, str]) -> Iterator[Start]:
    commands: list[Command] = []

    def run(folder: Path, *words: object) -> Command:
        commands.append(Command([str(word) for word in words], folder, environment))
        return commands[-1]

    yield run
    for command in commands:
        command.process.kill()
        command.process.wait()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, start_in: Start) -> tuple[Path, dict[str, Any]]:
    """A finished run in lockstep mode over WebSockets, and what ``--json`` said about it."""
    folder = tmp_path_factory.mktemp("trained")
    words = ("train", "cartpole", "--json", "--steps", 1500, "--run-dir", "run", *SMALL)
    result = start_in(folder, *words, "mode=lockstep", "training.checkpoint.every_updates=10").succeeds()
    return folder / "run", result


@pytest.fixture
def copied(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the finished run, to be resumed or damaged."""
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


@pytest.fixture
def small() -> tuple[str, ...]:
    return SMALL


@pytest.fixture
def actors_of() -> Callable[[Command], list[int]]:
    """Return the process ids of the actors that a command has started."""

    def find(command: Command) -> list[int]:
        listed = subprocess.run(
            ["ps", "-axww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
        ).stdout
        processes = [line.split(maxsplit=2) for line in listed.splitlines()]
        mine = str(command.process.pid)
        return [int(pid) for pid, parent, *words in processes if parent == mine and "cli.actor" in "".join(words)]

    return find


@pytest.fixture
def wait_until_gone() -> Callable[[int], None]:
    """Wait for the end of a process that is not ours to wait for."""

    def wait(pid: int) -> None:
        if hasattr(os, "pidfd_open"):
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            try:
                ready = select.select([descriptor], [], [], LONGEST_S)[0]
            finally:
                os.close(descriptor)
            assert ready, f"process {pid} is still there"
        else:
            watch = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            with contextlib.suppress(ProcessLookupError):
                assert select.kqueue().control([watch], 1, LONGEST_S), f"process {pid} is still there"

    return wait
