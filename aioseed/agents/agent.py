"""The seam between the runtime and an algorithm: an agent is a NamedTuple of pure functions.

There is one runtime. Serving calls `act`, training `loss`, `after_update`, `observe` and `published`; neither knows the
algorithm. An entry point of the group ``aioseed.agents`` names an `AgentPlugin`; check yours with
`aioseed.testing.agent_kit`.

Letters: B rows of a batch or unrolls, T transitions of an unroll (it has T+1 rows).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import jax
from pydantic import BaseModel

from aioseed.nets.network import NetworkFactory, PyTree
from aioseed.specs import Tree
from aioseed.types import EnvironmentSpec

__all__ = [
    "ActInput",
    "ActOutput",
    "Agent",
    "AgentPlugin",
    "LearnerState",
    "LossOutput",
    "NetworkFactory",
    "PyTree",
    "Unroll",
    "learns_by_loss_alone",
    "parameters_of",
]


class ActInput(NamedTuple):
    """Hold the rows of a closed batch. Padded rows hold anything; what comes out of them is thrown away."""

    observation: Tree[jax.Array]  # as the observation spec says, leaves [B, ...]
    reward: jax.Array  # float32[B], raw
    flags: jax.Array  # uint8[B], FIRST | TERMINATED | TRUNCATED of aioseed.types
    previous_action: jax.Array  # [B, *action shape]; meaningless at a first row
    slot: jax.Array  # int32 or uint32[B]
    epoch_low: jax.Array  # uint32[B], low 32 bits of the epoch xor its high 32 bits
    sequence: jax.Array  # uint32[B]
    evaluation: jax.Array  # bool[B], True in the role evaluate: nothing is added there to what the policy itself draws
    takes_mode: jax.Array  # bool[B], True where a policy that is drawn from takes its mode: such rows beside training


class ActOutput(NamedTuple):
    """Hold the answer to each row."""

    action: jax.Array  # [B, *action shape], in the dtype of ActionSpec.array
    extras: PyTree  # as Agent.extras says, leaves [B, ...]


class LearnerState(NamedTuple):
    """Hold what an agent trains, without the optimiser's part."""

    params: PyTree  # trained by gradient
    extra: PyTree  # the rest: target networks, statistics of a normaliser; () where there is none


class Unroll(NamedTuple):
    """Hold B unrolls, time-major: `aioseed.types.UnrollColumns` as JAX arrays, with trees where that has leaves."""

    observation: Tree[jax.Array]  # leaves [T+1, B, ...]
    reward: jax.Array  # float32[T+1, B], raw; the reward that came with the row's observation
    flags: jax.Array  # uint8[T+1, B]
    previous_action: jax.Array  # [T+1, B, *action shape]; meaningless at a first row
    action: jax.Array  # [T+1, B, *action shape], taken from the row; meaningless at a final row
    policy_version: jax.Array  # int32[T+1, B], in 32 bits: after the highest comes the lowest, differences hold
    extras: PyTree  # leaves [T+1, B, ...]
    initial_state: PyTree  # leaves [B, ...], the recurrent state that entered row 0
    importance: jax.Array  # float32[B], weight of each unroll in the loss; 1 but from prioritised replay


class LossOutput(NamedTuple):
    """Hold sums, so that pieces of a batch add up: the runtime adds first and divides by the count once."""

    total: jax.Array  # float32[]; the gradient of sum(total) / sum(count) is the step's gradient
    # float32[], what is averaged over: valid steps, or unrolls; never differentiated. It shadows tuple.count.
    count: jax.Array  # type: ignore[assignment]
    metrics: dict[str, jax.Array]  # float32[] each, sums that the runtime divides by the count
    # More for the runtime: {"priorities": float32[B]} gives the unrolls new priorities in replay; () for nothing.
    aux: PyTree


def parameters_of(state: LearnerState) -> PyTree:
    """Return the trained parameters; what most agents publish."""
    return state.params


def learns_by_loss_alone(state: LearnerState, unroll: Unroll) -> LearnerState:
    """Return `state` as it is; `Agent.observe` of an agent that keeps no statistics."""
    del unroll
    return state


class ActFunction(Protocol):
    """Answer the rows of a batch."""

    def __call__(
        self, params: PyTree, key: jax.Array, state: PyTree, rows: ActInput, greedy: bool
    ) -> tuple[ActOutput, PyTree]:
        """Return the answers and the recurrent state after each row.

        Args:
            params: What `Agent.published` gave.
            key: One per run. The noise of a row comes from it and the row's slot, epoch and sequence number alone.
            state: Leaves [B, ...], the recurrent state of each row's slot; the agent resets it at first rows.
            rows: The batch.
            greedy: Static. True takes the most likely action at every row.
        """


class Agent(NamedTuple):
    """Bundle the pure functions of an algorithm, bound to an environment's specs, a network and a configuration."""

    init: Callable[[jax.Array], LearnerState]
    """key -> LearnerState."""
    initial_state: Callable[[], PyTree]
    """() -> recurrent state of one slot, without batch axis."""
    act: ActFunction
    """See `ActFunction`."""
    loss: Callable[[PyTree, PyTree, Unroll, jax.Array], LossOutput]
    """(params, extra, unroll, PRNG keys[B]) -> LossOutput; differentiated with respect to params.

    Noise of an unroll comes from its own key alone: the runtime may cut a batch of unrolls into pieces.
    """
    after_update: Callable[[LearnerState, jax.Array], LearnerState]
    """(state after the optimiser's step, int32[] number of steps made) -> state; target networks and projections.

    After 2^31 - 1 steps the number goes on from the lowest that there is.
    """
    extras: Callable[[], PyTree]
    """() -> tree of `ArraySpec`, what `act` stores with each row for `loss`. Nodes are dicts and plain tuples."""
    overlap_steps: int
    """Rows that an unroll repeats from the one before, beyond the usual one; burn-in. 0 on-policy."""
    replay: Literal["never", "optional", "required"] = "never"
    """Whether a configuration may not, may or must have a section ``replay``, which then gives `loss` its unrolls."""
    priorities: Callable[[Unroll], jax.Array] | None = None
    """unroll -> float32[B], first priorities in replay, from what was stored alone; None: all alike."""
    published: Callable[[LearnerState], PyTree] = parameters_of
    """state -> what `act` needs of it; copied to inference after every update."""
    observe: Callable[[LearnerState, Unroll], LearnerState] = learns_by_loss_alone
    """(state after `after_update`, all unrolls of the step, uncut) -> state; statistics of what was seen."""


Config = TypeVar("Config", bound=BaseModel)


class AgentPlugin(NamedTuple, Generic[Config]):
    """Name an algorithm: what an entry point of the group ``aioseed.agents`` points to."""

    config_type: type[Config]
    """Frozen pydantic model of the algorithm's options; unknown keys are refused by it."""
    build: Callable[[Config, EnvironmentSpec, NetworkFactory], Agent]
    """Make the agent. Raises SpaceError for spaces that the algorithm cannot take."""
