"""Columns and ports: what the rooms of a learner hand to one another.

There is no object per environment and step anywhere. Everything travels as columns, NumPy arrays whose leading axes are
T (time), B (rows of a batch) or E (environment slots). Observations are flat tuples of leaves in the order of
`aioseed.specs.flatten`; only networks see the tree.

The ports are Protocols: experience, serving and training know one another only through them, and the host joins them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

from aioseed.specs import ActionSpec, ArraySpec, Json, ObservationSpec

Allocate: TypeAlias = Callable[[tuple[int, ...], "np.dtype[np.generic]"], np.ndarray]
"""Returns a zeroed array of a shape and dtype, in memory of a kind that whoever reads it likes."""

Payload: TypeAlias = bytes | memoryview
"""A message where it is handed over: bytes, or a read-only view of bytes that is good until the taker returns."""

FIRST = np.uint8(1)
"""Flag of an episode's first row: its observation came from a reset, its reward is 0, its incoming action is none."""
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
    """Hold one row a step, in the order of arrival; B is the capacity, rows beyond the count are scratch."""

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

    An unroll has ``rows = overlap_steps + unroll_steps + 1`` rows. Its last ``overlap_steps + 1`` rows are the first
    rows of the slot's next unroll.
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
    policy_version: np.ndarray  # int32[T+1, B], in 32 bits: after the highest comes the lowest, differences hold
    extras: tuple[np.ndarray, ...]  # leaves [T+1, B, ...]
    initial_state: tuple[np.ndarray, ...]  # leaves [B, ...], the state that entered row 0
    importance: np.ndarray  # float32[B], importance-sampling weight of the unroll; 1 but from prioritised replay


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
    priorities: np.ndarray | None = None  # float32[B], for replay; computed by inference when the unrolls were finished
    entries: np.ndarray | None = None  # int64[B], insertion numbers; None for unrolls that are not out of replay


class Settled(NamedTuple):
    """Say by how much a batch moved the run on, in environment transitions."""

    trained: int  # trained on for the first time (on-policy), or newly in replay
    skipped: int  # of updates that were skipped and that nobody will train on again


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


class Loan(Protocol):
    """Be what the columns of a batch were lent from.

    Whoever holds them when nobody needs them any more releases them, once.
    """

    @property
    def resident_rows(self) -> int:
        """Return for how many rows the columns take memory, whether they hold one or not."""

    def release(self) -> None:
        """Take the columns back: they are filled anew from now on. Thread: any."""


class CopiedRows(NamedTuple):
    """Be the loan of columns that were copied for their reader alone, to which they belong."""

    resident_rows: int

    def release(self) -> None:
        """Do nothing: the memory goes when nobody refers to it."""


class UnrollSink(Protocol):
    """Take rows from inference and turn them into unrolls (port of experience, called by serving).

    Thread: the inference thread, or the event loop in its place while that rests; one at a time.
    """

    def append(self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState, loan: Loan) -> None:
        """Append the first `count` rows to the unrolls of their slots.

        Finished unrolls go to the bounded queue. Blocks while it is full: that delays actions, which is the only
        back-pressure of a run. The sink may keep the observations of `steps` where they are; it releases `loan` once it
        needs them no more, now or within a later call. How much it may keep is bounded by the environments it serves.
        The arrays of `acts` belong to it.
        """

    def begin(self, slots: np.ndarray, *, evaluation: bool) -> None:
        """Note that `slots` are leased anew; their rows follow. Rows of evaluation slots never enter an unroll."""

    def drop(self, slots: np.ndarray, reason: str, arrived: int = 0) -> None:
        """Drop the open unrolls of `slots`: their lease has ended. `reason` is a word of `telemetry.ledger.Reason`.

        `arrived` transitions came just now, are in no unroll, and are accepted and dropped in the same moment.
        """

    def has_room(self, slots: np.ndarray) -> bool:
        """Say whether `append` of one row for each of `slots` would neither block nor compute anything."""

    @property
    def batches_finished(self) -> int:
        """Return how many batches of unrolls were filled so far; lockstep waits for the updates that they allow."""


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

    def settle(self, batch: UnrollBatch, finite: np.ndarray | None, priorities: np.ndarray | None) -> Settled:
        """Close the books on a batch.

        Args:
            batch: What `take` returned; the columns still belong to training.
            finite: bool[U], False for an optimiser step that was skipped, each having taken count / U unrolls in
                order; None when the update broke off.
            priorities: float32[count], the new ones where the agent's loss gives any.
        """

    def give_back(self, batch: UnrollBatch) -> None:
        """Return the columns for reuse, once no computation reads them any more."""

    @property
    def ready(self) -> int:
        """Return the number of batches that wait."""


class Segment(Protocol):
    """Be a piece of replay that never changes: what a checkpoint writes once (port of experience, called by training).

    Thread: the checkpoint thread.
    """

    @property
    def name(self) -> str:
        """Return its name, ``replay-<number of its first unroll>-<count>``."""

    def read(self) -> AbstractContextManager[Mapping[str, np.ndarray]]:
        """Lend the arrays, none of which changes before the context ends.

        Raises:
            CheckpointError: The memory was needed meanwhile: this save is cut short, the next one will find it.
        """


class SavedReplay(NamedTuple):
    """Hold what a checkpoint keeps of replay, as of one moment between two updates."""

    arrays: dict[str, np.ndarray]  # copies of what changes
    state: dict[str, Json]
    segments: tuple[Segment, ...]  # references to what does not, oldest first
    release: Callable[[bool], None]  # called once, from any thread: True if all of it is on the disk now


class PolicySource(Protocol):
    """Let inference see the newest published policy (port of training, called by serving)."""

    def current(self) -> Policy:
        """Return the newest published policy. Never blocks. Thread: any."""

    def wait_for(self, version: int, timeout_s: float) -> bool:
        """Block until `version` or a later one is published (lockstep).

        Returns False after `timeout_s` or when training has ended.
        """


class EnvironmentMetric(NamedTuple):
    """Name a float32 scalar that an environment reports with every step, and its fold over an episode."""

    name: str
    fold: Literal["sum", "last", "max"]


class BatchEnvironment(Protocol):
    """Step E environments together, in columns (port of an environment plugin, called by an actor's worker thread).

    Rows follow NEXT_STEP autoreset: after a row with TERMINATED or TRUNCATED the next `step` ignores that environment's
    action, resets it and writes its FIRST row with reward 0. Implementations write every row of `columns` in place
    (observation leaves, reward, flags, metrics; never slot, epoch or sequence) and cast to the dtypes of the columns.

    Thread: one worker thread from construction to `close`.
    """

    @property
    def spec(self) -> EnvironmentSpec:
        """Return the specs of one environment."""

    @property
    def metrics(self) -> tuple[EnvironmentMetric, ...]:
        """Return the metrics in the order of their columns."""

    @property
    def count(self) -> int:
        """Return E."""

    def reset(self, rows: np.ndarray, seeds: Sequence[int], columns: StepColumns) -> None:
        """Reset the environments `rows` (indices, ascending), one seed each, and write their FIRST rows only.

        Raises:
            EnvironmentFailed: An environment raised; the message carries its error as text.
        """

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        """Step every environment with its row of `actions` ([E, *action shape], starting at 0) and write every row.

        `actions` may be a read-only view: what changes them in place takes a copy. An environment that raises is
        rebuilt and reset a bounded number of times: its row then carries FIRST.

        Raises:
            EnvironmentFailed: The bound is exceeded.
        """

    def close(self) -> None:
        """Free the environments. Idempotent."""


class EnvironmentPlugin(Protocol):
    """Make environments (the thin face of a package in the entry-point group ``aioseed.envs``)."""

    @property
    def preset_package(self) -> str:
        """Return the import name of the package whose folder ``presets`` holds this plugin's YAML files."""

    def make(self, name: str, options: Mapping[str, Json], count: int) -> BatchEnvironment:
        """Build `count` environments `name`. `options` are those of the ``environment`` section of the configuration.

        Raises:
            ConfigError: No such environment (the message offers near names) or a wrong option.
            PluginError: A package is missing; names the extra that brings it.
            SpaceError: A space cannot be served.
            EnvironmentFailed: The environment raised while it was built.
        """

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return the task configuration: what must be equal between actors (constructor arguments, wrappers)."""


@runtime_checkable
class KnowsSpecs(Protocol):
    """Know the specs of environments without building one (what an `EnvironmentPlugin` may offer besides).

    A learner then serves environments whose engine is not installed on its host.
    """

    def specs(self, name: str, options: Mapping[str, Json]) -> tuple[EnvironmentSpec, tuple[EnvironmentMetric, ...]]:
        """Return specs and metrics of an environment: those that `make` would give.

        Raises:
            ConfigError: No such environment or a wrong option.
        """
