"""Environments that only their own clients can play."""

from __future__ import annotations

import pytest
from aioseed_described import plugin

from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.probe import describe
from aioseed.errors import ConfigError, SpaceError
from aioseed.specs import ArraySpec, discrete
from aioseed.types import EnvironmentMetric, EnvironmentSpec, KnowsSpecs

OPTIONS = {
    "observation": {
        "dict": {"view": {"dtype": "uint8", "shape": [8, 8, 3]}, "speed": {"dtype": "float32", "shape": []}}
    },
    "action": {"kind": "discrete", "dtype": "int32", "shape": [], "sizes": [3]},
    "metrics": [{"name": "coins", "fold": "sum"}],
}


def test_a_learner_knows_it_from_the_configuration_alone():
    assert isinstance(plugin, KnowsSpecs)
    described = describe(EnvironmentConfig(plugin="aioseed_described:plugin", name="My game", options=OPTIONS))
    observation = {"speed": ArraySpec("float32", ()), "view": ArraySpec("uint8", (8, 8, 3))}
    assert described.spec == EnvironmentSpec(observation, discrete(3))
    assert described.metrics == (EnvironmentMetric("coins", "sum"),)
    assert described.task == {}


def test_nobody_here_can_make_one():
    with pytest.raises(ConfigError, match=r'nothing here can step "My game": .* start `aioseed learner`'):
        plugin.make("My game", OPTIONS, 4)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        (
            {"observation": {"dtype": "floaty", "shape": [4]}},
            SpaceError,
            "options.observation: 'floaty' is not a dtype",
        ),
        ({"observation": {}}, SpaceError, "options.observation"),
        ({"action": {"kind": "discreet"}}, SpaceError, "options.action"),
        ({"observation": {"dtype": "float32", "shape": [0]}}, SpaceError, "options.observation: a dimension must be"),
        ({"metrics": [OPTIONS["metrics"][0]] * 2}, ConfigError, "expected metrics of different names"),
        ({"metrics": [{"name": "coins", "fold": "mean"}]}, ConfigError, "environment.options.metrics.0.fold is 'mean'"),
        ({"observations": {}}, ConfigError, "environment.options.observations is not a known key"),
    ],
)
def test_what_is_wrong_is_named(changed, error, said):
    with pytest.raises(error) as caught:
        plugin.specs("My game", {**OPTIONS, **changed})
    assert said in str(caught.value)
