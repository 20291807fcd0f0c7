"""``aioseed evaluate``: measure the policy of a run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from aioseed.actor.token import read_token
from aioseed.cli.common import Parser, guarded, print_json, run_until_interrupted
from aioseed.errors import UsageError
from aioseed.host.evaluate import Evaluation, evaluate


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return guarded("evaluate", lambda: _evaluate(argv))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(prog="aioseed evaluate", description="Measure the newest sound checkpoint of a run.")
    words.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    words.add_argument("--episodes", type=int, default=100, help="episodes to measure (default: 100)")
    words.add_argument("--greedy", action="store_true", help="take the likeliest action instead of sampling")
    words.add_argument(
        "--listen",
        action="append",
        metavar="URL",
        help="let remote actors in the role evaluate step instead of local ones",
    )
    words.add_argument("--token-file", type=Path)
    words.add_argument("--json", action="store_true", help="print one JSON object")
    return words


def _evaluate(argv: Sequence[str]) -> int:
    words = parser().parse_args(argv)
    if words.episodes < 1:
        raise UsageError("--episodes must be at least 1")
    token = read_token(words.token_file) if words.token_file is not None else None

    async def body(stop: asyncio.Event) -> Evaluation:
        work = asyncio.ensure_future(
            evaluate(
                words.run_dir, episodes=words.episodes, greedy=words.greedy, listen=words.listen or (), token=token
            )
        )
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise KeyboardInterrupt
        return work.result()

    result = run_until_interrupted(body)
    if words.json:
        print_json(dict(result._asdict()))
    else:
        sys.stdout.write(
            f"mean return {result.return_mean:.1f} ± {result.return_std:.1f} over {result.episodes} episodes "
            f"(mean length {result.length_mean_steps:.0f} steps), policy version {result.policy_version}\n"
        )
    return 0
