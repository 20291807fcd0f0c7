"""``aioseed suite``: run the tasks of a suite one after another, and tell what came of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aioseed import plugins
from aioseed.cli import collector
from aioseed.cli.common import (
    Parser,
    RunLog,
    add_overrides,
    command_line,
    guarded,
    print_json,
    run_until_interrupted,
    split_overrides,
)
from aioseed.cli.interrupts import ends_at_once
from aioseed.cli.train import follow
from aioseed.cli.view import RunView
from aioseed.errors import AioseedError, RunDirectoryError
from aioseed.host.events import Event, Finished
from aioseed.host.suite import PlannedTask, SuiteOutcome, SuitePlan, plan_suite, run_suite, save_plan
from aioseed.transport.allocator import keep_large_blocks
from aioseed.transport.descriptors import raise_limit

if TYPE_CHECKING:
    from aioseed.host.suite_report import SuiteReport

KINDS = ("run", "report", "list")
"""What the command does; ``run`` is not said, the name of a suite stands in its place."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    kind = argv[0] if argv and argv[0] in ("report", "list") else "run"
    with ends_at_once():
        if kind == "list":
            return guarded("suite list", lambda: _list(argv[1:]))
        if kind == "report":
            return guarded("suite report", lambda: _report(argv[1:]))
        return guarded("suite", lambda: _run(argv))


def parser(kind: str) -> Parser:
    """Return the parser of one kind of the command, one of `KINDS`."""
    if kind == "list":
        return Parser(prog="aioseed suite list", description="List the suites that are installed.")
    if kind == "report":
        words = Parser(prog="aioseed suite report", description="Write the table and the curves of a suite.")
        words.add_argument("folder", type=Path, metavar="DIR", help="the --dir of a suite, finished or not")
        words.add_argument("--no-curves", action="store_true", help="leave the picture out; it wants matplotlib")
        words.add_argument("--json", action="store_true", help="print report.json instead of the table")
        return words
    words = Parser(
        prog="aioseed suite",
        description="Run the tasks of a suite one after another, and go on where they were left.",
        epilog="aioseed suite list names the suites, aioseed suite report DIR tells what came of one.",
    )
    words.add_argument("suite", metavar="NAME", help="see `aioseed suite list`")
    add_overrides(words)
    words.add_argument("--preset", required=True, metavar="PRESET-or-FILE", help="what every task is trained with")
    words.add_argument("--dir", type=Path, help="where the runs live (default: runs/NAME-PRESET)")
    words.add_argument(
        "--task", action="append", metavar="NAME", help="run this task only; may be given more than once"
    )
    words.add_argument("--seed", type=int, help="of every run (default: 0)")
    words.add_argument("--steps", type=int, help="end each run after this many trained environment steps")
    words.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return words


def _list(argv: Sequence[str]) -> int:
    parser("list").parse_args(argv)
    for name in plugins.names("aioseed.suites"):
        suite = plugins.suite(name)
        sys.stdout.write(f"{name:<12}  {len(suite.tasks)} tasks, by {suite.score_metric}\n")
    return 0


def _run(argv: Sequence[str]) -> int:
    words = parser("run").parse_intermixed_args(argv)
    plan = _planned(words)
    save_plan(plan)
    keep_large_blocks()
    raise_limit()
    # After everything that a user may have mistyped: JAX takes a second to import.
    from aioseed.host.train import train

    async def run_task(planned: PlannedTask, stop: asyncio.Event) -> Finished:
        collector.sweep()
        with RunView(planned.config, quiet=words.json) as view, RunLog(view.warn) as log:

            def show(event: Event) -> None:
                follow(event, view, log, planned.run_dir)

            return await train(planned.config, run_dir=planned.run_dir, resume="auto", stop=stop, on_event=show)

    def begins(planned: PlannedTask, place: int) -> None:
        _say(f"task {place} of {len(plan.tasks)}: {planned.task.name}")

    outcome = run_until_interrupted(lambda stop: run_suite(plan, run_task, stop, begins), _say)
    return _told(plan, outcome, as_json=words.json, again=command_line("suite", *argv))


def _planned(words: argparse.Namespace) -> SuitePlan:
    overrides = split_overrides(words.overrides)
    for path, value in (("seed", words.seed), ("training.total_steps", words.steps)):
        if value is not None:
            overrides.append(f"{path}={value}")
    folder = words.dir or Path("runs") / f"{plugins.suite(words.suite).name}-{Path(words.preset).stem}"
    return plan_suite(words.suite, words.preset, overrides, folder, words.task or ())


def _told(plan: SuitePlan, outcome: SuiteOutcome, *, as_json: bool, again: str) -> int:
    """Say what came of the suite and return the exit code: that of the first task that failed, else 0."""
    left = len(plan.tasks) - len(outcome.finished) - len(outcome.failed)
    if as_json:
        failed = {name: str(error) for name, error in outcome.failed.items()}
        print_json({"dir": str(plan.folder), "finished": list(outcome.finished), "failed": failed, "left": left})
    else:
        said = [f"{len(outcome.finished)} of {len(plan.tasks)} tasks are finished.", "", "Next:"]
        said += [f"  {again}"] if left or outcome.failed else []
        said += [f"  {command_line('suite', 'report', plan.folder)}", ""]
        sys.stdout.write("\n".join(["", *said]))
    for name, error in outcome.failed.items():
        _say(f"aioseed suite: {name} failed: {error}")
    first: AioseedError | None = next(iter(outcome.failed.values()), None)
    return 0 if first is None else first.exit_code


def _report(argv: Sequence[str]) -> int:
    words = parser("report").parse_args(argv)
    from aioseed.host.suite_report import as_json, as_markdown, read_report

    report = read_report(words.folder)
    table, numbers = as_markdown(report), as_json(report)
    _write(words.folder / "report.md", table)
    _write(words.folder / "report.json", json.dumps(numbers, indent=1) + "\n")
    if words.json:
        print_json(numbers)
    else:
        sys.stdout.write(table)
    if not words.no_curves:
        _draw(report, words.folder / "curves.png")
    return 0


def _draw(report: SuiteReport, path: Path) -> None:
    from aioseed.host.curves import draw_curves

    draw_curves(report, path)
    _say(f"curves: {path}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
