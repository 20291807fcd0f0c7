"""``aioseed evaluate``: measure the policy of a run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aioseed.actor.token import token_of_environment
from aioseed.cli.common import (
    Parser,
    RunLog,
    add_overrides,
    command_line,
    guarded,
    joining_overrides,
    print_json,
    reachable,
    run_until_interrupted,
    split_overrides,
)
from aioseed.cli.interrupts import INTERRUPTED, ends_at_once
from aioseed.cli.listening import SECURE_SCHEMES, add_listen_arguments, joining_words, transport_overrides
from aioseed.errors import UsageError
from aioseed.transport.allocator import keep_large_blocks
from aioseed.transport.descriptors import raise_limit

if TYPE_CHECKING:
    from aioseed.host.evaluate import Evaluation, EvaluationProgress
    from aioseed.host.events import Trouble
    from aioseed.host.listen import Listeners


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    with ends_at_once():
        return guarded("evaluate", lambda: _evaluate(argv))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(prog="aioseed evaluate", description="Measure a run: its newest sound checkpoint, or another one.")
    words.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="of a run, or RUN_DIR/checkpoints/... for that checkpoint"
    )
    words.add_argument("--episodes", type=int, default=100, help="episodes to measure (default: 100)")
    words.add_argument("--greedy", action="store_true", help="take the likeliest action instead of sampling")
    add_overrides(words)
    add_listen_arguments(
        words, "let remote actors in the role evaluate step instead of local ones; may be given more than once"
    )
    words.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return words


def _evaluate(argv: Sequence[str]) -> int:
    words = parser().parse_intermixed_args(argv)
    if words.episodes < 1:
        raise UsageError("--episodes must be at least 1")
    overrides = [*split_overrides(words.overrides), *transport_overrides(words)]
    token = token_of_environment() if words.token_file is None else None
    keep_large_blocks()
    raise_limit()
    # After everything that a user may have mistyped: JAX takes a second to import.
    from aioseed.host.evaluate import evaluate
    from aioseed.host.saved import run_directory_of

    def begun(listeners: Listeners) -> None:
        log.begin()
        config = run_directory_of(words.run_dir) / "config.json"
        for line in _invitation(config, listeners, words.overrides) if words.listen else ():
            _say(line)

    def trouble(event: Trouble) -> None:
        _say(f"aioseed evaluate: {event.message}")

    async def body(stop: asyncio.Event) -> Evaluation | None:
        measuring = evaluate(
            words.run_dir,
            episodes=words.episodes,
            greedy=words.greedy,
            listen=words.listen or (),
            token=token,
            token_file=words.token_file,
            overrides=overrides,
            on_listening=begun,
            on_trouble=trouble,
            on_progress=lambda now: _say(f"aioseed evaluate: {_how_far(now)}"),
        )
        return await _unless(stop, asyncio.ensure_future(measuring))

    with RunLog(_say) as log:
        result = run_until_interrupted(body, _say)
    if result is None:
        return INTERRUPTED
    if words.json:
        print_json(dict(result._asdict()))
        return 0
    sys.stdout.write(
        f"mean return {result.return_mean:.1f} ± {result.return_std:.1f} over {result.episodes} episodes "
        f"(mean length {result.length_mean_steps:.0f} steps), policy version {result.policy_version}\n"
    )
    return 0


def _invitation(config: Path, listeners: Listeners, overrides: Sequence[str]) -> list[str]:
    """Return the commands that join actors; a checkpoint that was copied has no configuration of its run beside it."""
    preset, lines = config if config.is_file() else "PRESET", []
    for url in listeners.urls:
        secure = url.partition(":")[0] in SECURE_SCHEMES
        joining = joining_words(listeners.token_file, listeners.fingerprint if secure else None)
        command = command_line(
            "actor", reachable(url), "--preset", preset, *joining, "--role", "evaluate", *joining_overrides(overrides)
        )
        lines.append(f"join with:  {command}")
    if preset != config:
        lines.append("PRESET is that of the run, or a file with what state.json of the checkpoint has as config")
    return lines


def _how_far(now: EvaluationProgress) -> str:
    ended = f"{now.ended} of {now.episodes} episodes have ended"
    return f"{ended}; the longest that goes on has {now.longest_steps:,} steps" if now.longest_steps else ended


async def _unless(stop: asyncio.Event, work: asyncio.Task[Evaluation]) -> Evaluation | None:
    """Return the result of `work`; None if `stop` is set first, then it is ended in order."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, stopping):
            task.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
