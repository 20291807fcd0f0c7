"""The local actor processes of ``aioseed train``: started, watched, started again, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from aioseed.actor.run import Role
from aioseed.errors import AioseedError, EnvironmentFailed, RefusedError, UsageError
from aioseed.host.config import RunConfig
from aioseed.host.events import Trouble
from aioseed.transport.token import Secret

log = logging.getLogger("aioseed.actors")

MAX_RESTARTS = 5
"""Times that one actor process is started again; one that dies more often has a reason."""
LONG_S = 3600.0
"""After an actor that lived so long its restarts are counted anew: in a run of weeks something dies now and then."""
AT_ONCE_S = 60.0
"""An actor that dies twice of the same cause, the second time sooner than this, would do so again."""
_STOP_S = 5.0
_LAST_WORDS_S = 2.0
"""Longest wait for the end of a dead actor's output: a process that left its group may hold it open for ever."""
_PREFIX = "aioseed actor: "


class _Ending(NamedTuple):
    said: str
    code: int
    lived_s: float


class LocalActors:
    """Keep the configured number of actor processes running (Thread: the event loop alone).

    Each has a process group of its own, so that a Ctrl-C reaches this process only, and ends when its standard input
    closes, so that none outlives this process however it dies.

    Args:
        trouble: Told about actors that died and were started again.
        role: What their steps are for.
    """

    def __init__(
        self,
        config: RunConfig,
        url: str,
        token: Secret,
        trouble: Callable[[Trouble], None],
        role: Role = "train",
    ) -> None:
        self._config = config
        # Handed over, not read from the run directory: that may be moved, and its file be damaged or another run's.
        self._said = config.model_dump_json(include={"environment", "actor"}).encode() + b"\n"
        self._url = url
        self._token = token
        self._trouble = trouble
        self._role: Role = role
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._ending = threading.Event()
        # Processes are started and read by threads of ours: a loop's own way runs fork handlers of other libraries,
        # which warn (JAX) or chatter (gRPC).
        self._threads = ThreadPoolExecutor(config.actor.processes, "aioseed-actor-watch")

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Return the process ids of the actors that run."""
        return tuple(child.pid for child in self._children.values() if child.poll() is None)

    async def run(self) -> None:
        """Run all actors until each has ended because the run is over. Cancelling ends them.

        Raises:
            AioseedError: An actor cannot run here at all, or died too often; the message is its own.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(self._config.actor.processes):
                    group.create_task(self._keep(index), name=f"aioseed-actor-{index}")
        except* AioseedError as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._end()

    async def _keep(self, index: int) -> None:
        before, deaths = "", 0
        while True:
            ending = await asyncio.get_running_loop().run_in_executor(self._threads, self._watch, index)
            if ending.code == 0:
                return
            if ending.code == UsageError.exit_code:
                raise UsageError(ending.said)
            if ending.code == RefusedError.exit_code:
                raise RefusedError("refused", ending.said)
            in_vain = ending.said == before and ending.lived_s < AT_ONCE_S
            deaths = 1 if ending.lived_s >= LONG_S else deaths + 1
            if in_vain or deaths > MAX_RESTARTS:
                raise EnvironmentFailed(f"actor {index} died {deaths} times; the last time: {ending.said}")
            before = ending.said
            log.warning("actor %d died (%s) and is started again", index, ending.said)
            self._trouble(Trouble(f"actor {index} died ({ending.said}) and is started again"))

    def _watch(self, index: int) -> _Ending:
        """Start an actor, wait for its end, and return what it died of. Thread: its own."""
        self._children[index] = child = self._start(index)
        began_s = time.monotonic()
        if self._ending.is_set():
            child.kill()
        words = _Words(child)
        _tell(child, self._said)
        code = child.wait()
        end_group(child)
        _close_lifeline(child)
        return _Ending(words.cause(code), code, time.monotonic() - began_s)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        # With faulthandler the log tells where an environment was when it brought its process down.
        words = [sys.executable, "-P", "-X", "faulthandler", "-m", "aioseed.cli.actor"]
        words += [self._url, "--preset", "-"]
        words += ["--actor-index", str(index), "--actor-id", f"local-{index}", "--role", self._role, "--lifeline-stdin"]
        try:
            return subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "AIOSEED_TOKEN": self._token.reveal()},
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise EnvironmentFailed(f"actor process {index} could not be started: {error.strerror}") from error

    async def _end(self) -> None:
        """End all processes: first by their lifeline, then by force; waits for each."""
        self._ending.set()
        await asyncio.to_thread(self._end_all)

    def _end_all(self) -> None:
        children = list(self._children.values())
        for child in children:
            _close_lifeline(child)
        until_s = time.monotonic() + _STOP_S
        for child in children:
            try:
                child.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
        self._threads.shutdown(wait=True)


class _Words:
    """Pass what an actor says to the log, and keep the last of it. Thread: one of its own reads."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._last = ""
        self._thread = threading.Thread(target=self._read, name="aioseed-actor-words", daemon=True)
        self._thread.start()

    def cause(self, code: int) -> str:
        """Return what the actor died of, in its own words where it said any. Waits a while until all were read."""
        self._thread.join(_LAST_WORDS_S)
        if code < 0:
            return f"killed by {_signal_name(-code)}"
        return self._last.removeprefix(_PREFIX) or f"it ended with code {code}"

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                log.info("actor %d: %s", self._child.pid, text)
                # What an environment printed may arrive after the sentence in which the actor says what is wrong.
                if text.startswith(_PREFIX) or not self._last.startswith(_PREFIX):
                    self._last = text


def _tell(child: subprocess.Popen[bytes], said: bytes) -> None:
    """Write to an actor's standard input. Blocks while it reads nothing and a pipe is full."""
    assert isinstance(child.stdin, io.BufferedWriter)
    with contextlib.suppress(OSError, ValueError):  # it has died, or its lifeline was closed meanwhile
        while said:  # past the buffer, whose lock would hold up who closes the lifeline
            said = said[child.stdin.raw.write(said) or 0 :]


def _signal_name(number: int) -> str:
    try:
        return f"signal {number}, {signal.Signals(number).name}"
    except ValueError:
        return f"signal {number}"


def _close_lifeline(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    with contextlib.suppress(OSError):  # nobody reads what was never written
        child.stdin.close()


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End a child that leads a process group and what its environments left running (a game, say). Idempotent."""
    if os.name != "posix":
        child.kill()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
