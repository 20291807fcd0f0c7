"""Look at one Gymnasium environment and say in plain sentences what would go wrong with it, before a run does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from aioseed.errors import AioseedError
from aioseed.lookup import sentence_of
from aioseed.specs import ArraySpec, check_servable
from aioseed_gymnasium.adapter import Env
from aioseed_gymnasium.options import GymnasiumOptions
from aioseed_gymnasium.rows import share_memory
from aioseed_gymnasium.spaces import read_action_space, read_observation_space

MAX_STEPS = 2_000
"""Steps that a check takes in an environment."""

Level: TypeAlias = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Say one thing about an environment; with an ``error`` it cannot be used."""

    level: Level
    text: str


class _Stop(Exception):
    """End a check: nothing that follows would make sense."""


def findings_of(build: Callable[[], Env], options: GymnasiumOptions) -> list[Finding]:
    """Return what there is to say about the environments that `build` makes; no errors means that it can be used."""
    findings: list[Finding] = []
    envs: list[Env] = []

    def say(level: Level, text: str) -> None:
        findings.append(Finding(level, text))

    try:
        envs.extend((build(), build()))
        _check_spaces(envs[0], options, say)
        first, second = (_reset(env, say) for env in envs)
        _check_resets(envs[0], first, second, say)
        _check_episode(envs[0], say)
        _check_repeatable(envs[0], envs[1], say)
    except _Stop:
        pass
    except AioseedError as error:
        say("error", str(error))
    except Exception as error:
        say("error", f"it raised {sentence_of(error)}")
    for env in envs:
        try:
            env.close()
        except Exception as error:
            say("warning", f"close() raised {sentence_of(error)}")
    return findings


_Say: TypeAlias = Callable[[Level, str], None]


def _check_spaces(env: Env, options: GymnasiumOptions, say: _Say) -> None:
    observation, leaves = read_observation_space(env.observation_space, options.dtype_sent)
    action = read_action_space(env.action_space)
    check_servable(observation, action)
    for leaf in leaves:
        say("note", f"{leaf.name} travels as {_described(leaf.array)}")
    sizes = f" with {', '.join(str(size) for size in action.sizes)} choices" if action.sizes else ""
    say("note", f"the action is {action.kind}{sizes}, {_described(action.array)}")


def _described(array: ArraySpec) -> str:
    return f"{array.dtype}{list(array.shape)}, {array.row_bytes} bytes"


def _reset(env: Env, say: _Say) -> object:
    result: object = env.reset(seed=1)
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
        say("error", "reset() must return (observation, info); the older Gym returned only the observation")
        raise _Stop
    _check_observation(env, result[0], "reset()", say)
    return result[0]


def _check_resets(env: Env, first: object, second: object, say: _Say) -> None:
    if share_memory([first, second]):
        say("warning", "two environments return one and the same array: each should own its observations")
    again, _ = env.reset(seed=1)
    if not _same(first, again):
        say("warning", "two resets with the same seed differ: pass the seed on with super().reset(seed=seed)")
    other, _ = env.reset(seed=2)
    if _same(first, other):
        say("note", "resets with two seeds are equal: every episode begins alike")


def _check_episode(env: Env, say: _Say) -> None:
    env.action_space.seed(1)
    env.reset(seed=1)
    began = time.perf_counter()
    steps, ended = 0, False
    while not ended and steps < MAX_STEPS:
        steps += 1
        result: object = env.step(env.action_space.sample())
        if not isinstance(result, tuple) or len(result) != 5:
            say(
                "error",
                "step() must return (observation, reward, terminated, truncated, info); older Gym returned four",
            )
            raise _Stop
        _check_step(env, result, say)
        ended = bool(result[2] or result[3])
    if not ended:
        say("warning", f"no episode ended within {MAX_STEPS} steps: set environment.options.max_episode_steps")
    microseconds = (time.perf_counter() - began) / steps * 1e6
    say("note", f"the first episode has {steps} steps of about {microseconds:.1f} microseconds, checks included")


def _check_step(env: Env, result: tuple[object, ...], say: _Say) -> None:
    observation, reward, terminated, truncated, info = result
    _check_observation(env, observation, "step()", say)
    if np.ndim(reward) or not isinstance(reward, int | float | np.number):  # type: ignore[arg-type]
        say("error", f"the reward is {reward!r}, and it must be one number")
        raise _Stop
    if not np.isfinite(reward):
        say("error", f"the reward is {reward}, and it must be finite")
        raise _Stop
    wrong = [flag for flag in (terminated, truncated) if not isinstance(flag, bool | np.bool_)]
    if wrong:
        say("error", f"terminated and truncated must be True or False, one is {wrong[0]!r}")
        raise _Stop
    if not isinstance(info, dict):
        say("error", f"info must be a dict, it is a {type(info).__name__}")
        raise _Stop


def _check_observation(env: Env, observation: object, source: str, say: _Say) -> None:
    space = env.observation_space
    if not all(np.isfinite(leaf).all() for leaf in _arrays(observation) if leaf.dtype.kind == "f"):
        say("error", f"the observation of {source} holds a number that is not finite")
        raise _Stop
    if space.contains(observation):
        return
    given = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in _arrays(observation))
    say("error", f"the observation of {source} ({given}) is not in its space {space}")
    raise _Stop


def _check_repeatable(first: Env, second: Env, say: _Say) -> None:
    first.action_space.seed(3)
    (one, _), (other, _) = first.reset(seed=3), second.reset(seed=3)
    for step in range(1, 101):
        action = first.action_space.sample()
        one, reward, terminated, truncated, _ = first.step(action)
        other, other_reward, *_ = second.step(action)
        if not _same(one, other) or reward != other_reward:
            text = f"two episodes with the same seed and actions differ from step {step} on: runs will not repeat"
            say("warning", text)
            return
        if terminated or truncated:
            return


def _arrays(observation: object) -> list[np.ndarray]:
    if isinstance(observation, dict):
        return [leaf for key in sorted(observation) for leaf in _arrays(observation[key])]
    if isinstance(observation, tuple):
        return [leaf for branch in observation for leaf in _arrays(branch)]
    return [np.asarray(observation)]


def _same(one: object, other: object) -> bool:
    pairs = zip(_arrays(one), _arrays(other), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)
