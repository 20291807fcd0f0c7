"""A suite is planned before anything runs, goes on where it was left, and outlives the failure of a task."""

from __future__ import annotations

import asyncio
import json
import os
import textwrap

import pytest

from aioseed.errors import CheckpointError, ConfigError, EnvironmentFailed, PluginError, RunDirectoryError, UsageError
from aioseed.host.events import Finished
from aioseed.host.suite import FINISHED, PLAN, folder_name, plan_suite, read_plan, run_suite, save_plan

SUITE = """
    from aioseed.suites import Suite, SuiteTask

    letters = Suite(
        "letters",
        tuple(SuiteTask(f"task {name}", (f"seed={seed}",), 0.0, 10.0) for seed, name in enumerate("abc")),
        "run/return_mean",
        capped=False,
    )
    alike = letters._replace(tasks=(SuiteTask("a b", (), 0.0, 10.0), SuiteTask("A/B", (), 0.0, 10.0)))
    twice = letters._replace(tasks=letters.tasks[:1] * 2)
    not_a_suite = 3
"""
ENDED = Finished("total_steps", 9, 9, 0, {}, 0, 0, 0, 1.0, 1.0, 1.0, 1.0, "", "")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a function that plans the suite ``letters`` in a fresh folder."""
    (tmp_path / "letters_suite.py").write_text(textwrap.dedent(SUITE))
    monkeypatch.syspath_prepend(tmp_path)

    def plan(*overrides, suite="letters_suite:letters", preset="cartpole", only=()):
        return plan_suite(suite, preset, overrides, tmp_path / "runs", only)

    return plan


class Runs:
    """Stand for training: note each run, and end it as it was told."""

    def __init__(self, **ends):
        self.ends, self.seen = ends, []

    async def run(self, planned, stop):
        name = planned.task.name[-1]
        self.seen.append(name)
        end = self.ends.get(name, ENDED)
        if isinstance(end, Exception):
            raise end
        planned.run_dir.mkdir(parents=True, exist_ok=True)
        if end.reason == "stopped":
            stop.set()
        return end

    async def of(self, plan):
        return await run_suite(plan, self.run, asyncio.Event(), lambda planned, place: None)


def test_the_users_words_come_after_the_tasks_own(plan):
    assert [planned.config.seed for planned in plan().tasks] == [0, 1, 2]
    assert [planned.config.seed for planned in plan("seed=7").tasks] == [7, 7, 7]
    assert [planned.run_dir.name for planned in plan().tasks] == ["task-a", "task-b", "task-c"]


def test_single_tasks_may_be_picked(plan):
    assert [planned.task.name for planned in plan(only=["task b"]).tasks] == ["task b"]
    with pytest.raises(UsageError, match='the suite letters has no task "task d"'):
        plan(only=["task d"])


@pytest.mark.parametrize(
    ("words", "suite", "error", "said"),
    [
        (("stop.return_mean=null",), "letters_suite:letters", UsageError, "has no end: give --steps"),
        (("trainig.seed=1",), "letters_suite:letters", ConfigError, "trainig is not a known key"),
        (("agent.discont=1",), "letters_suite:letters", ConfigError, r"agent\.discont is not a known key"),
        (("transport.name=pigeon",), "letters_suite:letters", PluginError, 'there is no transport "pigeon"'),
        ((), "letters_suite:not_a_suite", PluginError, "is a int, not a Suite"),
        ((), "letters_suite:alike", UsageError, 'the tasks "a b" and "A/B" .* in one folder: rename one of them'),
        ((), "letters_suite:twice", UsageError, "in one folder"),
        ((), "leters", PluginError, 'there is no suite "leters"'),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(plan, tmp_path, words, suite, error, said):
    with pytest.raises(error, match=said):
        plan(*words, suite=suite)
    assert not (tmp_path / "runs").exists()


def test_a_folder_holds_the_results_of_one_plan(plan, tmp_path):
    save_plan(plan("seed=1"))
    save_plan(plan("seed=1", "training.total_steps=9", only=["task a"]))
    with pytest.raises(UsageError, match=r"holds a suite with another overrides .*name another --dir"):
        plan("seed=2")
    assert read_plan(tmp_path / "runs") == {
        "suite": "letters_suite:letters",
        "preset": "cartpole",
        "overrides": ["seed=1"],
    }
    for damaged in ("", "{", "[]"):
        (tmp_path / "runs" / PLAN).write_text(damaged)
        with pytest.raises(RunDirectoryError, match="damaged: it holds no plan of a suite; remove it, and run"):
            plan("seed=1")


def test_a_plan_is_on_the_disk_before_it_has_its_name(plan, monkeypatch):
    done = []
    rename = os.replace
    monkeypatch.setattr("os.fsync", lambda descriptor: done.append("sync"))
    monkeypatch.setattr("os.replace", lambda *paths: (done.append("rename"), rename(*paths)))
    save_plan(plan())
    assert done == ["sync", "rename", "sync"]  # the contents, the name, the directory


@pytest.mark.may_block("plans are made, and run directories too, by the test itself")
async def test_a_finished_task_is_not_run_again(plan):
    first, second = Runs(), Runs()
    assert (await first.of(plan(only=["task b"]))).finished == ("task b",)
    outcome = await second.of(plan())
    assert (first.seen, second.seen) == (["b"], ["a", "c"])
    assert outcome.finished == ("task a", "task b", "task c")
    ended = json.loads((plan().tasks[0].run_dir / FINISHED).read_text())
    assert ended == {"reason": "total_steps", "env_steps": 9, "trained_steps": 9}


@pytest.mark.may_block("plans are made, and run directories too, by the test itself")
async def test_a_stopped_task_is_left_for_another_time_and_begins_no_other(plan):
    runs = Runs(b=ENDED._replace(reason="stopped"))
    outcome = await runs.of(plan())
    assert runs.seen == ["a", "b"]
    assert outcome == (("task a",), {}, True)
    again = Runs()
    assert not (await again.of(plan())).stopped
    assert again.seen == ["b", "c"]


@pytest.mark.may_block("plans are made, and run directories too, by the test itself")
@pytest.mark.parametrize(
    "error",
    [
        EnvironmentFailed("the engine broke"),
        CheckpointError("none of its checkpoints is sound", path="task-a"),
        ConfigError("there is no environment CartPol-v1"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_task_that_fails_leaves_the_others_their_turn(plan, error):
    runs = Runs(a=error)
    outcome = await runs.of(plan())
    assert runs.seen == ["a", "b", "c"]
    assert outcome == (("task b", "task c"), {"task a": error}, False)


@pytest.mark.may_block("plans are made, and run directories too, by the test itself")
async def test_an_end_that_cannot_be_noted_ends_it_at_once(plan):
    planned = plan()
    (planned.tasks[0].run_dir / f"{FINISHED}.tmp").mkdir(parents=True)
    runs = Runs()
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        await runs.of(planned)
    assert runs.seen == ["a"]


@pytest.mark.parametrize(
    ("task", "folder"), [("ALE/Pong-v5", "ALE-Pong-v5"), ("..", "task"), ("a_b.c-1", "a_b.c-1"), ("../x", "x")]
)
def test_a_task_lives_in_a_folder_below_the_suites(task, folder):
    assert folder_name(task) == folder


def test_a_plan_that_cannot_be_opened_is_told_in_the_systems_words(tmp_path):
    (tmp_path / PLAN).mkdir()
    with pytest.raises(RunDirectoryError, match=rf"{PLAN} cannot be read: Is a directory$"):
        read_plan(tmp_path)
