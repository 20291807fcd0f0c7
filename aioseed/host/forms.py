"""Whether what an agent's author wrote has the forms that the runtime relies on; asked while it is built and compiled.

Neither costs a run anything. What only numbers show, `aioseed.testing.agent_kit` tries.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.agents.agent import ActOutput, Agent, LearnerState, LossOutput, PyTree, Unroll
from aioseed.errors import AioseedError, PluginError
from aioseed.lookup import LEARNER_PACKAGES, sentence_of
from aioseed.specs import ArraySpec
from aioseed.training.device import is_out_of_memory

Given = ParamSpec("Given")
Result = TypeVar("Result")

_NOT_THE_AUTHORS = LEARNER_PACKAGES | sys.stdlib_module_names | {"numpy", "aioseed"}


def checked_agent(built: object, name: str) -> Agent:
    """Return what the agent `name` was built to, `guarded`, if it is an Agent whose state and extras can be stored.

    Raises:
        PluginError: It is not.
    """
    if not isinstance(built, Agent):
        raise _wrong(f"{name} was built to a {type(built).__name__} instead of an Agent")
    if not isinstance(built.overlap_steps, int) or built.overlap_steps < 0:
        raise _wrong(f"{name} has overlap_steps {built.overlap_steps!r}, which must be a whole number, 0 or more")
    built = guarded(built, name)
    _check_arrays(built.initial_state(), f"initial_state() of {name}")
    for leaf in extras_of(built):
        if not isinstance(leaf, ArraySpec):
            raise _wrong(f"{name} has a {type(leaf).__name__} in its extras(), where every leaf must be an ArraySpec")
    return built


def guarded(agent: Agent, name: str) -> Agent:
    """Return `agent` with functions that raise PluginError where they raised anything else, which is chained to it.

    And where what training calls returned another form than it must. It is seen while they are traced: programs that
    are compiled have nothing of it.
    """

    def init(key: jax.Array) -> LearnerState:
        return _checked_init(told_init(key))

    def published(state: LearnerState) -> PyTree:
        return _checked_published(told_published(state))

    def loss(params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> LossOutput:
        return _checked_loss(told_loss(params, extra, unroll, keys), unroll)

    def after_update(state: LearnerState, step: jax.Array) -> LearnerState:
        return _checked_state(told_after_update(state, step), state, "after_update")

    def observe(state: LearnerState, unroll: Unroll) -> LearnerState:
        return _checked_state(told_observe(state, unroll), state, "observe")

    told_init = telling(agent.init, f"init of {name}")
    told_published = telling(agent.published, f"published of {name}")
    told_loss = telling(agent.loss, f"loss of {name}")
    told_after_update = telling(agent.after_update, f"after_update of {name}")
    told_observe = telling(agent.observe, f"observe of {name}")
    return agent._replace(
        init=init,
        initial_state=telling(agent.initial_state, f"initial_state of {name}"),
        act=telling(agent.act, f"act of {name}"),
        loss=loss,
        after_update=after_update,
        extras=telling(agent.extras, f"extras of {name}"),
        priorities=None if agent.priorities is None else _guarded_priorities(agent.priorities, name),
        published=published,
        observe=observe,
    )


def telling(function: Callable[Given, Result], what: str) -> Callable[Given, Result]:
    """Return `function`, which raises PluginError in the place of what is no error of ours, with the line of it.

    That memory ran out goes on as it is.
    """

    @wraps(function)  # compiled programs are called by its name
    def told(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except AioseedError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise  # no mistake of its author's: whoever builds says what needs less
            raise _wrong(f"{what} raised {sentence_of(error).rstrip('.')}{_place_of(error)}") from error

    return told


def _place_of(error: Exception) -> str:
    """Say which line of its author's raised it, where one did: the innermost that is in no library."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NOT_THE_AUTHORS:
            return f", in line {line} of {frame.f_code.co_filename}"
    return ""


def _checked_init(state: object) -> LearnerState:
    if not isinstance(state, LearnerState):
        raise _wrong(f"init must return a LearnerState, not a {type(state).__name__}")
    _check_arrays(state, "the state that init returned")
    return state


def _checked_published(tree: PyTree) -> PyTree:
    _check_arrays(tree, "what published returned")
    return tree


def _guarded_priorities(priorities: Callable[[Unroll], jax.Array], name: str) -> Callable[[Unroll], jax.Array]:
    told = telling(priorities, f"priorities of {name}")

    def checked(unroll: Unroll) -> jax.Array:
        found, unrolls = told(unroll), unroll.reward.shape[1]
        if not _is_array(found) or found.shape != (unrolls,):
            raise _wrong(f"priorities returned {_form(found)}, and float32[{unrolls}] is needed: one number an unroll")
        return found

    return checked


def _check_arrays(tree: PyTree, what: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not _is_array(leaf):
            at = jax.tree_util.keystr(path)
            raise _wrong(f"{what} has a {type(leaf).__name__}{at and f' at {at}'}, where every leaf must be an array")


def _is_array(value: object) -> TypeGuard[jax.Array | np.ndarray | np.generic]:
    return isinstance(value, jax.Array | np.ndarray | np.generic)


def _checked_loss(output: object, unroll: Unroll) -> LossOutput:
    if not isinstance(output, LossOutput):
        raise _wrong("loss must return a LossOutput")
    if jnp.shape(output.total) or not jnp.issubdtype(jnp.result_type(output.total), jnp.floating):
        raise _wrong(f"the total that loss returned is {_form(output.total)}, and float32[] is needed: the sum")
    if not isinstance(output.metrics, dict):
        raise _wrong(f"the metrics that loss returned are a {type(output.metrics).__name__}, and a dict is needed")
    sums = {"the count": output.count, **{f"metrics[{key!r}]": value for key, value in output.metrics.items()}}
    for what, value in sums.items():
        if not _is_array(value) or value.shape:
            raise _wrong(f"{what} that loss returned is {_form(value)}, and float32[] is needed: the sum")
    unrolls = unroll.reward.shape[1]
    for leaf in jax.tree.leaves(output.aux):
        if jnp.shape(leaf)[:1] != (unrolls,):
            raise _wrong(f"aux that loss returned has {_form(leaf)}, and every leaf needs one entry an unroll first")
    return output


def _checked_state(after: object, before: LearnerState, part: str) -> LearnerState:
    """Return the state that `part` returned, if it can take the place of the one it was given."""
    if not isinstance(after, LearnerState):
        raise _wrong(f"{part} must return a LearnerState")
    if str(jax.tree.structure(after)) != str(jax.tree.structure(before)):
        raise _wrong(f"the LearnerState that {part} returned has other leaves than the one it was given")
    for (path, new), old in zip(jax.tree_util.tree_leaves_with_path(after), jax.tree.leaves(before), strict=True):
        if _form(new) != _form(old):
            where = jax.tree_util.keystr(path)
            raise _wrong(f"state{where} that {part} returned is {_form(new)}, and {_form(old)} is needed")
    return after


def _form(value: object) -> str:
    """Return dtype and shape of an array, else the type."""
    if not _is_array(value):
        return f"a {type(value).__name__}"
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"


def extras_of(agent: Agent) -> Sequence[ArraySpec]:
    """Return the specs of the extras, in the order of the leaves."""
    return jax.tree.leaves(agent.extras(), is_leaf=lambda leaf: isinstance(leaf, ArraySpec))


def state_of(agent: Agent) -> Sequence[ArraySpec]:
    """Return the specs of the recurrent state, in the order of the leaves."""
    leaves = jax.tree.leaves(agent.initial_state())
    return [ArraySpec(np.dtype(leaf.dtype).name, tuple(leaf.shape)) for leaf in leaves]


def checked_answer(agent: Agent, action: ArraySpec, answer: object) -> tuple[ActOutput, PyTree]:
    """Return what `act` answered, if its arrays are what the specs say: they are stored as bytes of those.

    Raises:
        PluginError: They are not.
    """
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], ActOutput):
        raise _wrong("act must return (ActOutput, state after the rows)")
    out, after = answer
    _compare("the action", [out.action], [action])
    _compare("the extras", jax.tree.leaves(out.extras), extras_of(agent))
    _compare("the state", jax.tree.leaves(after), state_of(agent))
    return out, after


def _compare(what: str, given: Sequence[object], wanted: Sequence[ArraySpec]) -> None:
    if len(given) != len(wanted):
        raise _wrong(f"act returned {len(given)} arrays for {what}, where {len(wanted)} are needed")
    for leaf, spec in zip(given, wanted, strict=True):
        if not _is_array(leaf):
            raise _wrong(f"{what} that act returned is {_form(leaf)}, and an array is needed")
        if leaf.shape[1:] != spec.shape or np.dtype(leaf.dtype).name != spec.dtype:
            form, announced = ", ".join(["B", *map(str, leaf.shape[1:])]), ", ".join(["B", *map(str, spec.shape)])
            raise _wrong(f"{what} that act returned is {leaf.dtype}[{form}], and {spec.dtype}[{announced}] is needed")


def _wrong(words: str) -> PluginError:
    return PluginError(
        f"the agent cannot be used: {words} (aioseed.testing.agent_kit tries it out)", group="aioseed.agents"
    )
