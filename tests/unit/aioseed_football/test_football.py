"""What a learner knows of football without the engine."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from aioseed_football import plugin
from aioseed_football.match import DEBIAN_PACKAGES, Match

from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.probe import describe
from aioseed.errors import ConfigError, PluginError
from aioseed.specs import ArraySpec, discrete
from aioseed.stepping import Outcome
from aioseed.types import EnvironmentMetric


class Game:
    """Stand for a gfootball environment."""

    def __init__(self):
        self._config = {}
        self.unwrapped = self
        self.kicked_off = []

    def reset(self):
        self.kicked_off.append(dict(self._config))
        return self.observation(0)

    def step(self, action):
        assert type(action) is int
        return self.observation(action), np.float32(0.1), action == 12, {"score_reward": 1 if action == 12 else 0}

    def observation(self, action):
        minimap = np.zeros((3, 5, 4), np.uint8)
        minimap[1, 2, action % 4] = 255
        return minimap

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    ("options", "observation"),
    [
        ({}, ArraySpec("uint8", (72, 96, 1))),
        ({"smm_size": "medium"}, ArraySpec("uint8", (90, 120, 1))),
        ({"smm_size": "large"}, ArraySpec("uint8", (108, 144, 1))),
        ({"observation": "simple115"}, ArraySpec("float32", (115,))),
    ],
)
def test_specs_are_known_without_the_engine(options, observation):
    described = describe(EnvironmentConfig(plugin="football", name="11_vs_11_hard_stochastic", options=options))
    assert described.spec == (observation, discrete(19))
    assert described.metrics == (EnvironmentMetric("score", "sum"),)
    assert described.task == {
        "name": "11_vs_11_hard_stochastic",
        "observation": "smm",
        "smm_size": "default",
        "reward": "scoring",
        **options,
    }


def test_the_bits_of_a_minimap_are_packed_the_first_layer_highest():
    match = Match(Game(), packed=True)
    (packed,) = match.reset(1)
    assert packed.shape == (3, 5, 1)
    assert packed[1, 2, 0] == 0b1000_0000
    outcome = match.step(np.int32(2))
    assert outcome.observation[0][1, 2, 0] == 0b0010_0000
    np.testing.assert_array_equal(np.unpackbits(outcome.observation[0], axis=-1, count=4)[1, 2], [0, 0, 1, 0])


def test_the_score_stands_beside_the_reward():
    match = Match(Game(), packed=True)
    match.reset(1)
    *_, lost = match.step(np.int32(3)), match.step(np.int32(12))
    assert lost._replace(observation=()) == Outcome((), np.float32(0.1), True, False, (1.0,))


def test_a_seed_begins_the_same_matches_again():
    game = Game()
    match = Match(game, packed=True)
    for seed in (5, None, 5, None, 6):
        match.reset(seed)
    first, second, again, after, other = (said["game_engine_random_seed"] for said in game.kicked_off)
    assert (first, second) == (again, after)
    assert len({first, second, other}) == 3
    assert game.kicked_off[0]["reverse_team_processing"] == bool(first % 2)


def test_without_the_engine_making_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gfootball", None)
    monkeypatch.setitem(sys.modules, "gfootball.env", None)
    with pytest.raises(PluginError, match=r"make football.*apt install .*libboost-python-dev"):
        plugin.make("academy_empty_goal_close", {}, 1)


def test_a_scenario_that_is_none_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match='did you mean "academy_corner"'):
        plugin.make("academy_corne", {}, 1)
    with pytest.raises(ConfigError, match=r"environment\.options\.reward is 'goals'"):
        plugin.specs("academy_corner", {"reward": "goals"})


def test_the_script_asks_for_the_packages_that_the_message_names():
    script = Path(__file__).parents[3] / "scripts" / "make_football.sh"
    asked = re.search(r"packages='(.*?)'", script.read_text(), re.S)
    assert asked is not None
    assert asked[1].split() == DEBIAN_PACKAGES.split()
