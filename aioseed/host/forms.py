"""Whether what an agent's author wrote has the forms that the runtime relies on; asked while it is built and compiled.

Neither costs a run anything. What only numbers show, `aioseed.testing.agent_kit` tries.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from aioseed.agents.agent import ActOutput, Agent, PyTree
from aioseed.errors import PluginError
from aioseed.specs import ArraySpec


def checked_agent(built: object, name: str) -> Agent:
    """Return what the agent `name` was built to, if it is an Agent whose state and extras can be stored.

    Raises:
        PluginError: It is not.
    """
    if not isinstance(built, Agent):
        raise _wrong(f"{name} was built to a {type(built).__name__} instead of an Agent")
    if built.overlap_steps < 0:
        raise _wrong(f"{name} has overlap_steps {built.overlap_steps}, which must be 0 or more")
    for leaf in jax.tree.leaves(built.initial_state()):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise _wrong(
                f"{name} has a {type(leaf).__name__} in its initial_state(), where every leaf must be an array"
            )
    for leaf in extras_of(built):
        if not isinstance(leaf, ArraySpec):
            raise _wrong(f"{name} has a {type(leaf).__name__} in its extras(), where every leaf must be an ArraySpec")
    return built


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


def _compare(what: str, given: Sequence[jax.Array], wanted: Sequence[ArraySpec]) -> None:
    if len(given) != len(wanted):
        raise _wrong(f"act returned {len(given)} arrays for {what}, where {len(wanted)} are needed")
    for leaf, spec in zip(given, wanted, strict=True):
        if leaf.shape[1:] != spec.shape or np.dtype(leaf.dtype).name != spec.dtype:
            form, announced = ", ".join(["B", *map(str, leaf.shape[1:])]), ", ".join(["B", *map(str, spec.shape)])
            raise _wrong(f"{what} that act returned is {leaf.dtype}[{form}], and {spec.dtype}[{announced}] is needed")


def _wrong(words: str) -> PluginError:
    return PluginError(
        f"the agent cannot be used: {words} (aioseed.testing.agent_kit tries it out)", group="aioseed.agents"
    )
