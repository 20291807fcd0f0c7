"""Look at one own vector environment and say in plain sentences what would go wrong with it, before a run does.

It is driven by the adapter that drives it in a run, so that both refuse the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from aioseed.errors import AioseedError
from aioseed.lookup import sentence_of
from aioseed.specs import spec_leaves, zeros
from aioseed.types import FIRST, StepColumns
from aioseed_gymnasium.check import MAX_STEPS, MOST_S, Finding, Level, Say, naming, tell_length, tell_spaces
from aioseed_gymnasium.options import GymnasiumOptions
from aioseed_gymnasium.vector import VectorEnv, VectorEnvironment

COUNT = 2
"""Environments in each vector environment that a check makes."""


def vector_findings_of(build: Callable[[], VectorEnv], name: str, options: GymnasiumOptions) -> list[Finding]:
    """Return what there is to say about the vector environments of `COUNT` that `build` makes; see `findings_of`."""
    findings: list[Finding] = []
    driven: list[_Driven] = []

    def say(level: Level, text: str) -> None:
        findings.append(Finding(level, text))

    once = options.model_copy(update={"max_rebuilds": 0})
    try:
        with naming("making the environment"):
            driven.extend(_Driven(build(), name, once) for _ in range(2))
        raw = driven[0].raw
        tell_spaces(raw.single_observation_space, raw.single_action_space, options, say)
        _check_steps(driven[0], driven[1], say)
    except AioseedError as error:
        say("error", str(error))
    except Exception as error:  # in its spaces
        say("error", f"it raised {sentence_of(error)}")
    for each in driven:
        each.env.close()
    return findings


class _Driven:
    """Hold a vector environment, its adapter and the columns that it writes."""

    def __init__(self, raw: VectorEnv, name: str, options: GymnasiumOptions) -> None:
        self.raw = raw
        self.env = VectorEnvironment(lambda: raw, COUNT, name, options)
        self.columns = StepColumns(
            slot=np.zeros(COUNT, np.uint32),
            epoch=np.zeros(COUNT, np.uint64),
            sequence=np.zeros(COUNT, np.uint32),
            flags=np.zeros(COUNT, np.uint8),
            reward=np.zeros(COUNT, np.float32),
            metrics=np.zeros((COUNT, 0), np.float32),
            observation=tuple(zeros(leaf, (COUNT,)) for leaf in spec_leaves(self.env.spec.observation)),
        )

    def reset(self) -> None:
        with naming("reset()"):
            self.env.reset(np.arange(COUNT), range(1, COUNT + 1), self.columns)

    def step(self, actions: np.ndarray) -> None:
        with naming("step()"):
            self.env.step(actions, self.columns)

    def shows_what(self, other: _Driven) -> bool:
        """Say whether both wrote the same."""
        return all(
            np.array_equal(mine, theirs)
            for mine, theirs in (
                (self.columns.flags, other.columns.flags),
                (self.columns.reward, other.columns.reward),
                *zip(self.columns.observation, other.columns.observation, strict=True),
            )
        )


def _check_steps(one: _Driven, other: _Driven, say: Say) -> None:
    """Step both with the same actions until an episode has ended and the next has begun."""
    one.reset()
    other.reset()
    one.raw.single_action_space.seed(1)
    rng = np.random.default_rng(1)
    differ_at = None if one.shows_what(other) else "the reset"
    steps, taken_s, begun = 0, 0.0, False
    while not begun and steps < MAX_STEPS and (taken_s < MOST_S or not steps):
        steps += 1
        actions = _actions(one, rng)
        began_s = time.perf_counter()
        one.step(actions)
        taken_s += time.perf_counter() - began_s
        other.step(actions)
        begun = bool((one.columns.flags & FIRST).any())
        if differ_at is None and not one.shows_what(other):
            differ_at = f"step {steps}"
    if differ_at is not None:
        say("warning", f"two runs with the same seeds and actions differ from {differ_at} on: runs will not repeat")
    tell_length(steps, begun, taken_s, say)
    say("note", f"a step of {COUNT} environments takes about {taken_s / steps * 1e6:.1f} microseconds")


def _actions(driven: _Driven, rng: np.random.Generator) -> np.ndarray:
    """Return legal actions as they travel: choices count from 0."""
    spec = driven.env.spec.action
    if spec.kind == "box":
        drawn = np.array([driven.raw.single_action_space.sample() for _ in range(COUNT)])
    else:
        drawn = rng.integers(0, spec.sizes, (COUNT, len(spec.sizes)))
    return drawn.reshape((COUNT, *spec.array.shape)).astype(spec.array.numpy_dtype)
