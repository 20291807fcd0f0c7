"""The seam between agents and networks: what goes in, what comes out, and the four functions in between.

A *network factory* is named by an entry point of the group ``aioseed.nets`` and has the signature
``factory(observation, action, heads, **options) -> Network``. An agent says by `Heads` which outputs it wants; a
network knows nothing of the algorithm. Any module system will do: only the functions count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec, Tree, flatten, unflatten
from aioseed.types import FIRST

PyTree: TypeAlias = Any
"""Any tree of arrays. JAX has no type for it; what a tree holds is the business of the network that made it."""


class Head(NamedTuple):
    """Ask a network for one output."""

    size: int
    """Numbers a row."""
    scale: float = 1.0
    """Spread of the outputs at first, above 0. A small one (0.01) makes all actions about equally likely."""
    takes_action: bool = False
    """Whether the output is of an action too, as Q(x, a) is. The action never enters a recurrent state: what is asked
    about an action need not be what was done."""


Heads: TypeAlias = Mapping[str, Head]
"""Outputs by name, for example ``{"policy": Head(6, 0.01), "value": Head(1)}``."""


class NetworkInputs(NamedTuple):
    """Hold the rows that a network sees; ``[...]`` is ``[B]`` in `Network.step`, ``[T+1, B]`` in `Network.unroll`."""

    observation: Tree[jax.Array]  # leaves [..., *shape], as the observation spec says
    reward: jax.Array  # float32[...], scaled and clipped as the agent learns from it; 0 at a first row
    first: jax.Array  # bool[...]
    previous_action: jax.Array  # float32[..., A], `action_features`; all zero (none) at a first row
    action: jax.Array | None = None  # float32[..., A], `action_features`; given where a head takes the action


NetworkOutputs: TypeAlias = dict[str, jax.Array]
"""Output of each head by name, float32[..., size]."""


class Network(NamedTuple):
    """Bundle the pure functions of a network.

    Recurrent state obeys one rule: what enters a row is `initial_state` exactly where the row is first, else what the
    row before put out. `step` and `unroll` both apply it themselves, so that stepping through an unroll gives the same.
    """

    init: Callable[[jax.Array], PyTree]
    """key -> params, a tree of arrays only."""
    initial_state: Callable[[], PyTree]
    """() -> recurrent state of one slot, without batch axis; () for a network without memory."""
    step: Callable[[PyTree, PyTree, NetworkInputs], tuple[NetworkOutputs, PyTree]]
    """(params, state [B, ...], inputs [B, ...]) -> (outputs [B, size], state [B, ...])."""
    unroll: Callable[[PyTree, PyTree, NetworkInputs], tuple[NetworkOutputs, PyTree]]
    """(params, state [B, ...] that entered row 0, inputs [T+1, B, ...]) -> (outputs [T+1, B, size], last state)."""


NetworkFactory: TypeAlias = Callable[[ObservationSpec, ActionSpec, Heads], Network]
"""Make a network; what agents get, with the options of the preset already bound."""


def refuse_action_heads(heads: Heads) -> None:
    """Raise ValueError if a head takes the action; for networks that would give it an output of the observation alone.

    Nothing else would show: such a critic learns to say how good it is to be somewhere, whatever is done there.
    """
    taking = sorted(name for name, head in heads.items() if head.takes_action)
    if taking:
        raise ValueError(f"the agent's head {taking[0]!r} takes the action, which this network gives to no head")


def depends_on_action(network: Network, observation: ObservationSpec, action: ActionSpec, head: str) -> bool:
    """Say whether a head's output may depend on `NetworkInputs.action`. Reads the network's program; runs nothing.

    Programs within programs (loops, compiled functions) are taken at their word: whatever goes in matters for all that
    comes out.
    """

    def output(asked: jax.Array, params: PyTree) -> jax.Array:
        state = jax.tree.map(lambda leaf: leaf[None], network.initial_state())
        return network.step(params, state, example_inputs(observation, action)._replace(action=asked))[0][head]

    params = jax.eval_shape(network.init, jax.random.key(0))
    program = jax.make_jaxpr(output)(jnp.zeros((1, previous_action_size(action)), jnp.float32), params).jaxpr
    reached = {id(program.invars[0])}
    for equation in program.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached.update(id(variable) for variable in equation.outvars)
    return any(id(variable) in reached for variable in program.outvars)


def previous_action_size(action: ActionSpec) -> int:
    """Return A, the width of `action_features`."""
    return action.array.size if action.kind == "box" else sum(action.sizes)


def network_inputs(
    action: ActionSpec, observation: Tree[jax.Array], reward: jax.Array, flags: jax.Array, previous_action: jax.Array
) -> NetworkInputs:
    """Return the inputs for rows as they are stored, with the rule for first rows applied.

    Args:
        action: The action spec.
        observation: Leaves [..., *shape].
        reward: float32[...], as the agent learns from it.
        flags: uint8[...].
        previous_action: [..., *action shape]; ignored at first rows.
    """
    first = (flags & FIRST) != 0
    features = action_features(action, previous_action)
    return NetworkInputs(
        observation,
        jnp.where(first, 0.0, reward.astype(jnp.float32)),
        first,
        jnp.where(first[..., None], 0.0, features),
    )


def action_features(action: ActionSpec, taken: jax.Array) -> jax.Array:
    """Return float32[..., A] for actions [..., *action shape], as networks see them.

    Discrete kinds are one-hot, component by component. The elements of a box are rescaled from their bounds to [-1, 1];
    where a bound is infinite, they are taken as they are.
    """
    if action.kind == "box":
        return _box_features(action, taken)
    if action.kind == "discrete":
        return jax.nn.one_hot(taken, action.sizes[0], dtype=jnp.float32)
    components = [jax.nn.one_hot(taken[..., i], size, dtype=jnp.float32) for i, size in enumerate(action.sizes)]
    return jnp.concatenate(components, axis=-1)


def _box_features(action: ActionSpec, taken: jax.Array) -> jax.Array:
    numbers = taken.astype(jnp.float32).reshape(*taken.shape[: taken.ndim - len(action.array.shape)], -1)
    pairs = [
        (low, high) if math.isfinite(low) and math.isfinite(high) and low < high else (-1.0, 1.0)
        for low, high in zip(action.low, action.high, strict=True)
    ]
    center, half = (
        jnp.broadcast_to(jnp.array(row, jnp.float32), numbers.shape)
        for row in ([low / 2 + high / 2 for low, high in pairs], [high / 2 - low / 2 for low, high in pairs])
    )
    return (numbers - center) / half


def reset_where_first(initial: PyTree, state: PyTree, first: jax.Array) -> PyTree:
    """Return `state` [B, ...] with the rows where `first` [B] is True replaced by `initial` (without batch axis)."""

    def reset(start: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.where(first.reshape(-1, *(1 for _ in start.shape)), start[None], now)

    return jax.tree.map(reset, initial, state)


def example_inputs(observation: ObservationSpec, action: ActionSpec, leading: tuple[int, ...] = (1,)) -> NetworkInputs:
    """Return rows of zeros, none of them first and with an action, for initialisers that want to see shapes."""
    parts: list[ArraySpec] = flatten(observation)
    leaves = [jnp.zeros((*leading, *part.shape), part.dtype) for part in parts]
    return NetworkInputs(
        unflatten(observation, leaves),
        jnp.zeros(leading, jnp.float32),
        jnp.zeros(leading, jnp.bool_),
        jnp.zeros((*leading, previous_action_size(action)), jnp.float32),
        jnp.zeros((*leading, previous_action_size(action)), jnp.float32),
    )


def feed_forward(
    init: Callable[[jax.Array], PyTree], apply: Callable[[PyTree, NetworkInputs], NetworkOutputs]
) -> Network:
    """Return a network without memory, of a function that maps a batch of rows to their outputs.

    Args:
        init: key -> params.
        apply: (params, inputs [N, ...]) -> outputs [N, size]; `unroll` folds time and batch into N.
    """

    def step(params: PyTree, state: PyTree, inputs: NetworkInputs) -> tuple[NetworkOutputs, PyTree]:
        return apply(params, inputs), state

    def unroll(params: PyTree, state: PyTree, inputs: NetworkInputs) -> tuple[NetworkOutputs, PyTree]:
        rows, batch = inputs.first.shape
        folded = jax.tree.map(lambda leaf: leaf.reshape(rows * batch, *leaf.shape[2:]), inputs)
        outputs = apply(params, folded)
        return {name: output.reshape(rows, batch, *output.shape[1:]) for name, output in outputs.items()}, state

    return Network(init, lambda: (), step, unroll)


def flatten_observation(spec: ObservationSpec, observation: Tree[jax.Array]) -> jax.Array:
    """Return float32[..., F]: every leaf as a vector, one after the other in the order of `aioseed.specs.flatten`.

    uint8 leaves are taken for images and divided by 255. All others, integers too, are cast as the numbers they are: a
    spec does not say that an integer is an index, so an environment that means one should send it one-hot.
    """
    parts: list[ArraySpec] = flatten(spec)
    vectors = [_vector(part, leaf) for part, leaf in zip(parts, flatten(observation), strict=True)]
    return vectors[0] if len(vectors) == 1 else jnp.concatenate(vectors, axis=-1)


def _vector(spec: ArraySpec, leaf: jax.Array) -> jax.Array:
    leading = leaf.shape[: leaf.ndim - len(spec.shape)]
    numbers = leaf.astype(jnp.float32).reshape(*leading, spec.size)
    return numbers * jnp.float32(1 / 255) if spec.dtype == "uint8" else numbers
