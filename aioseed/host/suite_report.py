"""What came of a suite: scores out of the runs' metrics, normalised, as a table for people and one for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aioseed import plugins
from aioseed.errors import RunDirectoryError, UsageError
from aioseed.host.suite import FINISHED, PLAN, folder_name, read_plan
from aioseed.suites import Suite, SuiteTask

METRICS = "metrics.jsonl"


class Curve(NamedTuple):
    """Hold the score of one task over the environment steps of its run."""

    steps: tuple[int, ...]
    scores: tuple[float, ...]


class TaskResult(NamedTuple):
    """Hold what one task has reached."""

    task: SuiteTask
    curve: Curve
    steps: int  # trained so far, scored or not
    finished: bool

    @property
    def score(self) -> float | None:
        """Return the newest score; None if no episode has ended."""
        return self.curve.scores[-1] if self.curve.scores else None

    @property
    def normalised(self) -> float | None:
        """Return the score on a scale on which random play is 0 and the human score is 1."""
        if self.score is None:
            return None
        return (self.score - self.task.random_score) / (self.task.human_score - self.task.random_score)


class SuiteReport(NamedTuple):
    """Hold the results of a suite, in its own order; means are over the tasks that have a score."""

    suite: Suite
    preset: str
    results: tuple[TaskResult, ...]

    @property
    def scored(self) -> tuple[float, ...]:
        """Return the normalised scores that there are."""
        return tuple(result.normalised for result in self.results if result.normalised is not None)

    @property
    def mean(self) -> float | None:
        """Return the mean of the human-normalised scores."""
        return statistics.fmean(self.scored) if self.scored else None

    @property
    def median(self) -> float | None:
        """Return their median."""
        return statistics.median(self.scored) if self.scored else None

    @property
    def capped_mean(self) -> float | None:
        """Return the mean of the scores, none of which counts more than human."""
        return statistics.fmean(min(score, 1.0) for score in self.scored) if self.scored else None


def read_report(folder: Path) -> SuiteReport:
    """Return the results of the suite in `folder`, as far as they go. The suite may be running.

    Raises:
        UsageError: It holds no suite.
        PluginError: The suite is not installed.
        RunDirectoryError: A file of it cannot be read.
    """
    plan = read_plan(folder)
    if plan is None:
        raise UsageError(f"{folder} holds no suite: it has no {PLAN}")
    suite = plugins.suite(str(plan.get("suite")))
    results = tuple(_result(task, folder / folder_name(task.name), suite.score_metric) for task in suite.tasks)
    return SuiteReport(suite, str(plan.get("preset")), results)


def as_markdown(report: SuiteReport) -> str:
    """Return the table, the summary above it."""
    lines = [f"# {report.suite.name} with {report.preset}", ""]
    lines.append(f"{len(report.scored)} of {len(report.results)} tasks have a score; {_finished(report)} are finished.")
    summary = [f"mean {_percent(report.mean)}", f"median {_percent(report.median)}"]
    if report.suite.capped:
        summary.insert(0, f"capped mean {_percent(report.capped_mean)}")
    lines += ["", f"Human-normalised score: {', '.join(summary)}.", ""]
    lines += [
        "| task | score | human-normalised | random | human | steps | |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    lines += [_row(result) for result in report.results]
    return "\n".join([*lines, ""])


def as_json(report: SuiteReport) -> dict[str, object]:
    """Return the same as one JSON object; scores that are not there are null."""
    tasks = [
        {
            "name": result.task.name,
            "score": result.score,
            "human_normalised": result.normalised,
            "random_score": result.task.random_score,
            "human_score": result.task.human_score,
            "env_steps": result.steps,
            "finished": result.finished,
        }
        for result in report.results
    ]
    return {
        "suite": report.suite.name,
        "preset": report.preset,
        "tasks_scored": len(report.scored),
        "mean": report.mean,
        "median": report.median,
        "capped_mean": report.capped_mean if report.suite.capped else None,
        "tasks": tasks,
    }


def _result(task: SuiteTask, run_dir: Path, metric: str) -> TaskResult:
    curve, newest_step = _curve(run_dir / METRICS, metric)
    return TaskResult(task, curve, newest_step, (run_dir / FINISHED).exists())


def _curve(path: Path, metric: str) -> tuple[Curve, int]:
    """Return the curve and the newest step, at which there may be no score yet.

    Where a killed run went back to its checkpoint, what it had come to beyond that is gone, and with it its scores.
    """
    steps: list[int] = []
    scores: list[float] = []
    newest_step = 0
    try:
        with path.open("rb") as lines:
            for line in lines:
                values = _values(line)
                step, score = values.get("step"), values.get(metric)
                if step is None:
                    continue
                newest_step = int(step)
                while steps and (steps[-1] > newest_step or (score is not None and steps[-1] == newest_step)):
                    steps.pop()
                    scores.pop()
                if score is not None:
                    steps.append(newest_step)
                    scores.append(float(score))
    except FileNotFoundError:
        return Curve((), ()), 0
    except (OSError, ValueError, TypeError) as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}", path=str(path)) from error
    return Curve(tuple(steps), tuple(scores)), newest_step


def _values(line: bytes) -> Mapping[str, float | None]:
    """Return the figures of a line; none where it is being written, or was cut short by a power cut or a full disk."""
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _row(result: TaskResult) -> str:
    task = result.task
    score = "" if result.score is None else f"{result.score:,.2f}"
    state = "" if result.finished else "unfinished" if result.steps else "not begun"
    return (
        f"| {task.name} | {score} | {_percent(result.normalised)} | {task.random_score:,g} | {task.human_score:,g} | "
        f"{result.steps:,} | {state} |"
    )


def _finished(report: SuiteReport) -> int:
    return sum(result.finished for result in report.results)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:,.1f} %"
