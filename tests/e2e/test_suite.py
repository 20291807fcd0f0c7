"""``aioseed suite`` as a user runs it: stopped, gone on with, and reported."""

from __future__ import annotations

import json
import signal

import pytest

pytestmark = pytest.mark.timeout(300)

SUITE = """
from aioseed.suites import Suite, SuiteTask

poles = Suite(
    "poles",
    (
        SuiteTask("still", (), 20.0, 475.0),
        SuiteTask("short", ("environment.options.max_episode_steps=20",), 10.0, 20.0),
    ),
    "run/return_mean",
    capped=True,
)
"""


@pytest.fixture
def suite(start, small, tmp_path):
    (tmp_path / "my_suites.py").write_text(SUITE)
    return lambda *words: start(
        "suite", "my_suites:poles", "--preset", "cartpole", "--dir", "poles", "transport.name=memory", *small, *words
    )


def test_a_suite_is_stopped_gone_on_with_and_reported(suite, start, tmp_path):
    stopped = suite("--steps", "4000000000", "--task", "still")
    stopped.says("task 1 of 1: still")
    stopped.says("ready after")
    stopped.signal(signal.SIGINT)
    assert stopped.ends() == 0
    assert "0 of 1 tasks are finished." in stopped.text

    done = suite("--steps", "400", "--json")
    assert done.succeeds() == {"dir": "poles", "finished": ["still", "short"], "failed": {}, "left": 0}
    starts = {task: (tmp_path / "poles" / task / "generation").read_text().split()[0] for task in ("still", "short")}
    assert starts == {"still": "2", "short": "1"}

    report = start("suite", "report", "poles", "--no-curves", "--json").succeeds()
    assert [task["finished"] for task in report["tasks"]] == [True, True]
    assert report == json.loads((tmp_path / "poles" / "report.json").read_text())
    assert "| still |" in (tmp_path / "poles" / "report.md").read_text()
