"""The plugin as the rooms see it: names, options, tasks, and a sentence for whatever is wrong."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from aioseed_gymnasium import plugin

from aioseed.errors import ConfigError, EnvironmentFailed, PluginError, SpaceError
from aioseed.specs import ArraySpec, discrete
from aioseed.testing.environment_kit import check_env
from aioseed.types import TRUNCATED

TAXI = max(name for name in gymnasium.registry if name.startswith("Taxi-v"))
OWN = """
import gymnasium, numpy as np
from gymnasium.vector import SyncVectorEnv

class Own(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def __init__(self, scale=1.0): self.scale = scale
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32) * self.scale, {}
    def step(self, action): return np.zeros(2, np.float32), 1.0, False, False, {}

def make(scale=1.0): return Own(scale)
def many(num_envs, scale=1.0): return SyncVectorEnv([lambda: Own(scale)] * num_envs)
def nothing(): return None
def raising(): raise RuntimeError("no display")
def importing(): import nobody_has_this
not_callable = 3

class Older:
    def reset(self): return np.zeros(2)
    def step(self, action): return np.zeros(2), 1.0, False, {}

class Several(Older):
    possible_agents = ["one", "other"]
"""


@pytest.mark.parametrize(
    ("name", "options", "resets_rows"),
    [
        ("CartPole-v1", {}, True),
        ("CartPole-v1", {"wrappers": [{"name": "hide_velocities"}]}, True),
        ("CartPole-v1", {"vectorized": True}, False),
        ("CartPole-v1", {"vectorized": True, "wrappers": [{"name": "hide_velocities"}]}, False),
        ("Blackjack-v1", {}, True),
        (TAXI, {"max_episode_steps": 20}, True),
        ("Pendulum-v1", {"max_episode_steps": 20}, True),
    ],
)
def test_environments_of_gymnasium_keep_the_rules_of_the_kit(name, options, resets_rows):
    check_env(lambda count: plugin.make(name, options, count), steps=60, resets_rows=resets_rows)


def test_an_own_environment_is_named_by_module_and_function(local_module, group):
    local_module("own_env_of_a_user", OWN)
    run = group(plugin.make("own_env_of_a_user:make", {"kwargs": {"scale": 0.0}, "max_episode_steps": 2}, 2))
    run.reset()
    assert run.observations == [[0, 0], [0, 0]]
    run.step()
    run.step()
    assert run.flags == [TRUNCATED, TRUNCATED]


def test_an_own_vector_environment_is_named_by_module_and_function(local_module, group):
    local_module("own_vector_of_a_user", OWN)
    env = plugin.make("own_vector_of_a_user:many", {"vectorized": True, "kwargs": {"scale": 0.5}}, 3)
    run = group(env)
    run.reset()
    assert np.abs(run.observations).max() <= 0.5


def test_a_name_may_bring_the_module_that_registers_it(local_module, registered):
    source = "import gymnasium\ngymnasium.register('Mine/Cart-v3', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    local_module("registers_on_import", source)
    try:
        assert plugin.make("registers_on_import:Mine/Cart-v3", {}, 1).spec.action == discrete(2)
    finally:
        del gymnasium.registry["Mine/Cart-v3"]


def test_an_id_without_a_version_is_told_from_a_class(local_module, registered):
    local_module("registers_a_word", "Cartoon = None\n")
    registered("CartoonOfNobody", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    assert plugin.make("registers_a_word:CartoonOfNobody", {}, 1).spec.action == discrete(2)
    registered("Cartoon", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    with pytest.raises(ConfigError, match=r"^registers_a_word:Cartoon is no function and no class"):
        plugin.make("registers_a_word:Cartoon", {}, 1)
    with pytest.raises(PluginError, match=r'^the module "registers_a_word" has no "Cartun"'):
        plugin.make("registers_a_word:Cartun", {}, 1)


@pytest.mark.parametrize("nested", [False, True])
def test_an_environment_of_the_older_gym_is_told_from_one_that_is_nowhere(local_module, monkeypatch, nested):
    local_module("registers_with_gym", "")
    known = {"Mario-v0": object()}
    registry = SimpleNamespace(env_specs=known) if nested else known
    monkeypatch.setitem(sys.modules, "gym", SimpleNamespace(envs=SimpleNamespace(registry=registry)))
    with pytest.raises(
        ConfigError, match=r'^the module .* registers "Mario-v0" with the older Gym, .*: wrap it in a gym'
    ):
        plugin.make("registers_with_gym:Mario-v0", {}, 1)
    with pytest.raises(ConfigError, match=r'^the module .* was imported and registers no "Luigi-v0"'):
        plugin.make("registers_with_gym:Luigi-v0", {}, 1)


@pytest.mark.parametrize(
    ("name", "options", "error", "sentence"),
    [
        (
            "odd-v0",
            {},
            ConfigError,
            '^there is no environment "odd-v0": where a package registers it, put .* some_package:odd-v0; one of',
        ),
        ("CartPole-v9", {}, ConfigError, '^there is no environment "CartPole-v9" \\(did you mean "CartPole-v1"'),
        ("carpole-v1", {}, ConfigError, 'did you mean "CartPole-v1"'),
        ("Nowhere/Pong-v5", {}, PluginError, '^no environment of "Nowhere/" is registered: install the package'),
        (
            "no_such_pkg:A/Pong-v5",
            {},
            PluginError,
            '^the module "no_such_pkg" of the environment .* cannot be imported',
        ),
        ("no_such_module:make", {}, PluginError, '^there is no module "no_such_module"'),
        (
            "CartPole-v1",
            {"kwargs": {"grvity": 1}},
            ConfigError,
            r"^environment\.options\.kwargs is {'grvity': 1}: CartP",
        ),
        ("CartPole-v1", {"vectorised": True}, ConfigError, r'^environment\.options\.vectorised is .*mean "vectorized"'),
        (
            "CartPole-v1",
            {"max_rebuilds": -1},
            ConfigError,
            r"^environment\.options\.max_rebuilds is -1: expected greater",
        ),
        ("CartPole-v1", {"wrappers": [{"name": "TimeLmit"}]}, ConfigError, r'wrappers\.0\.name is .*mean "TimeLimit"'),
        (
            "CartPole-v1",
            {"wrappers": [{"name": "hide_velocities", "kwargs": {"k": 1}}]},
            ConfigError,
            r"^environment\.options\.wrappers\.0\.kwargs: hide_velocities does not take these arguments",
        ),
        ("Blackjack-v1", {"wrappers": [{"name": "hide_velocities"}]}, SpaceError, "^hide_velocities keeps the numbers"),
        ("Blackjack-v1", {"vectorized": True}, ConfigError, "^Blackjack-v1 has no vector implementation of its own"),
        (
            "own_errors:nothing",
            {},
            ConfigError,
            "^own_errors:nothing made a NoneType where a gymnasium.Env is expected$",
        ),
        (
            "own_errors:Older",
            {},
            ConfigError,
            "^own_errors:Older made a own_errors.Older where a gymnasium.Env is expected: wrap it in a gymnasium.Env",
        ),
        ("own_errors:Several", {}, ConfigError, "expected: it is for several agents, and an environment has one here$"),
        (
            "own_errors:Own/Cart-v0",
            {},
            ConfigError,
            '^the module "own_errors" was imported and registers no "Own/Cart-v0": another .* own_errors.envs:Own/',
        ),
        (
            "own_errors:CartPole-v7",
            {},
            ConfigError,
            '^the module "own_errors" was imported and registers no "CartPole-v7" \\(did you mean "CartPole-v1"',
        ),
        ("own_errors:make", {"vectorized": True}, ConfigError, r"^environment\.options\.kwargs is {}: .* 'num_envs'"),
        (
            "own_errors:raising",
            {},
            EnvironmentFailed,
            "^own_errors:raising could not be made: RuntimeError: no display$",
        ),
        ("own_errors:importing", {}, PluginError, "^own_errors:importing needs a package .* 'nobody_has_this'"),
        ("own_errors:not_callable", {}, ConfigError, "^own_errors:not_callable is no function"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(local_module, name, options, error, sentence):
    local_module("own_errors", OWN)
    with pytest.raises(error, match=sentence) as caught:
        plugin.make(name, options, 1)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_an_environment_with_only_a_vector_implementation_says_so(registered):
    registered("OnlyVector-v0", vector_entry_point="gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv")
    with pytest.raises(ConfigError, match=r"^OnlyVector-v0 has only a vector implementation: set "):
        plugin.make("OnlyVector-v0", {}, 1)


def test_a_missing_package_is_told_with_gymnasiums_own_advice(registered):
    def entry_point() -> None:
        raise gymnasium.error.DependencyNotInstalled('Box2D is missing: pip install "gymnasium[box2d]"')

    registered("Lander-v0", entry_point=entry_point)
    with pytest.raises(PluginError, match=r'Lander-v0 needs a package .* pip install "gymnasium\[box2d\]"'):
        plugin.make("Lander-v0", {}, 1)


def test_a_time_limit_truncates_plain_and_vectorized_environments(group):
    for vectorized in (False, True):
        run = group(plugin.make("CartPole-v1", {"vectorized": vectorized, "max_episode_steps": 3}, 2))
        run.reset()
        for _ in range(3):
            assert run.flags in ([1, 1], [0, 0])
            run.step(0, 1)
        assert run.flags == [TRUNCATED, TRUNCATED]


@pytest.mark.parametrize("vectorized", [False, True])
def test_hide_velocities_keeps_position_and_angle(group, vectorized):
    options = {"vectorized": vectorized}
    whole = group(plugin.make("CartPole-v1", options, 2))
    hidden = group(plugin.make("CartPole-v1", {**options, "wrappers": [{"name": "hide_velocities"}]}, 2))
    assert hidden.env.spec.observation == ArraySpec("float32", (2,))
    for run in (whole, hidden):
        run.reset()
        run.step(0, 1)
    np.testing.assert_array_equal(hidden.columns.observation[0], whole.columns.observation[0][:, [0, 2]])


def test_wrappers_of_gymnasium_and_of_the_user_are_put_on_in_order(local_module):
    local_module("own_wrapper", "from gymnasium.wrappers import RescaleObservation as Mine\n")
    wrappers = [
        {"name": "hide_velocities", "kwargs": {"keep": [0, 1, 2]}},
        {"name": "FrameStackObservation", "kwargs": {"stack_size": 4}},
        {"name": "gymnasium.wrappers:FlattenObservation"},
    ]
    assert plugin.make("CartPole-v1", {"wrappers": wrappers}, 1).spec.observation == ArraySpec("float32", (12,))


def test_a_list_of_a_configuration_is_a_tuple_to_wrappers_of_gymnasium_and_stays_one_to_others(local_module):
    # Gymnasium's own refuse a list.
    source = "def mine(env, given):\n    assert given == [1, [2]]\n    return env\n"
    local_module("wrapper_with_a_list", source)
    wrappers = [
        {"name": "wrapper_with_a_list:mine", "kwargs": {"given": [1, [2]]}},
        {"name": "ReshapeObservation", "kwargs": {"shape": [2, 2]}},
    ]
    env = plugin.make("CartPole-v1", {"wrappers": wrappers}, 1)
    assert env.spec.observation == ArraySpec("float32", (2, 2))


def test_the_task_is_what_must_be_equal_between_actors():
    options = {
        "vectorized": True,
        "keep_float64": True,
        "max_rebuilds": 9,
        "kwargs": {"sutton_barto_reward": True, "render_mode": "human"},
        "wrappers": [{"name": "hide_velocities"}],
        "max_episode_steps": 7,
    }
    assert plugin.task("CartPole-v1", options) == {
        "name": "CartPole-v1",
        "kwargs": {"sutton_barto_reward": True},
        "wrappers": [{"name": "hide_velocities", "kwargs": {}}],
        "max_episode_steps": 7,
    }


def test_the_spaces_of_an_atari_like_environment_stay_bytes(constant):
    from aioseed_gymnasium.adapter import PlainEnvironment
    from aioseed_gymnasium.options import GymnasiumOptions

    screen = gymnasium.spaces.Box(0, 255, (84, 84, 1), np.uint8)
    build = lambda: constant(screen, np.zeros((84, 84, 1), np.uint8), gymnasium.spaces.Discrete(18))  # noqa: E731
    assert PlainEnvironment(build, 1, "x", GymnasiumOptions()).spec.observation.row_bytes == 84 * 84


def test_no_checker_and_no_order_wrapper_slows_the_steps_down():
    env = plugin.make("CartPole-v1", {}, 1)
    wrappers = repr(env._envs[0])
    assert "PassiveEnvChecker" not in wrappers
    assert "OrderEnforcing" not in wrappers
    assert "TimeLimit" in wrappers


def test_the_environments_own_entry_in_the_registry_is_left_alone():
    plugin.make("CartPole-v1", {"max_episode_steps": 3}, 1)
    assert gymnasium.spec("CartPole-v1").order_enforce
    assert gymnasium.spec("CartPole-v1").max_episode_steps == 500


def test_the_plugin_finds_nothing_wrong_with_cartpole():
    findings = plugin.check("CartPole-v1", {})
    assert {finding.level for finding in findings} == {"note"}
    assert findings[0].text == "observation travels as float32[4], 16 bytes"


def test_a_wrong_name_is_a_finding():
    (finding,) = plugin.check("CartPole-v9", {})
    assert finding.level == "error"
    assert "CartPole-v1" in finding.text
