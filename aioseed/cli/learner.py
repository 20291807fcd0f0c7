"""``aioseed learner``: serve and train for actors that connect from anywhere."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aioseed.actor.token import token_of_environment
from aioseed.cli import STARTED_S, collector
from aioseed.cli.common import (
    Parser,
    RunLog,
    command_line,
    guarded,
    joining_overrides,
    print_json,
    reachable,
    run_until_interrupted,
    split_overrides,
)
from aioseed.cli.interrupts import ends_at_once
from aioseed.cli.listening import (
    SECURE_SCHEMES,
    add_listen_arguments,
    joining_words,
    listening_words,
    transport_overrides,
)
from aioseed.cli.report import Spoken, as_json, farewell
from aioseed.cli.train import add_run_arguments, follow, shared_words, where
from aioseed.cli.view import RunView
from aioseed.host.config import RunConfig, load_config
from aioseed.host.events import Finished, Listening
from aioseed.plugins import environment_plugin
from aioseed.transport.allocator import keep_large_blocks
from aioseed.transport.descriptors import raise_limit
from aioseed.types import KnowsSpecs

if TYPE_CHECKING:
    from aioseed.host.learner import Learner


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    with ends_at_once():
        return guarded("learner", lambda: _learner(argv))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(prog="aioseed learner", description="Serve and train for actors that connect from anywhere.")
    add_listen_arguments(
        words, "address for actors, e.g. ws://127.0.0.1:8700 or grpcs://0.0.0.0:8701; may be given more than once"
    )
    add_run_arguments(words)
    return words


class Invitation(NamedTuple):
    """Hold what the command that joins an actor repeats of this one."""

    preset: str
    overrides: Sequence[str]
    config: RunConfig

    def commands(self, url: str, joining: Sequence[object]) -> list[str]:
        """Return the exact commands that join an actor to the learner at `url`.

        `joining` are the words for the token and the certificate.

        One, which may be used any number of times; in lockstep mode one for each place.
        """
        actor = self.config.actor
        sections = joining_overrides(self.overrides)
        words = [reachable(url), "--preset", self.preset, "--envs", actor.groups * actor.envs_per_group, *joining]
        if self.config.mode == "lockstep":
            places = [["--actor-index", index] for index in range(actor.processes)]
            return [command_line("actor", *words, *place, *sections) for place in places]
        return [command_line("actor", *words, *sections)]


def _learner(argv: Sequence[str]) -> int:
    words = parser().parse_intermixed_args(argv)
    overrides = split_overrides(words.overrides)
    for path, value in (("seed", words.seed), ("training.total_steps", words.steps)):
        if value is not None:
            overrides.append(f"{path}={value}")
    config = load_config(words.config, [*overrides, *transport_overrides(words)])
    run_dir, resume = where(words.run_dir, words.resume, Path(words.config).stem)
    token = token_of_environment() if words.token_file is None else None
    listen = words.listen or [f"{'wss' if config.transport.tls.given else 'ws'}://127.0.0.1:8700"]
    invitation = Invitation(words.config, words.overrides, config)
    keep_large_blocks()
    raise_limit()
    with collector.at_rest(), RunView(config, quiet=words.json) as view, RunLog(view.warn) as log:
        # After everything that a user may have mistyped: JAX takes a second to import.
        from aioseed.host.learner import Learner

        learner = Learner(
            config, listen=listen, run_dir=run_dir, resume=resume, token=token, token_file=words.token_file
        )

        async def serve(stop: asyncio.Event) -> Finished:
            return await _serve(learner, invitation, view, log, stop)

        finished = run_until_interrupted(serve, view.warn)
    total_s = time.monotonic() - STARTED_S
    if words.json:
        print_json(as_json(finished, total_s))
    else:
        own = listening_words(words, listen)
        # Whoever knows specs without the engine, as of a game on other machines, need not have it here.
        elsewhere = isinstance(environment_plugin(config.environment.plugin), KnowsSpecs)
        spoken = Spoken("learner", argv, words.config, words.overrides, shared_words(words), own, elsewhere)
        sys.stdout.write(farewell(finished, config, spoken, total_s))
    return 0


async def _serve(learner: Learner, invitation: Invitation, view: RunView, log: RunLog, stop: asyncio.Event) -> Finished:
    async with learner:
        stopping = asyncio.ensure_future(_stop_when(stop, learner))
        try:
            async for event in learner.events():
                follow(event, view, log, learner.run_dir)
                if isinstance(event, Listening):
                    _invite(learner, invitation, event.urls, view)
        finally:
            stopping.cancel()
        return await learner.wait()


def _invite(learner: Learner, invitation: Invitation, urls: Sequence[str], view: RunView) -> None:
    for url in urls:
        secure = url.partition(":")[0] in SECURE_SCHEMES
        joining = joining_words(learner.token_file, learner.fingerprint if secure else None)
        for command in invitation.commands(url, joining):
            view.say(f"join with:  {command}", always=True)
    if learner.made_token:
        view.say(f"the token is in {learner.token_file}: take the file to the other machine", always=True)


async def _stop_when(stop: asyncio.Event, learner: Learner) -> None:
    await stop.wait()
    learner.stop()
