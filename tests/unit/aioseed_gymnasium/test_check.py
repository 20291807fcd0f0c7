"""`aioseed check-env` says in a sentence what is wrong with an environment; each test makes one thing wrong."""

from __future__ import annotations

import threading
from fractions import Fraction

import gymnasium
import numpy as np
import pytest
from aioseed_gymnasium import plugin
from aioseed_gymnasium.adapter import PlainEnvironment
from aioseed_gymnasium.check import MAX_STEPS, findings_of
from aioseed_gymnasium.options import GymnasiumOptions
from gymnasium import spaces

from aioseed.errors import EnvironmentFailed
from aioseed.types import TERMINATED

DICT = spaces.Dict({"a": spaces.Discrete(3), "c": spaces.Discrete(3)})
MISFIT = "the observation of step() is not in its space:"


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
        ({"reward": "x"}, "the reward is 'x', and it must be one number: return float(reward)"),
        ({"reward": np.zeros(1)}, "the reward is array([0.]), and it must be one number"),
        ({"reward": float("inf")}, "the reward is inf, and it must be finite: look for a division by zero"),
        ({"reward": 1e39}, "the reward is 1e+39, and it must be finite"),
        ({"terminated": None}, "terminated and truncated must be True or False, one is None: return bool(...)"),
        ({"truncated": 2}, "terminated and truncated must be True or False, one is 2: return bool(...)"),
        ({"terminated": np.zeros(1, bool)}, "terminated and truncated must be True or False, one is array([False])"),
        ({"info": None}, "info must be a dict, it is a NoneType: return {}"),
        (
            {"observation": np.zeros(4, np.float32)},
            f"{MISFIT} it is float32[4], and the space says float32[3]: return that shape, or change the space",
        ),
        (
            {"observation": np.full(3, np.nan, np.float32)},
            "the observation of step() holds a number that is not finite: look for a division by zero",
        ),
        (
            {"observation": np.array([0, 0, 1e39])},
            "the observation of step() holds a number that is infinite as it travels: scale or clip it",
        ),
    ],
)
def test_a_step_that_breaks_the_interface_is_an_error(ladder, changes, sentence):
    findings = look(changed(ladder, original=ladder.step, step=step_returning(**changes)))
    (error,) = said(findings, "error")
    assert error.startswith(sentence)


@pytest.mark.parametrize(
    "changes",
    [
        {"reward": np.float64(0.5), "terminated": np.True_},
        {"reward": np.array(0.5), "terminated": np.array(True)},
        {"reward": np.array(1), "terminated": 1, "truncated": 0.0},
        {"reward": Fraction(1, 2), "terminated": True},
    ],
)
def test_numbers_and_flags_of_other_types_that_a_run_takes_are_no_errors(ladder, group, changes):
    kind = changed(ladder, original=ladder.step, step=step_returning(**changes))
    assert said(look(kind), "error") == []
    run = group(PlainEnvironment(kind, 2, "x", GymnasiumOptions()))
    run.reset()
    run.step(0, 0)
    assert run.flags == [TERMINATED] * 2 and run.columns.reward.tolist() == [float(changes["reward"])] * 2


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (np.zeros(3), "it is float64[3], and the space says float32[3]: return it with .astype(np.float32)"),
        (
            np.array([0, 0, 1e7], np.float32),
            "it is 10000000.0 at [2], and the space goes from -1000000.0 to 1000000.0: widen it, or clip",
        ),
    ],
)
def test_what_is_not_in_its_space_but_sent_all_the_same_is_warned_of_once(ladder, group, observation, sentence):
    odd = changed(ladder, original=ladder.step, step=step_returning(observation=observation))
    findings = look(odd)
    assert said(findings, "error") == []
    told = [warning for warning in said(findings, "warning") if "space" in warning]
    assert told == [f"{MISFIT} {sentence}; a run sends it all the same"]
    run = group(PlainEnvironment(odd, 1, "x", GymnasiumOptions()))
    run.reset()
    run.step(0)
    assert run.observations == [observation.tolist()]


@pytest.mark.parametrize(
    ("space", "observation"),
    [
        (spaces.Box(0.0, 1.0, (2,), np.float64), np.array([0.5, 1.0 + 2**-52])),
        (spaces.Dict(a=spaces.Box(0.0, 0.1, (1,), np.float64)), {"a": np.array([0.1 + 2**-56])}),
    ],
)
def test_a_number_that_is_outside_by_what_is_rounded_on_the_way_is_inside(constant, space, observation):
    findings = look(lambda: constant(space, observation, spaces.Discrete(2)))
    assert not space.contains(observation)
    assert [text for text in said(findings, "error") + said(findings, "warning") if "space" in text] == []


def test_an_emulator_that_a_process_can_hold_only_once_is_told_by_a_warning(ladder):
    class Emulator(ladder):
        alive = 0

        def __init__(self):
            if Emulator.alive:
                raise RuntimeError("Cannot create multiple emulator instances per process")
            super().__init__()
            Emulator.alive += 1

        def close(self):
            Emulator.alive -= 1

    findings = look(Emulator)
    assert said(findings, "error") == [] and Emulator.alive == 0
    (warning,) = said(findings, "warning")
    assert "failed (RuntimeError: Cannot create multiple emulator instances per process): set actor.groups=1" in warning
    assert "the first episode has 3 steps" in said(findings, "note")[-1]


def test_a_slow_environment_is_left_before_its_episode_ends(ladder, monkeypatch):
    monkeypatch.setattr("aioseed_gymnasium.check.MOST_S", 0.0)
    findings = look(ladder)
    assert said(findings, "warning") == []
    assert "an episode was left after 1 steps, since they took 0 seconds" in said(findings, "note")
    assert said(findings, "note")[-1].startswith("the first episode has 1 steps so far of about ")


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (
            {"reset": lambda self, *, seed=None, options=None: np.zeros(3, np.float32)},
            "reset() must return (observation",
        ),
        ({"step": lambda self, action: (np.zeros(3, np.float32), 1.0, False, {})}, "step() must return (observation"),
        (
            {"reset": lambda self: None},
            "reset() must take seed and options: def reset(self, *, seed=None, options=None)",
        ),
        ({"step": lambda self, action: exit(3)}, "step() ended the process (sys.exit(3)): raise an error instead"),
        ({"reset": lambda self, *, seed=None: 1 / 0}, "reset() raised ZeroDivisionError: division by zero"),
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


@pytest.mark.parametrize(
    ("space", "observation", "sentence"),
    [
        (DICT, {"a": 1, "b": 0}, "has the parts ['a', 'b'], and the space has ['a', 'c']: return the same parts"),
        (DICT, (1, 0), "it is a tuple, and the space says dict: return one"),
        (DICT, {"a": 1, "c": 7}, 'its part "c" is 7, and the space is Discrete(3): return an element of it'),
        (spaces.Tuple([DICT]), ({"a": 1, "c": 7},), 'its part "c" is 7, and the space is Discrete(3)'),
        (spaces.Discrete(3), 3, "it is 3, and the space is Discrete(3): return an element of it, or change the space"),
        (spaces.Box(0, 1, (), np.float32), np.float32(2), "it is 2.0, and the space goes from 0.0 to 1.0: widen it"),
    ],
)
def test_the_part_that_does_not_fit_is_named(constant, space, observation, sentence):
    findings = look(lambda: constant(space, observation, spaces.Discrete(2)))
    (text,) = [text for text in said(findings, "error") + said(findings, "warning") if "not in its space" in text]
    assert sentence in text and text.startswith("the observation of reset() is not in its space: ")


PIXELS, TENTHS = spaces.Box(0, 255, (2,), np.uint8), spaces.Box(0.1, 1, (1,), np.float32)


@pytest.mark.parametrize(
    ("space", "observation", "sentence"),
    [
        (PIXELS, np.array([1, 300]), "it is 300 at [1], and the space goes from 0 to 255: widen it, or clip"),
        (PIXELS, np.array([1, 255]), "it is int64[2], and the space says uint8[2]: return it with .astype(np.uint8)"),
        (TENTHS, np.array([0.1]), "it is float64[1], and the space says float32[1]: return it with .astype(np.float32"),
        (TENTHS, np.array([1e30]), "it is 1e+30 at [0], and the space goes from "),
        (PIXELS, np.array(["a", "b"]), "it is <U1[2], and the space says uint8[2]: return it with .astype(np.uint8)"),
    ],
)
def test_a_cast_is_advised_only_where_it_keeps_the_number(constant, space, observation, sentence):
    findings = look(lambda: constant(space, observation, spaces.Discrete(2)))
    (text,) = [text for text in said(findings, "error") + said(findings, "warning") if "not in its space" in text]
    assert text.startswith(f"the observation of reset() is not in its space: {sentence}")


@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_a_space_that_was_forgotten_is_an_error(constant, name):
    def build():
        env = constant(spaces.Discrete(3), 0, spaces.Discrete(2))
        delattr(env, name)
        return env

    (error,) = said(look(build), "error")
    assert error.startswith(f"the environment has no {name}: set it to one of gymnasium.spaces")


def test_a_space_that_raises_is_an_error(constant):
    class Broken(spaces.Discrete):
        def sample(self, mask=None, probability=None):
            raise LookupError("no such action")

    (error,) = said(look(lambda: constant(spaces.Discrete(3), 0, Broken(2))), "error")
    assert error == "it raised LookupError: no such action"


def test_an_action_without_bounds_is_warned_of(constant):
    boundless = spaces.Box(-np.inf, 1, (2,), np.float32)
    warnings = said(look(lambda: constant(spaces.Discrete(3), 0, boundless)), "warning")
    assert warnings[0].startswith("the action has an infinite bound, and the agents that come with aioseed need finite")


@pytest.mark.parametrize(
    ("space", "observation", "kind"),
    [
        (spaces.Box(0, 255, (3,), np.uint8), [1, 2, 3], "observation has the dtype int64, the space says uint8"),
        (
            spaces.Dict(n=spaces.Box(0, 9, (), np.uint16)),
            {"n": 1},
            "observation.n has the dtype int64, the space says uint16",
        ),
    ],
)
def test_a_list_that_a_run_would_refuse_is_an_error(constant, group, space, observation, kind):
    build = lambda: constant(space, observation, spaces.Discrete(2))  # noqa: E731
    (error,) = said(look(build), "error")
    assert error == f"the observation of reset() cannot be sent: {kind}: return a NumPy array of that dtype"
    with pytest.raises(EnvironmentFailed, match=kind):
        group(PlainEnvironment(build, 1, "x", GymnasiumOptions())).reset()


def test_a_list_that_a_run_takes_is_none(constant):
    findings = look(lambda: constant(spaces.Box(0, 9, (3,), np.float32), [1, 2.5, 3], spaces.Discrete(2)))
    assert said(findings, "error") == []


@pytest.mark.parametrize(
    ("space", "observation", "sentence"),
    [
        (
            spaces.Dict(n=spaces.Box(0, 2**40, (1,), np.int64)),
            {"n": np.zeros(1, np.int64)},
            "observation.n may go from 0 to 1099511627776 and travels as int32, in which numbers outside",
        ),
        (
            spaces.Box(0, 2**32, (), np.uint64),
            np.uint64(0),
            "observation may go from 0 to 4294967296 and travels as uint32",
        ),
        (spaces.Box(0, 2**31 - 1, (1,), np.int64), np.zeros(1, np.int64), None),
    ],
)
def test_integers_that_would_wrap_are_warned_of(constant, space, observation, sentence):
    warnings = said(look(lambda: constant(space, observation, spaces.Discrete(2))), "warning")
    found = [warning for warning in warnings if "wrap" in warning]
    assert [warning.startswith(sentence) for warning in found] == ([] if sentence is None else [True])


def test_an_environment_that_ignores_its_seed_is_warned_of(ladder):
    class Unseeded(ladder):
        def _observe(self, action):
            return np.random.default_rng().random(3, np.float32)

    assert said(look(Unseeded), "warning") == [
        "two resets with the same seed differ: pass the seed on with super().reset(seed=seed)",
        "two episodes with the same seed and actions differ from step 1 on: runs will not repeat",
    ]


def test_an_environment_that_writes_over_its_last_observation_is_judged_by_what_it_observed(ladder):
    class Reusing(ladder):
        def __init__(self):
            super().__init__()
            self.place = np.zeros(3, np.float32)

        def _observe(self, action):
            self.place[:] = super()._observe(action)
            return self.place

    class Unseeded(Reusing):
        def _observe(self, action):
            self.place[:] = np.random.default_rng().random(3, np.float32)
            return self.place

    assert [text for text in said(look(Reusing), "note") if "every episode begins alike" in text] == []
    assert said(look(Unseeded), "warning")[0].startswith("two resets with the same seed differ")


@pytest.mark.parametrize("method", ["reset", "step"])
def test_a_coroutine_is_told_how_to_become_a_method(ladder, method):
    async def never(self, *args, **kwargs): ...

    findings = look(changed(ladder, **{method: never}))
    assert said(findings, "error") == [
        f"{method}() is a coroutine, which nobody awaits: define it with def instead of async def"
    ]


def test_the_environment_is_tried_in_a_thread_as_in_a_run():
    findings = plugin.check(f"{__name__}:OfTheMainThread", {})
    assert said(findings, "error") == ["step() raised RuntimeError: another thread"]


class OfTheMainThread(gymnasium.Env):
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("another thread")
        return np.zeros(1, np.float32), 0.0, True, False, {}


@pytest.mark.parametrize("shares_from", [0, 1])
def test_shared_observations_are_warned_of(ladder, shares_from):
    shared = np.zeros(3, np.float32)
    warnings = said(look(lambda: ladder(faults=lambda env, step: shared if step >= shares_from else None)), "warning")
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
    assert error == "step() raised ZeroDivisionError: division by zero"
    assert [env.closed for env in built] == [1, 1]


def test_a_close_that_raises_is_warned_of(ladder):
    def close(self):
        raise RuntimeError("stuck")

    assert said(look(changed(ladder, close=close)), "warning") == ["close() raised RuntimeError: stuck"] * 2
