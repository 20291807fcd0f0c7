"""Look at one Gymnasium environment and say in plain sentences what would go wrong with it, before a run does."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from gymnasium import spaces

from aioseed.errors import AioseedError, EnvironmentFailed
from aioseed.lookup import sentence_of
from aioseed.specs import ActionSpec, ArraySpec, check_servable
from aioseed_gymnasium.adapter import Env
from aioseed_gymnasium.options import GymnasiumOptions
from aioseed_gymnasium.rows import fault_in, share_memory
from aioseed_gymnasium.spaces import Leaf, Space, read_action_space, read_observation_space

MAX_STEPS = 2_000
"""Steps that a check takes in an environment."""

MOST_S = 10.0
"""Longest time in seconds that a check goes on stepping."""

_MOST = float(np.finfo(np.float32).max)  # rewards travel as float32

Level: TypeAlias = Literal["error", "warning", "note"]


class Finding(NamedTuple):
    """Say one thing about an environment; with an ``error`` it cannot be used."""

    level: Level
    text: str


Say: TypeAlias = Callable[[Level, str], None]


class _Look(NamedTuple):
    """Hold what is known of an environment, and where to say what is found."""

    leaves: Sequence[Leaf]
    say: Say
    doubt: Callable[[str], None]
    """Warns of an observation that is not in its space, once: one that is not, often many are not."""


class _Stop(Exception):
    """End a check: nothing that follows would make sense."""


def findings_of(build: Callable[[], Env], options: GymnasiumOptions) -> list[Finding]:
    """Return what there is to say about the environments that `build` makes; no errors means that it can be used."""
    findings: list[Finding] = []
    envs: list[Env] = []

    def say(level: Level, text: str) -> None:
        findings.append(Finding(level, text))

    def doubt(text: str) -> None:
        if all(finding.level != "warning" or _DOUBT not in finding.text for finding in findings):
            say("warning", text)

    try:
        with naming("making the environment"):
            envs.append(build())
        leaves = _check_spaces(envs[0], options, say)
        second = _make_second(build, envs, say)
        look = _Look(leaves, say, doubt)
        first = _reset(envs[0], look)
        if second is not None:
            _reset(second, look)
        _check_resets(envs[0], first, say)
        _check_episode(envs[0], look)
        if second is not None:
            _check_repeatable(envs[0], second, say)
    except _Stop:
        pass
    except AioseedError as error:
        say("error", str(error))
    except Exception as error:  # in its spaces, or where two of its observations are compared
        say("error", f"it raised {sentence_of(error)}")
    for env in envs:
        try:
            env.close()
        except Exception as error:
            say("warning", f"close() raised {sentence_of(error)}")
    return findings


@contextmanager
def naming(call: str) -> Iterator[None]:
    """Tell in which call of ours the author's code failed."""
    try:
        yield
    except (AioseedError, _Stop):
        raise
    except SystemExit as error:
        raise EnvironmentFailed(
            f"{call} ended the process (sys.exit({error.code!r})): raise an error instead"
        ) from error
    except Exception as error:
        raise EnvironmentFailed(f"{call} raised {sentence_of(error)}") from error


def _make_second(build: Callable[[], Env], envs: list[Env], say: Say) -> Env | None:
    """Make another environment beside the first and keep it in `envs`; emulators there are that refuse."""
    try:
        envs.append(build())
    except Exception as error:
        said = str(error) if isinstance(error, AioseedError) else sentence_of(error)
        say(
            "warning",
            f"a process can hold one of these environments alone, for making another beside it failed ({said}): set "
            "actor.groups=1 and actor.envs_per_group=1, and have as many actor.processes as environments",
        )
        return None
    return envs[-1]


def _check_spaces(env: Env, options: GymnasiumOptions, say: Say) -> Sequence[Leaf]:
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), spaces.Space):
            say(
                "error",
                f"the environment has no {name}: set it to one of gymnasium.spaces, in __init__ or in the class",
            )
            raise _Stop
    return tell_spaces(env.observation_space, env.action_space, options, say)


def tell_spaces(observation_space: Space, action_space: Space, options: GymnasiumOptions, say: Say) -> Sequence[Leaf]:
    """Say what travels and what about it is doubtful, and return the leaves of an observation.

    Raises:
        SpaceError: A space cannot be sent.
    """
    observation, leaves = read_observation_space(observation_space, options.dtype_sent)
    action = read_action_space(action_space)
    check_servable(observation, action)
    for leaf in leaves:
        say("note", f"{leaf.name} travels as {_described(leaf.array)}")
    sizes = f" with {', '.join(str(size) for size in action.sizes)} choices" if action.sizes else ""
    say("note", f"the action is {action.kind}{sizes}, {_described(action.array)}")
    for leaf in leaves:
        _check_range(observation_space, leaf, say)
    if not _is_bounded(action):
        say(
            "warning",
            "the action has an infinite bound, and the agents that come with aioseed need finite ones: give the Box "
            "the range that makes sense",
        )
    return leaves


def _check_range(space: Space, leaf: Leaf, say: Say) -> None:
    """Warn of integers that do not fit the dtype in which they travel: they would wrap, and nothing would say so."""
    part = space
    for key in leaf.keys:
        part = cast("Mapping[str | int, Space]", part)[key]
    if not isinstance(part, spaces.Box) or part.dtype.kind not in "iu":
        return
    low, high, sent = int(part.low.min()), int(part.high.max()), np.iinfo(leaf.array.dtype)
    if low < sent.min or high > sent.max:
        say(
            "warning",
            f"{leaf.name} may go from {low} to {high} and travels as {sent.dtype}, in which numbers outside of "
            f"{sent.min} to {sent.max} wrap: give the Box the range that it has, or observe such numbers as floats",
        )


def _is_bounded(action: ActionSpec) -> bool:
    return bool(np.isfinite([*action.low, *action.high]).all())


def _described(array: ArraySpec) -> str:
    return f"{array.dtype}{list(array.shape)}, {array.row_bytes} bytes"


def _reset(env: Env, look: _Look) -> object:
    say = look.say
    with naming("reset()"):
        try:
            result: object = env.reset(seed=1)
        except TypeError as error:
            if "keyword argument" not in str(error):
                raise
            say("error", f"reset() must take seed and options: def reset(self, *, seed=None, options=None) ({error})")
            raise _Stop from error
    _refuse_coroutine(result, "reset()", say)
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
        say("error", "reset() must return (observation, info); the older Gym returned only the observation")
        raise _Stop
    _check_observation(env, look, result[0], "reset()")
    return result[0]


def _refuse_coroutine(result: object, call: str, say: Say) -> None:
    if inspect.iscoroutine(result):
        result.close()
        say("error", f"{call} is a coroutine, which nobody awaits: define it with def instead of async def")
        raise _Stop


def _check_resets(env: Env, first: object, say: Say) -> None:
    with naming("a second reset()"):
        # Copies: an environment may write its next observation over the one before.
        first, again = deepcopy(first), deepcopy(env.reset(seed=1)[0])
        other, _ = env.reset(seed=2)
    if not _same(first, again):
        say("warning", "two resets with the same seed differ: pass the seed on with super().reset(seed=seed)")
    if _same(first, other):
        say("note", "resets with two seeds are equal: every episode begins alike")


def _check_episode(env: Env, look: _Look) -> None:
    say = look.say
    env.action_space.seed(1)
    env.reset(seed=1)
    began = time.perf_counter()
    steps, ended, taken_s = 0, False, 0.0
    while not ended and steps < MAX_STEPS and (taken_s < MOST_S or not steps):
        steps += 1
        action = env.action_space.sample()
        with naming("step()"):
            result: object = env.step(action)
        _refuse_coroutine(result, "step()", say)
        if not isinstance(result, tuple) or len(result) != 5:
            say(
                "error",
                "step() must return (observation, reward, terminated, truncated, info); older Gym returned four",
            )
            raise _Stop
        _check_step(env, look, result)
        ended = bool(result[2] or result[3])
        taken_s = time.perf_counter() - began
    tell_length(steps, ended, taken_s, say)
    so_far = "" if ended else " so far"
    took = f"about {taken_s / steps * 1e6:.1f} microseconds"
    say("note", f"the first episode has {steps} steps{so_far} of {took}, checks included")


def tell_length(steps: int, ended: bool, taken_s: float, say: Say) -> None:
    """Say where no episode ended, and why nobody waited for its end."""
    if ended:
        return
    if steps < MAX_STEPS:
        say("note", f"an episode was left after {steps} steps, since they took {taken_s:.0f} seconds")
    else:
        say("warning", f"no episode ended within {MAX_STEPS} steps: set environment.options.max_episode_steps")


def _check_step(env: Env, look: _Look, result: tuple[object, ...]) -> None:
    say = look.say
    observation, reward, terminated, truncated, info = result
    _check_observation(env, look, observation, "step()")
    if np.ndim(reward) or not hasattr(reward, "__float__"):  # type: ignore[arg-type]
        say("error", f"the reward is {reward!r}, and it must be one number: return float(reward)")
        raise _Stop
    if not abs(float(reward)) <= _MOST:
        say("error", f"the reward is {reward}, and it must be finite: look for a division by zero, or clip it")
        raise _Stop
    wrong = [flag for flag in (terminated, truncated) if not _is_flag(flag)]
    if wrong:
        say("error", f"terminated and truncated must be True or False, one is {wrong[0]!r}: return bool(...)")
        raise _Stop
    if not isinstance(info, dict):
        say("error", f"info must be a dict, it is a {type(info).__name__}: return {{}} where there is nothing to say")
        raise _Stop


def _is_flag(value: object) -> bool:
    """Say whether a value is true or false, as a number or an array of no dimensions may be, too."""
    flag = np.asarray(value)
    return flag.ndim == 0 and flag.dtype.kind in "biuf" and flag.item() in (0, 1)


def _check_observation(env: Env, look: _Look, observation: object, source: str) -> None:
    space, say = env.observation_space, look.say
    if not all(np.isfinite(leaf).all() for leaf in _arrays(observation) if leaf.dtype.kind == "f"):
        say("error", f"the observation of {source} holds a number that is not finite: look for a division by zero")
        raise _Stop
    misfit = "" if _contains(space, observation) else _misfit(space, observation, "it")
    said = f"the observation of {source} {_DOUBT} {misfit}"
    fault = fault_in(look.leaves, observation)
    if fault:
        cast_it = f"the observation of {source} cannot be sent: {fault}: return a NumPy array of that dtype"
        say("error", said if misfit else cast_it)
        raise _Stop
    if not _is_finite_as_sent(look.leaves, observation):
        say("error", f"the observation of {source} holds a number that is infinite as it travels: scale or clip it")
        raise _Stop
    if misfit:
        look.doubt(f"{said}; a run sends it all the same")


def _is_finite_as_sent(leaves: Sequence[Leaf], observation: object) -> bool:
    for leaf in leaves:
        value = observation
        for key in leaf.keys:
            value = cast("Mapping[str | int, object]", value)[key]
        with np.errstate(over="ignore"):
            if not np.isfinite(np.asarray(value).astype(leaf.array.numpy_dtype)).all():
                return False
    return True


_DOUBT = "is not in its space:"


def _contains(space: spaces.Space[Any], observation: object) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a list is cast; whether a run can is asked apart
        return bool(space.contains(observation))


def _misfit(space: spaces.Space[Any], observation: object, name: str) -> str:
    """Return why an observation is not in its space and what to change, in half a sentence.

    It is empty where a number lies outside by no more than what is rounded as it travels.
    """
    if isinstance(space, spaces.Dict):
        return _misfit_of_parts(dict(space.spaces), observation, name, dict)
    if isinstance(space, spaces.Tuple):
        return _misfit_of_parts(dict(enumerate(space.spaces)), observation, name, tuple)
    given = np.asarray(observation)
    wanted = f"{space.dtype}{list(space.shape or ())}"
    said = f"{name} is {given.dtype}{list(given.shape)}"
    if given.shape != tuple(space.shape or ()):
        return f"{said}, and the space says {wanted}: return that shape, or change the space"
    if isinstance(space, spaces.Box) and given.dtype.kind in "biuf":
        # Before the dtype: to cast an integer that is outside would make it another one.
        outside = _outside(space, given)
        if len(outside):
            place = tuple(outside[0].tolist())
            low, high = space.low[place], space.high[place]
            where = "" if not place else f" at {list(place)}"
            return f"{name} is {given[place]}{where}, and the space goes from {low} to {high}: widen it, or clip"
    if not np.can_cast(given.dtype, np.dtype(space.dtype)):
        return f"{said}, and the space says {wanted}: return it with .astype(np.{np.dtype(space.dtype).name})"
    if isinstance(space, spaces.Box) and given.dtype.kind in "biuf":
        return ""
    return f"{name} is {str(given)[:80]}, and the space is {space}: return an element of it, or change the space"


def _outside(space: spaces.Box, given: np.ndarray) -> np.ndarray:
    """Return the places of numbers beyond the bounds; of floats, once they are rounded as they travel."""
    if space.dtype.kind != "f":
        return np.argwhere((given < space.low) | (given > space.high))
    rounded = np.dtype(np.float32) if space.dtype.itemsize > 4 else space.dtype
    with np.errstate(over="ignore"):
        near, low, high = (number.astype(rounded) for number in (given, space.low, space.high))
    return np.argwhere((near < low) | (near > high))


def _misfit_of_parts(parts: Mapping[Any, spaces.Space[Any]], observation: object, name: str, kind: type) -> str:
    if not isinstance(observation, kind):
        return f"{name} is a {type(observation).__name__}, and the space says {kind.__name__}: return one"
    given: Mapping[Any, Any] = (
        observation if isinstance(observation, dict) else dict(enumerate(cast("Any", observation)))
    )
    if set(parts) != set(given):
        return f"{name} has the parts {list(given)}, and the space has {list(parts)}: return the same parts"
    wrong = (key for key, part in parts.items() if not _contains(part, given[key]))
    return next(filter(None, (_misfit(parts[key], given[key], f'its part "{key}"') for key in wrong)), "")


def _check_repeatable(first: Env, second: Env, say: Say) -> None:
    first.action_space.seed(3)
    with naming("reset()"):
        (one, _), (other, _) = first.reset(seed=3), second.reset(seed=3)
    shared = share_memory([one, other])
    began = time.perf_counter()
    for step in range(1, 101):
        action = first.action_space.sample()
        with naming("step()"):
            one, reward, terminated, truncated, _ = first.step(action)
            other, other_reward, *_ = second.step(action)
        shared = shared or share_memory([one, other])
        if not _same(one, other) or reward != other_reward:
            text = f"two episodes with the same seed and actions differ from step {step} on: runs will not repeat"
            say("warning", text)
            break
        if terminated or truncated or time.perf_counter() - began > MOST_S:
            break
    if shared:
        say("warning", "two environments return one and the same array: each should own its observations")


def _arrays(observation: object) -> list[np.ndarray]:
    if isinstance(observation, dict):
        return [leaf for key in sorted(observation) for leaf in _arrays(observation[key])]
    if isinstance(observation, tuple):
        return [leaf for branch in observation for leaf in _arrays(branch)]
    return [np.asarray(observation)]


def _same(one: object, other: object) -> bool:
    pairs = zip(_arrays(one), _arrays(other), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)
