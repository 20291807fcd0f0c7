"""What each stage of training costs alone, in processor time for one environment step, with a preset's own shapes.

Two cores that did nothing but these stages would train ``2 / sum of costs`` steps a second: the limit that a run is
compared with. Everything else (sockets, sessions, threads that wait for one another) is the price of the road.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aioseed.bench.pipeline import MIN_CALLS, Alone, Pipeline, group_of
from aioseed.bench.recorded import record
from aioseed.host.config import RunConfig
from aioseed.serving.handshake import Contract
from aioseed.types import StepColumns


class StageCosts(NamedTuple):
    """Hold processor seconds for one environment step."""

    environment_s: float
    act_s: float
    assembly_s: float
    train_s: float

    @property
    def total_s(self) -> float:
        """Return the sum."""
        return sum(self)

    def limit_steps_per_s(self, cores: int) -> float:
        """Return what `cores` cores could train if there were nothing else to do."""
        return cores / self.total_s

    def figures(self) -> dict[str, float]:
        """Return the costs as they are printed, in nanoseconds for a step."""
        return {name.removesuffix("_s") + "_ns": round(value * 1e9, 2) for name, value in self._asdict().items()}


def measure_stages(config: RunConfig, contract: Contract, seconds: float) -> StageCosts:
    """Build everything as a learner does and measure stage by stage, about `seconds` in all. Thread: any one.

    Raises:
        AioseedError: Something cannot be built, or the environment failed.
    """
    rows, environment_s = _environment(config, contract, seconds / 3)
    costs = Alone(Pipeline(config, contract, [rows]), time.process_time).measure(seconds * 2 / 3)
    return StageCosts(environment_s, *costs)


def _environment(config: RunConfig, contract: Contract, seconds: float) -> tuple[StepColumns, float]:
    """Return rows as the environments write them, and what one step of one environment costs."""
    environment = group_of(config)
    try:
        columns = record(environment, 2)[-1]
        action = contract.spec.action.array
        actions = np.zeros((environment.count, *action.shape), action.numpy_dtype)
        cost_s = _cost_s(lambda: environment.step(actions, columns), seconds) / environment.count
    finally:
        environment.close()
    return columns, cost_s


def _cost_s(call: Callable[[], None], seconds: float) -> float:
    """Return the processor time of one call, over at least `MIN_CALLS` and about `seconds`."""
    until_s, calls, began_s = time.monotonic() + seconds, 0, time.process_time()
    while calls < MIN_CALLS or time.monotonic() < until_s:
        call()
        calls += 1
    return (time.process_time() - began_s) / calls
