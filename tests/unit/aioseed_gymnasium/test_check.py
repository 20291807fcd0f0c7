"""`aioseed check-env` says in a sentence what is wrong with an environment; each test makes one thing wrong."""

from __future__ import annotations

import numpy as np
import pytest
from aioseed_gymnasium.check import MAX_STEPS, findings_of
from aioseed_gymnasium.options import GymnasiumOptions
from gymnasium import spaces


def look(build):
    return findings_of(build, GymnasiumOptions())


def said(findings, level):
    return [finding.text for finding in findings if finding.level == level]


def test_a_sound_environment_gives_only_notes(ladder):
    findings = look(ladder)
    assert said(findings, "error") == said(findings, "warning") == []
    assert said(findings, "note")[:2] == [
        "observation travels as float32[3], 12 bytes",
        "the action is discrete with 5 choices, int32[], 4 bytes",
    ]
    assert "the first episode has 3 steps" in said(findings, "note")[-1]


def changed(ladder, **methods):
    return type("Changed", (ladder,), methods)


def step_returning(**changes):
    def step(self, action):
        names = ("observation", "reward", "terminated", "truncated", "info")
        result = dict(zip(names, self.original(action), strict=True))
        return tuple({**result, **changes}.values())

    return step


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reward": "x"}, "the reward is 'x', and it must be one number"),
        ({"reward": np.zeros(1)}, "the reward is array([0.]), and it must be one number"),
        ({"reward": float("inf")}, "the reward is inf, and it must be finite"),
        ({"terminated": None}, "terminated and truncated must be True or False, one is None"),
        ({"info": None}, "info must be a dict, it is a NoneType"),
        ({"observation": np.zeros(3)}, "the observation of step() (float64[3]) is not in its space Box"),
        ({"observation": np.zeros(4, np.float32)}, "the observation of step() (float32[4]) is not in its space Box"),
        (
            {"observation": np.full(3, np.nan, np.float32)},
            "the observation of step() holds a number that is not finite",
        ),
        (
            {"observation": np.full(3, 1e7, np.float32)},
            "the observation of step() (float32[3]) is not in its space Box",
        ),
    ],
)
def test_a_step_that_breaks_the_interface_is_an_error(ladder, changes, sentence):
    findings = look(changed(ladder, original=ladder.step, step=step_returning(**changes)))
    (error,) = said(findings, "error")
    assert error.startswith(sentence)


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (
            {"reset": lambda self, *, seed=None, options=None: np.zeros(3, np.float32)},
            "reset() must return (observation",
        ),
        ({"step": lambda self, action: (np.zeros(3, np.float32), 1.0, False, {})}, "step() must return (observation"),
        ({"reset": lambda self: None}, "it raised TypeError: "),
    ],
)
def test_the_older_gym_interface_is_told_apart(ladder, methods, sentence):
    (error,) = said(look(changed(ladder, **methods)), "error")
    assert error.startswith(sentence)


def test_a_space_that_cannot_be_sent_is_an_error(ladder):
    class Talks(ladder):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Text(5)

    (error,) = said(look(Talks), "error")
    assert error.startswith("observation is a Text space")


def test_an_environment_that_ignores_its_seed_is_warned_of(ladder):
    class Unseeded(ladder):
        def _observe(self, action):
            return np.random.default_rng().random(3, np.float32)

    assert said(look(Unseeded), "warning") == [
        "two resets with the same seed differ: pass the seed on with super().reset(seed=seed)",
        "two episodes with the same seed and actions differ from step 1 on: runs will not repeat",
    ]


def test_shared_observations_are_warned_of(ladder):
    shared = np.zeros(3, np.float32)
    warnings = said(look(lambda: ladder(faults=lambda env, step: shared)), "warning")
    assert warnings == ["two environments return one and the same array: each should own its observations"]


def test_an_episode_that_never_ends_is_warned_of(ladder):
    (warning,) = said(look(lambda: ladder(length=10**9)), "warning")
    assert warning.startswith(f"no episode ended within {MAX_STEPS} steps")


def test_episodes_that_begin_alike_are_noted(ladder):
    findings = look(lambda: ladder(faults=lambda env, step: np.array([0, step, 0], np.float32)))
    assert "resets with two seeds are equal: every episode begins alike" in said(findings, "note")


def test_both_environments_are_closed_whatever_happens(ladder):
    built = []

    def build():
        built.append(changed(ladder, step=lambda self, action: 1 / 0)())
        return built[-1]

    (error,) = said(look(build), "error")
    assert error == "it raised ZeroDivisionError: division by zero"
    assert [env.closed for env in built] == [1, 1]


def test_a_close_that_raises_is_warned_of(ladder):
    def close(self):
        raise RuntimeError("stuck")

    assert said(look(changed(ladder, close=close)), "warning") == ["close() raised RuntimeError: stuck"] * 2
