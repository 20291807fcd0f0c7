"""Who takes part in a trial: one learner, its actors, and the proxy between them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import NamedTuple

from aioseed.chaos.processes import Process
from aioseed.host.config import RunConfig
from aioseed.telemetry.ledger import Ledger
from aioseed.testing.proxy import Proxy
from aioseed.training.rundir import CHECKPOINTS, GENERATION, read_generation
from aioseed.training.store import CheckpointStore

SCHEMES = {"grpc": "grpc"}
MANY_STEPS = 10**15
START_S = 180.0
"""Longest time until a learner listens; a cold compiler on a busy machine is slow."""


class Standing(NamedTuple):
    """Hold from where a run would go on now."""

    version: int  # of the newest sound checkpoint, -1 without one
    generation: int
    counters: dict[str, float]  # of its ledger, as metrics.jsonl names them


def standing(run_dir: Path) -> Standing:
    """Return what the newest sound checkpoint in `run_dir` says. Blocks: not for the event loop.

    Raises:
        CheckpointError: There are checkpoints, but none is sound.
    """
    generation = read_generation(run_dir / GENERATION)
    checkpoint = CheckpointStore(run_dir / CHECKPOINTS).newest()
    if checkpoint is None:
        return Standing(-1, generation, {})
    form = checkpoint.state.get("ledger")
    ledger = Ledger.from_json(form if isinstance(form, dict) else {}, path=str(checkpoint.path)).snapshot()
    version = checkpoint.manifest.step
    counters = {
        "ledger/accepted": float(ledger.accepted),
        "ledger/consumed": float(ledger.consumed),
        "ledger/evaluated": float(ledger.evaluated),
        "run/policy_version": float(version),
        **{f"ledger/dropped_{reason}": float(count) for reason, count in ledger.dropped.items()},
    }
    return Standing(version, generation, counters)


def trial_config(config: RunConfig, checkpoint_s: float) -> RunConfig:
    """Return `config` so that a run of it goes on until it is stopped, and says often enough how it stands."""
    total = None if config.training.total_steps is None else MANY_STEPS
    checkpoint = config.training.checkpoint.model_copy(update={"every_s": checkpoint_s})
    return config.model_copy(
        update={
            "mode": "free",
            "training": config.training.model_copy(update={"total_steps": total, "checkpoint": checkpoint}),
            "stop": config.stop.model_copy(update={"return_mean": None}),
            "telemetry": config.telemetry.model_copy(update={"every_s": 0.5, "tensorboard": False}),
            "actor": config.actor.model_copy(update={"processes": max(2, config.actor.processes)}),
        }
    )


class Cast:
    """Start and restart the processes of a trial (Thread: the event loop alone).

    Everything lies in one folder: ``config.json``, ``token``, ``learner.out``, ``actors.out`` and the run in ``run/``.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        """Write configuration and token into `folder`, which exists. Blocks: not for the event loop."""
        self.run_dir = folder / "run"
        self._folder = folder
        self._config = config
        self._scheme = SCHEMES.get(config.transport.name, "ws")
        self.learner_port = _free_port()
        (folder / "config.json").write_text(config.model_dump_json(indent=1))
        token = os.open(folder / "token", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(token, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        self._actors: list[Process] = []
        self._learner: Process | None = None

    @property
    def environments(self) -> int:
        """Return how many environments all actors have together."""
        return self._config.local_environments

    @property
    def learner(self) -> Process:
        """Return the learner that was started last."""
        assert self._learner is not None, "start the learner first"
        return self._learner

    @property
    def actors(self) -> tuple[Process, ...]:
        """Return the actors, each in its place."""
        return tuple(self._actors)

    async def start_learner(self) -> float | None:
        """Start the learner, or start it again as a supervisor does; return when it listens, None if it never does."""
        url = f"{self._scheme}://127.0.0.1:{self.learner_port}"
        words: list[str | Path] = [
            "aioseed",
            "learner",
            self._folder / "config.json",
            "--listen",
            url,
            "--resume",
            "auto",
        ]
        words += ["--run-dir", self.run_dir, "--token-file", self._folder / "token", "--json"]
        learner = self._learner = await asyncio.to_thread(self._start, words, "learner.out")
        loop = asyncio.get_running_loop()
        until_s = loop.time() + START_S
        while loop.time() < until_s and learner.alive:
            if any(line.startswith("join with:") for line in learner.lines):
                return loop.time()
            await asyncio.sleep(0.02)
        return None

    async def start_actors(self, proxy: Proxy) -> None:
        """Start all actors; they reach the learner through `proxy`."""
        self._proxy_port = proxy.port
        for index in range(self._config.actor.processes):
            self._actors.append(await asyncio.to_thread(self._start_actor, index))

    async def replace_actor(self, index: int) -> None:
        """Kill an actor by SIGKILL and start another in its place."""
        self._actors[index].signal(signal.SIGKILL)
        await asyncio.to_thread(self._actors[index].ends, 10.0)
        self._actors[index] = await asyncio.to_thread(self._start_actor, index)

    async def end(self) -> None:
        """End every process that still runs."""
        processes = [*self._actors, *([self._learner] if self._learner is not None else [])]
        await asyncio.gather(*(asyncio.to_thread(process.end) for process in processes))

    def _start_actor(self, index: int) -> Process:
        url = f"{self._scheme}://127.0.0.1:{self._proxy_port}"
        words: list[str | Path] = [
            "aioseed.cli.actor",
            url,
            "--preset",
            self._folder / "config.json",
            "--actor-id",
            f"chaos-{index}",
        ]
        words += ["--token-file", self._folder / "token", "--wait-s", "600", "--reconnect-s", "600"]
        return self._start(words, "actors.out")

    def _start(self, words: list[str | Path], log: str) -> Process:
        return Process([str(word) for word in words], self._folder / log)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
