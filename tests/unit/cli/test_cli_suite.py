"""The tasks of a suite run in one process, one after another: none keeps the memory of those before."""

from __future__ import annotations

import asyncio
import gc
import textwrap
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aioseed.cli import suite
from aioseed.errors import EnvironmentFailed
from aioseed.host.config import RunConfig
from aioseed.host.events import Event, Finished, Ready

SUITE = """
    from aioseed.suites import Suite, SuiteTask

    tasks = tuple(SuiteTask(name, (), 0.0, 10.0) for name in ("good", "bad", "better"))
    three = Suite("three", tasks, "run/return_mean", capped=False)
"""
ENDED = Finished("total_steps", 9, 9, 0, {}, 0, 0, 0, 1.0, 1.0, 1.0, 1.0, "", "")


class Run:
    """Stand for what a run holds, and lie in a cycle of references as that does."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_a_task_begins_when_the_memory_of_those_before_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "three_suite.py").write_text(textwrap.dedent(SUITE))
    monkeypatch.syspath_prepend(tmp_path)
    runs: list[weakref.ref[Run]] = []
    alive: list[int] = []

    async def train(
        config: RunConfig, *, run_dir: Path, resume: str, stop: asyncio.Event, on_event: Callable[[Event], None]
    ) -> Finished:
        alive.append(sum(run() is not None for run in runs))
        run = Run()
        runs.append(weakref.ref(run))
        run_dir.mkdir()
        on_event(Ready(1.0))
        if run_dir.name == "bad":
            raise EnvironmentFailed("the wheel came off")
        return ENDED

    monkeypatch.setattr("aioseed.host.train.train", train)
    words = ["three_suite:three", "--preset", "cartpole", "--dir", str(tmp_path / "runs"), "--steps", "9", "--json"]
    assert suite.main(words) == EnvironmentFailed.exit_code
    assert alive == [0, 0, 0]
    assert '"failed": {"bad": "the wheel came off"}' in capsys.readouterr().out
