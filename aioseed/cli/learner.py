"""``aioseed learner``: serve and train for actors that connect from anywhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from aioseed.actor.token import is_loopback, read_token
from aioseed.cli.common import (
    Parser,
    add_overrides,
    guarded,
    log_to,
    print_json,
    run_until_interrupted,
    split_overrides,
)
from aioseed.cli.train import as_json, farewell, where
from aioseed.cli.view import RunView
from aioseed.host.config import RunConfig, load_config
from aioseed.host.events import Finished, Listening
from aioseed.host.learner import Learner
from aioseed.host.rundir import Resume


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return guarded("learner", lambda: _learner(argv))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(prog="aioseed learner", description="Serve and train for actors that connect from anywhere.")
    words.add_argument("config", metavar="PRESET-or-FILE")
    add_overrides(words)
    words.add_argument(
        "--listen",
        action="append",
        metavar="URL",
        help="address for actors, e.g. ws://127.0.0.1:8700 or grpc://127.0.0.1:8701; may be given more than once",
    )
    words.add_argument("--token-file", type=Path, help="secret that actors must show; needed off loopback")
    words.add_argument("--run-dir", type=Path)
    words.add_argument("--seed", type=int)
    words.add_argument("--steps", type=int, help="end after this many trained environment steps")
    words.add_argument("--resume", metavar="RUN_DIR|auto")
    words.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return words


def _learner(argv: Sequence[str]) -> int:
    words = parser().parse_intermixed_args(argv)
    overrides = split_overrides(words.overrides)
    for path, value in (("seed", words.seed), ("training.total_steps", words.steps)):
        if value is not None:
            overrides.append(f"{path}={value}")
    config = load_config(words.config, overrides)
    run_dir, resume = where(words.run_dir, words.resume, Path(words.config).stem)
    token = read_token(words.token_file) if words.token_file is not None else None
    listen = words.listen or ["ws://127.0.0.1:8700"]
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_to(run_dir / "learner.log")
    with RunView(config, quiet=words.json) as view:

        async def serve(stop: asyncio.Event) -> Finished:
            return await _serve(config, listen, run_dir, resume, token, words.config, words.token_file, view, stop)

        finished = run_until_interrupted(serve)
    if words.json:
        print_json(as_json(finished, finished.wall_s))
    else:
        sys.stdout.write(farewell(finished, config, words.config, finished.wall_s))
    return 0


async def _serve(
    config: RunConfig,
    listen: Sequence[str],
    run_dir: Path,
    resume: Resume,
    token: str | None,
    preset: str,
    token_file: Path | None,
    view: RunView,
    stop: asyncio.Event,
) -> Finished:
    async with Learner(config, listen=listen, run_dir=run_dir, resume=resume, token=token) as learner:
        stopping = asyncio.ensure_future(_stop_when(stop, learner))
        try:
            async for event in learner.events():
                view.show(event)
                if isinstance(event, Listening):
                    for url in event.urls:
                        view.say(f"join with:  {actor_command(url, preset, config, token_file)}")
        finally:
            stopping.cancel()
        return await learner.wait()


def actor_command(url: str, preset: str, config: RunConfig, token_file: Path | None) -> str:
    """Return the exact command that joins an actor to the learner at `url`."""
    token = "" if token_file is None and is_loopback(url) else f" --token-file {token_file}"
    return f"aioseed actor {url} --preset {preset} --envs {config.actor.groups * config.actor.envs_per_group}{token}"


async def _stop_when(stop: asyncio.Event, learner: Learner) -> None:
    await stop.wait()
    learner.stop()
