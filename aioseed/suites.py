"""Suites: named lists of tasks with the scores that results are compared to, as environment plugins ship them."""

from __future__ import annotations

from typing import NamedTuple


class SuiteTask(NamedTuple):
    """Name one task of a suite, how its run differs from the preset, and what it is measured by."""

    name: str
    overrides: tuple[str, ...]  # dotted.path=value, applied to the preset
    random_score: float  # of uniformly random actions
    human_score: float


class Suite(NamedTuple):
    """List tasks that are trained alike, one after another, and reported together.

    What the entry points of the group ``aioseed.suites`` name.
    """

    name: str
    tasks: tuple[SuiteTask, ...]
    score_metric: str  # of metrics.jsonl, for example run/return_mean
    capped: bool  # whether normalised scores count at most 1 in the summary
