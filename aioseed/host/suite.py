"""Run the tasks of a suite one after another, each in a run directory of its own, and go on where it was left.

::

    <folder of the suite>/
      suite.json            which suite, preset and overrides; a folder holds the results of one plan
      <task>/               an ordinary run directory
      <task>/finished.json  written when the task's run has reached its end: it is not run again
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from aioseed import plugins
from aioseed.errors import AioseedError, RunDirectoryError, UsageError
from aioseed.host.config import RunConfig, load_config
from aioseed.host.events import Finished
from aioseed.host.options import resolved
from aioseed.lookup import did_you_mean
from aioseed.suites import Suite, SuiteTask
from aioseed.training.files import Files

PLAN = "suite.json"
FINISHED = "finished.json"


class PlannedTask(NamedTuple):
    """Hold what one task of a suite is run with."""

    task: SuiteTask
    config: RunConfig
    run_dir: Path

    def has_ended(self) -> bool:
        """Say whether its run has reached its end. Reads the disk."""
        return (self.run_dir / FINISHED).exists()


class SuitePlan(NamedTuple):
    """Hold a suite, the folder of its runs and what each of them is run with."""

    folder: Path
    said: dict[str, object]  # suite, preset and overrides, as `suite.json` holds them
    tasks: tuple[PlannedTask, ...]


class SuiteOutcome(NamedTuple):
    """Report what came of a suite; what was neither finished nor failed is left for another time."""

    finished: tuple[str, ...]
    failed: dict[str, AioseedError]
    stopped: bool


RunTask: TypeAlias = Callable[[PlannedTask, asyncio.Event], Awaitable[Finished]]


def plan_suite(name: str, preset: str, overrides: Sequence[str], folder: Path, only: Sequence[str]) -> SuitePlan:
    """Return the plan of the suite `name`, with the configuration of every task checked before the first one runs.

    A task's own overrides change the preset, the user's change both.

    Args:
        only: Names of the tasks to run; all of them if empty.

    Raises:
        UsageError: No task has such a name, two would run in one folder, the runs would never end, or `folder` holds
            another plan.
        PluginError: There is no such suite, or a plug-in that a task names is not there.
        ConfigError: The preset or an override is wrong, an option of a plug-in included.
        RunDirectoryError: `folder` cannot be read.
    """
    suite = plugins.suite(name)
    names = [task.name for task in suite.tasks]
    for wanted in only:
        if wanted not in names:
            raise UsageError(f'the suite {suite.name} has no task "{wanted}"{did_you_mean(wanted, names)}')
    _check_folders(suite)
    before = read_plan(folder)
    # How long runs take is no part of the plan: a suite that was stopped may go on with more steps.
    kept = [override for override in overrides if not override.startswith("training.total_steps=")]
    now: dict[str, object] = {"suite": name, "preset": preset, "overrides": kept}
    if before is not None and before != now:
        differing = next(key for key in now if before.get(key) != now[key])
        raise UsageError(
            f"{folder} holds a suite with another {differing} ({before.get(differing)}): name another --dir"
        )
    tasks = []
    for task in suite.tasks:
        if only and task.name not in only:
            continue
        config = load_config(preset, [*task.overrides, *overrides])
        if config.training.total_steps is None and config.stop.return_mean is None:
            raise UsageError(f"a run of {preset} has no end: give --steps, or set stop.return_mean")
        resolved(config)
        if config.transport.name != "memory":
            plugins.load("aioseed.transports", config.transport.name)
        tasks.append(PlannedTask(task, config, folder / folder_name(task.name)))
    return SuitePlan(folder, now, tuple(tasks))


def folder_name(task: str) -> str:
    """Return the folder of a task: its name, with whatever is no letter, digit, dot, dash or underscore replaced."""
    return re.sub(r"[^\w.-]+", "-", task).lstrip(".-") or "task"


def _check_folders(suite: Suite) -> None:
    """Refuse a suite of which one task would count as finished by the run of another."""
    taken: dict[str, str] = {}
    for task in suite.tasks:
        folder = folder_name(task.name).casefold()  # some systems know no case
        if (first := taken.get(folder)) is not None:
            raise UsageError(
                f'the runs of the tasks "{first}" and "{task.name}" of the suite {suite.name} would lie in one folder: '
                "rename one of them"
            )
        taken[folder] = task.name


def save_plan(plan: SuitePlan) -> None:
    """Write which suite the folder is for.

    Raises:
        RunDirectoryError: It cannot be written.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        _write(plan.folder / PLAN, plan.said)
    except OSError as error:
        raise RunDirectoryError(
            f"{plan.folder} cannot be written: {error.strerror or error}", path=str(plan.folder)
        ) from error


def read_plan(folder: Path) -> dict[str, object] | None:
    """Return which suite `folder` is for, or None if it is for none yet.

    Raises:
        RunDirectoryError: The file is damaged or cannot be read.
    """
    path = folder / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error.strerror or error}", path=str(path)) from error
    except ValueError:
        plan = None
    if not isinstance(plan, dict):
        message = f"{path} is damaged: it holds no plan of a suite; remove it, and run the suite again as before"
        raise RunDirectoryError(message, path=str(path))
    return plan


async def run_suite(
    plan: SuitePlan, run: RunTask, stop: asyncio.Event, begins: Callable[[PlannedTask, int], None]
) -> SuiteOutcome:
    """Run what is not finished, in order; a task that fails does not keep the others from their turn.

    Safe to cancel: the task that runs is ended in order by `run`.

    Args:
        plan: The plan.
        run: Starts the run of a task, resuming what its directory holds, which ends when the event is set.
        stop: Set to end the task that runs and begin no other.
        begins: Told about each task and its place, from 1, before it is run.

    Raises:
        RunDirectoryError: The end of a task cannot be noted, so that it would be run again.
    """
    finished: list[str] = []
    failed: dict[str, AioseedError] = {}
    for place, planned in enumerate(plan.tasks, 1):
        if await asyncio.to_thread(planned.has_ended):
            finished.append(planned.task.name)
            continue
        if stop.is_set():
            break
        begins(planned, place)
        try:
            end = await run(planned, stop)
        except AioseedError as error:
            failed[planned.task.name] = _bare(error)
            continue
        if end.reason != "stopped":
            await asyncio.to_thread(_note_end, planned, end)
            finished.append(planned.task.name)
    return SuiteOutcome(tuple(finished), failed, stop.is_set())


def _bare(error: AioseedError) -> AioseedError:
    """Return the error without its traceback, which holds the run that failed, and all of its memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _note_end(planned: PlannedTask, end: Finished) -> None:
    said = {"reason": end.reason, "env_steps": end.env_steps, "trained_steps": end.trained_steps}
    try:
        _write(planned.run_dir / FINISHED, said)
    except OSError as error:
        raise RunDirectoryError(
            f"{planned.run_dir} cannot be written: {error.strerror or error}", path=str(planned.run_dir)
        ) from error


def _write(path: Path, said: object) -> None:
    Files().replace(path, (json.dumps(said, indent=1) + "\n").encode())
