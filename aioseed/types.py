"""Columns and ports: what the rooms of a learner hand to one another.

There is no object per environment and step anywhere. Everything travels as columns, NumPy arrays whose leading axes are
T (time), B (rows of a batch) or E (environment slots). Observations are flat tuples of leaves in the order of
`aioseed.specs.flatten`; only networks see the tree.

The ports are Protocols: experience, serving and training know one another only through them, and the host joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec

FIRST = np.uint8(1)
"""Flag of the first row of an episode: its observation came from a reset, its reward is 0, its incoming action is none."""
TERMINATED = np.uint8(2)
"""Flag of a final row after which nothing is worth anything: no bootstrap."""
TRUNCATED = np.uint8(4)
"""Flag of a final row at which the episode was only cut: bootstraps from this row's own observation."""
FINAL = np.uint8(6)
"""Mask of both final flags."""


class EnvironmentSpec(NamedTuple):
    """Name everything that a learner must know about an environment before it can compile."""

    observation: ObservationSpec
    action: ActionSpec


class StepColumns(NamedTuple):
    """Hold one row a step that arrived, in the order of arrival; B is the capacity, rows beyond the count are scratch."""

    slot: np.ndarray  # uint32[B]
    epoch: np.ndarray  # uint64[B]
    sequence: np.ndarray  # uint32[B]
    flags: np.ndarray  # uint8[B], FIRST | TERMINATED | TRUNCATED
    reward: np.ndarray  # float32[B], raw
    metrics: np.ndarray  # float32[B, M]
    observation: tuple[np.ndarray, ...]  # leaves [B, ...]


class ActColumns(NamedTuple):
    """Hold what inference adds to the rows of a closed batch, on the host."""

    action: np.ndarray  # [B, *action shape]
    previous_action: np.ndarray  # [B, *action shape], meaningless at a first row
    extras: tuple[np.ndarray, ...]  # the agent's ActExtras, flattened, leaves [B, ...]
    policy_version: int  # of the parameters that acted


class UnrollLayout(NamedTuple):
    """Fix the shape of every unroll of a run.

    An unroll has ``rows = overlap_steps + unroll_steps + 1`` rows. Its last ``overlap_steps + 1`` rows are the first rows
    of the slot's next unroll.
    """

    observation: tuple[ArraySpec, ...]
    action: ArraySpec
    extras: tuple[ArraySpec, ...]  # the agent's ActExtras, flattened
    state: tuple[ArraySpec, ...]  # recurrent state of one slot, flattened
    unroll_steps: int  # L
    overlap_steps: int  # burn-in; 0 on-policy

    @property
    def rows(self) -> int:
        """Return the number of rows of one unroll, T + 1."""
        return self.overlap_steps + self.unroll_steps + 1


class UnrollColumns(NamedTuple):
    """Hold B unrolls, time-major. The same structure holds NumPy columns on the host and JAX arrays in `loss`."""

    observation: tuple[np.ndarray, ...]  # leaves [T+1, B, ...]
    reward: np.ndarray  # float32[T+1, B], raw; the reward that came with the row's observation
    flags: np.ndarray  # uint8[T+1, B]
    previous_action: np.ndarray  # [T+1, B, *action shape]; none (to be ignored) at a first row
    action: np.ndarray  # [T+1, B, *action shape]
    policy_version: np.ndarray  # int32[T+1, B]
    extras: tuple[np.ndarray, ...]  # leaves [T+1, B, ...]
    initial_state: tuple[np.ndarray, ...]  # leaves [B, ...], the state that entered row 0


class UnrollIdentity(NamedTuple):
    """Say whose unrolls they are: one slot, one epoch, consecutive steps."""

    slot: np.ndarray  # uint32[B]
    epoch: np.ndarray  # uint64[B]
    sequence: np.ndarray  # uint32[B], of row 0
    transitions: np.ndarray  # int32[B], environment transitions that this unroll is the first to hold as row 1..T


@dataclass(frozen=True, slots=True)
class UnrollBatch:
    """Carry B finished unrolls from inference to training; the columns belong to whoever holds the batch."""

    columns: UnrollColumns
    identity: UnrollIdentity
    count: int  # unrolls in use; the first `count` of B


class Episodes(NamedTuple):
    """Report episodes that ended, as columns of equal length."""

    slot: np.ndarray  # uint32
    episode_return: np.ndarray  # float32, sum of raw rewards
    length_steps: np.ndarray  # int32, transitions
    metrics: np.ndarray  # float32[episodes, M], folded
    evaluation: np.ndarray  # bool, True for slots leased to the role evaluate


class Policy(NamedTuple):
    """Carry published parameters to inference: a copy that training never touches again."""

    version: int
    params: object  # a JAX pytree; opaque here, since this module imports no JAX


class UnrollSink(Protocol):
    """Take rows from inference and turn them into unrolls (port of experience, called by serving).

    Thread: the inference thread alone.
    """

    def append(self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState) -> None:
        """Append the first `count` rows to the unrolls of their slots.

        Finished unrolls go to the bounded queue. Blocks while it is full: that delays actions, which is the only
        back-pressure of a run.
        """

    def begins(self, slots: np.ndarray) -> np.ndarray:
        """Return bool[len(slots)]: True where the slot's next row will be row 0 of an unroll."""

    def drop(self, slots: np.ndarray, reason: str) -> None:
        """Drop the open unrolls of `slots`: their lease has ended. `reason` is a word of `telemetry.ledger.Reason`."""


class BeginsState(Protocol):
    """Fetch recurrent states from the device for those rows of the batch that begin an unroll."""

    def __call__(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        """Return the state that entered each of `rows` (indices into the batch), leaves [len(rows), ...]."""


class UnrollSource(Protocol):
    """Hand finished unrolls to training (port of experience, called by training).

    Thread: the training thread alone.
    """

    def take(self, timeout_s: float) -> UnrollBatch | None:
        """Return the next batch, or None after `timeout_s` without one or when the source is closed and empty."""

    def give_back(self, batch: UnrollBatch) -> None:
        """Return the columns for reuse, once no computation reads them any more."""

    @property
    def ready(self) -> int:
        """Return the number of batches that wait."""


class PolicySource(Protocol):
    """Let inference see the newest published policy (port of training, called by serving)."""

    def current(self) -> Policy:
        """Return the newest published policy. Never blocks. Thread: any."""

    def wait_for(self, version: int, timeout_s: float) -> bool:
        """Block until at least `version` is published; False after `timeout_s` or when training has ended (lockstep)."""
