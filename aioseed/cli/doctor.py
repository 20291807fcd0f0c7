"""``aioseed doctor``: check the installation and a run directory, and say what is found."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from aioseed.cli.common import Parser, guarded, print_json
from aioseed.cli.interrupts import ends_at_once
from aioseed.host.doctor import Diagnosis, examine

TROUBLE = 1


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 sound, 1 trouble, 2 no such run directory."""
    with ends_at_once():
        return guarded("doctor", lambda: _doctor(argv))


def parser() -> Parser:
    """Return the parser of the command."""
    words = Parser(prog="aioseed doctor", description="Check the installation and a run directory. Changes nothing.")
    words.add_argument(
        "run_dir", type=Path, nargs="?", metavar="RUN_DIR", help="a run directory; a learner may be at work on it"
    )
    words.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return words


def _doctor(argv: Sequence[str]) -> int:
    words = parser().parse_args(argv)
    diagnosis = examine(words.run_dir)
    if words.json:
        found = [one._asdict() for one in diagnosis.found]
        run_dir = None if words.run_dir is None else str(words.run_dir)
        print_json({"run_dir": run_dir, "sound": diagnosis.sound, "found": found})
    else:
        sys.stdout.write(_told(diagnosis))
    return 0 if diagnosis.sound else TROUBLE


def _told(diagnosis: Diagnosis) -> str:
    lines = []
    for level, subject, text, advice in diagnosis.found:
        lines.append(f"{level:<7}  {subject}: {text}")
        if advice:
            lines.append(f"         -> {advice}")
    verdict = "is sound" if diagnosis.sound else "needs a hand: see the lines that begin with trouble"
    return "\n".join([*lines, f"{diagnosis.run_dir or 'the installation'} {verdict}", ""])
