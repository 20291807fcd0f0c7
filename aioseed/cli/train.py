"""``aioseed train``: a learner and its local actors in one command."""

from __future__ import annotations

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aioseed.cli import STARTED_S, collector
from aioseed.cli.common import (
    Parser,
    RunLog,
    add_overrides,
    given_flags,
    guarded,
    print_json,
    run_until_interrupted,
    split_overrides,
)
from aioseed.cli.interrupts import ends_at_once
from aioseed.cli.report import Spoken, as_json, farewell
from aioseed.cli.view import RunView
from aioseed.errors import UsageError
from aioseed.host.config import load_config
from aioseed.host.events import Event, Finished, Listening, Ready
from aioseed.host.rundir import new_run_path
from aioseed.transport.allocator import keep_large_blocks
from aioseed.transport.descriptors import raise_limit

if TYPE_CHECKING:
    from aioseed.host.rundir import Resume


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    with ends_at_once():
        return guarded("train", lambda: _train(argv))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(prog="aioseed train", description="Train with local actor processes until the run is over.")
    words.add_argument("--transport", help="how actors reach the learner: websocket, grpc or memory")
    add_run_arguments(words)
    return words


def add_run_arguments(words: Parser) -> None:
    """Add what `train` and `learner` have in common."""
    words.add_argument(
        "config", metavar="PRESET-or-FILE", help="see `aioseed presets`; YAML, TOML and JSON files work too"
    )
    add_overrides(words)
    words.add_argument("--run-dir", type=Path, help="where the run lives (default: a new folder under runs/)")
    words.add_argument("--seed", type=int, help="of everything random (default: 0)")
    words.add_argument("--steps", type=int, help="end after this many trained environment steps")
    words.add_argument(
        "--resume",
        metavar="RUN_DIR|auto",
        help="go on with a run; auto goes on with --run-dir, or begins one there if it holds none",
    )
    words.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def shared_words(words: Namespace) -> list[object]:
    """Return what of the flags of `add_run_arguments` another run is begun with."""
    return given_flags({"--seed": words.seed})


def _train(argv: Sequence[str]) -> int:
    words = parser().parse_intermixed_args(argv)
    overrides = split_overrides(words.overrides)
    for path, value in (
        ("transport.name", words.transport),
        ("seed", words.seed),
        ("training.total_steps", words.steps),
    ):
        if value is not None:
            overrides.append(f"{path}={value}")
    config = load_config(words.config, overrides)
    run_dir, resume = where(words.run_dir, words.resume, Path(words.config).stem)
    keep_large_blocks()
    raise_limit()
    with collector.at_rest(), RunView(config, quiet=words.json) as view, RunLog(view.warn) as log:

        def show(event: Event) -> None:
            follow(event, view, log, run_dir)

        # After everything that a user may have mistyped: JAX takes a second to import.
        from aioseed.host.train import train

        async def run(stop: asyncio.Event) -> Finished:
            return await train(config, run_dir=run_dir, resume=resume, stop=stop, on_event=show)

        finished = run_until_interrupted(run, view.warn)
    total_s = time.monotonic() - STARTED_S
    if words.json:
        print_json(as_json(finished, total_s))
    else:
        own = given_flags({"--transport": words.transport})
        spoken = Spoken("train", argv, words.config, words.overrides, shared_words(words), own)
        sys.stdout.write(farewell(finished, config, spoken, total_s))
    return 0


def follow(event: Event, view: RunView, log: RunLog, run_dir: Path) -> None:
    """Show one event, and begin the log where the run has begun; from then on, cycles of references are looked for."""
    if isinstance(event, Listening):
        log.begin()
    elif isinstance(event, Ready):
        log.write_to(run_dir / "learner.log")
        collector.wake()
    view.show(event)


def where(run_dir: Path | None, resume: str | None, name: str) -> tuple[Path, Resume]:
    """Return the run directory and how to open it, from the words --run-dir and --resume."""
    if resume is None:
        return run_dir or new_run_path(name), "never"
    if resume == "auto":
        if run_dir is None:
            raise UsageError("--resume auto goes on with the run in --run-dir: name that too")
        return run_dir, "auto"
    if run_dir is not None and run_dir.resolve() != Path(resume).resolve():
        raise UsageError("--resume names a run directory already: leave --run-dir away")
    return Path(resume), "require"
