"""``aioseed chaos``: break things while a run of one's own preset goes on, and check that nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from aioseed.cli.common import (
    Parser,
    add_overrides,
    command_line,
    given_flags,
    guarded,
    print_json,
    run_until_interrupted,
    split_overrides,
)
from aioseed.cli.interrupts import ends_at_once
from aioseed.errors import RunDirectoryError, UsageError
from aioseed.host.config import load_config
from aioseed.host.rundir import new_run_path

VIOLATED = 1


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 without a violation, 1 with any."""
    with ends_at_once():
        return guarded("chaos", lambda: _chaos(argv))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(
        prog="aioseed chaos", description="Break things while a run goes on, and check that nothing is lost."
    )
    words.add_argument("config", metavar="PRESET-or-FILE", nargs="?", default="cartpole")
    add_overrides(words)
    words.add_argument("--minutes", type=float, default=5.0, help="how long (default: 5)")
    words.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    words.add_argument("--dir", type=Path, help="where all is written (default: a new folder under runs/)")
    words.add_argument("--checkpoint-s", type=float, default=5.0, help="seconds between two saves (default: 5)")
    words.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return words


def _chaos(argv: Sequence[str]) -> int:
    words = parser().parse_intermixed_args(argv)
    if os.name != "posix":
        raise UsageError("chaos kills and freezes processes by POSIX signals: it needs Linux or macOS")
    # Without a preset the first override stands in its place.
    preset, overrides = words.config, list(words.overrides)
    if "=" in preset and not Path(preset).exists():
        preset, overrides = "cartpole", [preset, *overrides]
    if words.minutes <= 0 or words.checkpoint_s <= 0:
        raise UsageError("--minutes and --checkpoint-s must be positive")
    config = load_config(preset, split_overrides(overrides))
    from aioseed.chaos.cast import trial_config
    from aioseed.chaos.faults import possible_kinds, schedule
    from aioseed.chaos.trial import Outcome, Trial

    config = trial_config(config, words.checkpoint_s)
    folder = words.dir or new_run_path(f"chaos-{Path(preset).stem}")
    _make(folder)
    faults = schedule(words.seed, config.actor.processes, possible_kinds())

    async def run(stop: asyncio.Event) -> Outcome:
        return await Trial(folder, config, faults, _say).run(stop, words.minutes)

    outcome = run_until_interrupted(run, _say)
    figures: dict[str, object] = {
        "preset": preset,
        "seed": words.seed,
        "faults_injected": sum(outcome.faults.values()),
        "invariants_checked": outcome.checked,
        "violations": len(outcome.violations),
        "ledger_imbalance": outcome.imbalance,
        "faults": outcome.faults,
        "violated": outcome.violations,
        "env_steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "longest_loss_s": round(outcome.longest_loss_s, 2),
        "longest_end_s": round(outcome.longest_end_s, 2),
        "longest_return_s": round(outcome.longest_return_s, 2),
        "dir": str(folder),
    }
    (folder / "chaos.json").write_text(json.dumps(figures, indent=1) + "\n")
    if words.json:
        print_json(figures)
    else:
        sys.stdout.write(_told(outcome.faults, figures, again(words, preset, overrides)))
    return VIOLATED if outcome.violations else 0


def again(words: Namespace, preset: str, overrides: Sequence[str]) -> str:
    """Return the command that does the same once more, in a folder of its own."""
    flags = {"--minutes": words.minutes, "--seed": words.seed, "--checkpoint-s": words.checkpoint_s}
    return command_line("chaos", preset, *given_flags(flags), *overrides)


def _told(faults: dict[str, int], figures: dict[str, object], again: str) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in faults.items())
    return (
        f"\n{figures['faults_injected']} faults ({kinds})\n"
        f"{figures['invariants_checked']} checks, {figures['violations']} violations, "
        f"ledger imbalance {figures['ledger_imbalance']:g}\n"
        f"everything that was written lies in {figures['dir']}\nagain:  {again}\n"
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise RunDirectoryError(f"{folder} cannot be made: {error.strerror}", path=str(folder)) from error


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
