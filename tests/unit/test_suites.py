"""Every suite that is installed holds together."""

from __future__ import annotations

import math

import pytest

from aioseed.host.suite import folder_name
from aioseed.plugins import names, suite


@pytest.mark.parametrize("name", names("aioseed.suites"))
def test_a_suite_names_each_task_once_and_can_be_normalised(name):
    tasks = suite(name).tasks
    assert suite(name).name == name
    assert len({folder_name(task.name) for task in tasks}) == len(tasks)
    assert all(math.isfinite(task.random_score) and task.human_score != task.random_score for task in tasks)
    assert all("=" in override for task in tasks for override in task.overrides)
