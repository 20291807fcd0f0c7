"""`aioseed check-env` drives an own vector environment as a run does, and says what is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest
from aioseed_gymnasium import plugin
from aioseed_gymnasium.check import MAX_STEPS
from aioseed_gymnasium.check_vector import COUNT, vector_findings_of
from aioseed_gymnasium.options import GymnasiumOptions
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv


class Walks(VectorEnv):
    """Walk in every row for as many steps as `lengths` says; a test changes what it wants to go wrong."""

    lengths = np.array([3, 5])
    single_observation_space = spaces.Box(-99, 99, (2,), np.float32)
    single_action_space = spaces.Box(5, np.inf, (1,), np.float64)

    def __init__(self, mode=AutoresetMode.NEXT_STEP):
        self.metadata = {"autoreset_mode": mode}
        self.num_envs = COUNT
        self.closed_times = 0

    def reset(self, *, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.age = np.zeros(COUNT, int)
        return self.rng.random((COUNT, 2), np.float32), {}

    def step(self, actions):
        assert all(action in self.single_action_space for action in actions)
        self.age = np.where(self.age == self.lengths, 0, self.age + 1)
        none = np.zeros(COUNT, bool)
        return self.rng.random((COUNT, 2), np.float32), np.ones(COUNT), self.age == self.lengths, none, {}

    def close(self, **kwargs):
        self.closed_times += 1


def look(kind, **options):
    return vector_findings_of(kind, "own:Walks", GymnasiumOptions(**options))


def said(findings, level):
    return [finding.text for finding in findings if finding.level == level]


def changed(**methods):
    return type("Changed", (Walks,), {"single_action_space": spaces.Discrete(3, start=1), **methods})


def test_a_sound_one_gives_only_notes():
    findings = look(changed())
    assert said(findings, "error") == said(findings, "warning") == []
    notes = said(findings, "note")
    assert notes[:2] == [
        "observation travels as float32[2], 8 bytes",
        "the action is discrete with 3 choices, int32[], 4 bytes",
    ]
    assert notes[2].startswith(f"a step of {COUNT} environments takes about ")


def test_a_slow_one_is_left_before_an_episode_ends(monkeypatch):
    monkeypatch.setattr("aioseed_gymnasium.check_vector.MOST_S", 0.0)
    findings = look(changed())
    assert said(findings, "error") == said(findings, "warning") == []
    assert any(
        note.startswith("an episode was left after 1 steps, since they took ") for note in said(findings, "note")
    )


def test_actions_are_those_of_its_space_and_infinite_bounds_are_warned_of():
    findings = look(Walks)
    assert said(findings, "error") == []
    (warning,) = said(findings, "warning")
    assert warning.startswith("the action has an infinite bound")


def raises(self, actions):
    raise RuntimeError("boom")


def leaves(self, actions):
    raise SystemExit(3)


def returning(observation, reward):
    none = np.zeros(COUNT, bool)
    return lambda self, actions: (observation, reward, none, none, {})


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (raises, "the vector environment own:Walks failed: RuntimeError: boom"),
        (leaves, "step() ended the process (sys.exit(3)): raise an error instead"),
        (
            returning(np.zeros((COUNT, 3), np.float32), np.zeros(COUNT)),
            "the vector environment own:Walks returned a wrong observation: ",
        ),
        (
            returning(np.zeros((COUNT, 2), np.float32), np.zeros(3)),
            "the vector environment own:Walks returned a wrong reward or flag: ",
        ),
    ],
)
def test_what_would_end_a_run_is_an_error(step, sentence):
    built = []

    def build():
        built.append(changed(step=step)())
        return built[-1]

    (error,) = said(look(build), "error")
    assert error.startswith(sentence)
    assert [env.closed_times for env in built] == [1, 1]


def test_another_mode_is_an_error():
    (error,) = said(look(lambda: Walks(AutoresetMode.SAME_STEP)), "error")
    assert "resets in the mode SAME_STEP" in error


def test_runs_that_do_not_repeat_are_warned_of():
    def reset(self, *, seed=None, options=None):
        return Walks.reset(self)

    assert said(look(changed(reset=reset)), "warning") == [
        "two runs with the same seeds and actions differ from the reset on: runs will not repeat"
    ]


def test_episodes_that_never_end_are_warned_of():
    (warning,) = said(look(changed(lengths=np.array([10**9] * COUNT))), "warning")
    assert warning.startswith(f"no episode ended within {MAX_STEPS} steps")


def test_integers_that_would_wrap_are_warned_of():
    def reset(self, *, seed=None, options=None):
        Walks.reset(self, seed=seed)
        return np.zeros((COUNT, 1), np.int64), {}

    def step(self, actions):
        return np.zeros((COUNT, 1), np.int64), *Walks.step(self, actions)[1:]

    space = spaces.Box(0, 2**40, (1,), np.int64)
    (warning,) = said(look(changed(single_observation_space=space, reset=reset, step=step)), "warning")
    assert warning.startswith("observation may go from 0 to 1099511627776 and travels as int32")


OWN = """
from gymnasium.vector import SyncVectorEnv
from gymnasium.envs.classic_control import CartPoleEnv
def many(num_envs): return SyncVectorEnv([CartPoleEnv] * num_envs)
def one(num_envs): return CartPoleEnv()
"""


def test_the_plugin_checks_the_vector_environment_that_a_run_would_make(local_module):
    local_module("own_vectors", OWN)
    for name in ("own_vectors:many", "CartPole-v1"):
        findings = plugin.check(name, {"vectorized": True})
        assert {finding.level for finding in findings} == {"note"}
        assert findings[-1].text.startswith("a step of 2 environments")
    (error,) = plugin.check("own_vectors:one", {"vectorized": True})
    assert (error.level, "expects a VectorEnv" in error.text) == ("error", True)
