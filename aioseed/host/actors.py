"""The local actor processes of ``aioseed train``: started, watched, started again, and never left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aioseed.errors import AioseedError, EnvironmentFailed, RefusedError, UsageError
from aioseed.host.config import RunConfig
from aioseed.host.events import Trouble

log = logging.getLogger("aioseed.actors")

MAX_RESTARTS = 5
"""Times that one actor process is started again in a run; one that dies more often has a reason."""
_STOP_S = 5.0
_LINES_KEPT = 20


class LocalActors:
    """Keep the configured number of actor processes running (Thread: the event loop alone).

    Each has a process group of its own, so that a Ctrl-C reaches this process only, and ends when its standard input
    closes, so that none outlives this process however it dies.

    Args:
        config_file: Resolved configuration, of which an actor reads the sections ``environment`` and ``actor``.
        trouble: Told about actors that died and were started again.
    """

    def __init__(
        self, config: RunConfig, config_file: Path, url: str, token: str, trouble: Callable[[Trouble], None]
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._url = url
        self._token = token
        self._trouble = trouble
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
        for attempt in range(MAX_RESTARTS + 1):
            words, code = await asyncio.get_running_loop().run_in_executor(self._threads, self._watch, index)
            if code == 0:
                return
            said = words[-1].removeprefix("aioseed actor: ") if words else f"it ended with code {code}"
            if code in (2, 3):
                raise (UsageError if code == 2 else RefusedError)(*((said,) if code == 2 else ("refused", said)))
            if attempt < MAX_RESTARTS:
                log.warning("actor %d died (%s) and is started again", index, said)
                self._trouble(Trouble(f"actor {index} died ({said}) and is started again"))
        raise EnvironmentFailed(f"actor {index} died {MAX_RESTARTS + 1} times; the last time: {said}")

    def _watch(self, index: int) -> tuple[deque[str], int]:
        """Start an actor, pass its words to the log, and return the last of them and its exit code. Thread: its own."""
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "aioseed.cli.actor",
                self._url,
                "--preset",
                str(self._config_file),
                "--actor-index",
                str(index),
                "--actor-id",
                f"local-{index}",
                "--lifeline-stdin",
            ],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "AIOSEED_TOKEN": self._token},
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._children[index] = child
        if self._ending.is_set():
            child.kill()
        words: deque[str] = deque(maxlen=_LINES_KEPT)
        assert child.stderr is not None
        for line in child.stderr:
            text = line.decode(errors="replace").rstrip()
            words.append(text)
            log.info("actor %d: %s", child.pid, text)
        child.stderr.close()
        return words, child.wait()

    async def _end(self) -> None:
        """End all processes: first by their lifeline, then by force; waits for each."""
        self._ending.set()
        await asyncio.to_thread(self._end_all)

    def _end_all(self) -> None:
        running = [child for child in self._children.values() if child.poll() is None]
        for child in running:
            if child.stdin is not None:
                child.stdin.close()
        until_s = time.monotonic() + _STOP_S
        for child in running:
            try:
                child.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
        self._threads.shutdown(wait=True)
        for child in self._children.values():
            if child.stdin is not None:
                child.stdin.close()
