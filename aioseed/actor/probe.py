"""Describe an environment, building one if need be: the body of ``aioseed env-spec``, and how a learner learns specs.

A learner runs this in a child process, ``python -P -m aioseed.actor.probe`` with the ``environment`` section as a line
of JSON on standard input, so that environments never live in its own process. The child ends when its standard input
closes: a learner that dies leaves no half-built environment behind.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import NamedTuple

from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.leave import leave
from aioseed.actor.lifeline import take_stdin
from aioseed.errors import AioseedError, SpaceError
from aioseed.lookup import look_here_too
from aioseed.plugins import environment_plugin
from aioseed.specs import Json, action_from_json, check_servable, observation_from_json, observation_to_json
from aioseed.types import EnvironmentMetric, EnvironmentSpec, KnowsSpecs


class Description(NamedTuple):
    """Describe an environment as a run agrees on it."""

    spec: EnvironmentSpec
    metrics: tuple[EnvironmentMetric, ...]
    task: dict[str, Json]

    def to_json(self) -> dict[str, Json]:
        """Return the JSON form."""
        return {
            "observation": observation_to_json(self.spec.observation),
            "action": self.spec.action.to_json(),
            "metrics": [{"name": metric.name, "fold": metric.fold} for metric in self.metrics],
            "task": self.task,
        }

    @classmethod
    def from_json(cls, form: dict[str, Json]) -> Description:
        """Return the description that `to_json` gave.

        Raises:
            SpaceError: It holds a spec that cannot be served, or is no description.
        """
        lacking = [part for part in ("observation", "action", "metrics", "task") if part not in form]
        if lacking:
            raise SpaceError(f"the description of the environment has no {' and no '.join(lacking)}")
        spec = EnvironmentSpec(observation_from_json(form["observation"]), action_from_json(form["action"]))
        listed, task = form["metrics"], form["task"]
        if not isinstance(listed, list) or not isinstance(task, dict):
            raise SpaceError("the description of the environment has no list of metrics or no task")
        metrics: list[EnvironmentMetric] = []
        for metric in listed:
            if not isinstance(metric, dict) or not {"name", "fold"} <= metric.keys():
                raise SpaceError("a metric of the environment has no name or no fold")
            fold = metric["fold"]
            metrics.append(
                EnvironmentMetric(str(metric["name"]), "max" if fold == "max" else "last" if fold == "last" else "sum")
            )
        return cls(spec, tuple(metrics), task)


def describe(config: EnvironmentConfig) -> Description:
    """Return what the plugin knows of the environment; where it knows nothing, build one, look and close it.

    Raises:
        ConfigError: There is no such environment, or an option is wrong.
        PluginError: The plugin or a package that it needs is missing.
        SpaceError: A space cannot be served.
        EnvironmentFailed: The environment raised.
    """
    plugin = environment_plugin(config.plugin)
    if isinstance(plugin, KnowsSpecs):
        spec, metrics = plugin.specs(config.name, config.options)
        return Description(spec, metrics, plugin.task(config.name, config.options))
    environment = plugin.make(config.name, config.options, 1)
    try:
        check_servable(environment.spec.observation, environment.spec.action)
        return Description(environment.spec, environment.metrics, plugin.task(config.name, config.options))
    finally:
        environment.close()


def main() -> int:
    """Describe the environment on standard input; errors go to standard output too, as ``{"error", "exit_code"}``.

    Nothing else does: what environments print there, from Python or from C, goes nowhere.
    """
    answer = os.dup(1)
    # Not to standard error, whose last line tells why a child crashed: what C holds back is printed at the very end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with, args=(take_stdin(),), name="aioseed-lifeline", daemon=True).start()
    code, form = _answer(line)
    with os.fdopen(answer, "w") as out:
        out.write(json.dumps(form) + "\n")
    return code


def _answer(line: bytes) -> tuple[int, dict[str, Json]]:
    try:
        return 0, describe(EnvironmentConfig.model_validate_json(line)).to_json()
    except AioseedError as error:
        return error.exit_code, {"error": str(error), "exit_code": error.exit_code, "kind": type(error).__name__}


def _end_with(lifeline: int) -> None:
    # Not sys.stdin: its lock, held here, would keep the interpreter from ending.
    while os.read(lifeline, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    look_here_too()
    exit_code = main()
    leave(exit_code)
    sys.exit(exit_code)
