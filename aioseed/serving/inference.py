"""Inference: the compiled `act` on closed batches. The only file of serving that knows JAX.

Thread: one inference thread a device owns the engine, its tables and the sink, or the event loop in its place while it
rests (`serving.thread`); one at a time, and in the order in which items were submitted, so that leases and the rows
that belong to them keep theirs. "Thread: inference" says either of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.errors import EnvironmentFailed
from aioseed.serving.finite import blank, nonfinite_rows
from aioseed.serving.intake import ActionTable, ClosedBatch
from aioseed.serving.thread import Item, Leased
from aioseed.specs import ArraySpec
from aioseed.types import FIRST, ActColumns, CopiedRows, PolicySource, StepColumns, UnrollSink
from aioseed.wire.columns import StepLayout

LOCKSTEP_WAIT_S = 600.0
PART_ROWS = 1024
"""Rows that a processor acts on at once: what a small network computes for more of them falls out of its cache."""


Column = TypeVar("Column")


class ActRows(NamedTuple, Generic[Column]):
    """Hold the rows of a batch, on the host, on the device or as shapes; padded rows hold anything."""

    slot: Column  # uint32[B]
    epoch_low: Column  # uint32[B], low 32 bits of the epoch xor its high 32 bits
    sequence: Column  # uint32[B]
    flags: Column  # uint8[B]
    reward: Column  # float32[B], 0 at a first row
    previous_action: Column  # [B, *action shape], meaningless at a first row
    observation: tuple[Column, ...]  # leaves [B, ...]
    evaluation: Column  # bool[B], True where the slot is leased in the role evaluate


class Acting(NamedTuple):
    """Say how to act: an agent, as inference sees it (leaves instead of trees)."""

    initial_state: Sequence[jax.Array]  # recurrent state of one slot
    # (params, key, state leaves [B, ...], rows) -> (action [B, ...], extras leaves [B, ...], state leaves [B, ...])
    act: Callable[
        [object, jax.Array, Sequence[jax.Array], ActRows[jax.Array]],
        tuple[jax.Array, Sequence[jax.Array], Sequence[jax.Array]],
    ]


class EngineOptions(NamedTuple):
    """Fix how an engine acts."""

    capacity: int  # slots; one scratch row is added
    buckets: tuple[int, ...]  # batch sizes to compile, ascending
    seed: int
    # In lockstep: batches of unrolls filled -> versions that training publishes for them. None: do not wait for any.
    versions_after: Callable[[int], int] | None = None


class InferenceTimes:
    """Sum up what inference does; written by whoever runs the engine, one at a time, and read by anyone."""

    def __init__(self) -> None:
        self.act_s = 0.0
        self.append_s = 0.0  # unrolls, blocking on a full queue included
        self.batches = 0
        self.rows = 0
        self.padded_rows = 0


class _Served(NamedTuple):
    """Hold a batch that was answered, and what is appended of it."""

    batch: ClosedBatch
    acts: ActColumns
    bad: np.ndarray  # rows that are not finite
    entering: Sequence[jax.Array]


# (params, key, state tables [S + 1, ...], rows) -> (state tables after, actions [B, ...], extras leaves [B, ...],
# states that entered the rows [B, ...])
Program: TypeAlias = Callable[..., tuple[list[jax.Array], jax.Array, list[jax.Array], list[jax.Array]]]


class InferenceEngine:
    """Serve closed batches: act, answer, append to the unrolls.

    What a batch appends may be left until the next one is under way: on an accelerator, the copies of one batch and the
    computation of the next then take the time of the longer of them.

    Args:
        expel: Called with (slots, epochs) that sent what is not finite, before their batch is answered; hands them to
            the event loop.
        answer: Called with (batch, packed actions, bytes of one action) as soon as the actions are on the host; hands
            them to the event loop.
        sink: Where the rows go; its `append` may block, which delays every later batch.
    """

    def __init__(
        self,
        acting: Acting,
        action: ArraySpec,
        steps: StepLayout,
        policies: PolicySource,
        actions: ActionTable,
        sink: UnrollSink,
        expel: Callable[[np.ndarray, np.ndarray], None],
        answer: Callable[[ClosedBatch, bytes, int], None],
        options: EngineOptions,
        device: jax.Device,
    ) -> None:
        self.times = InferenceTimes()
        self.answering_s = 0.0
        self._acting = acting
        self._action = action
        self._row_bytes = action.row_bytes
        self._steps = steps
        self._policies = policies
        self._actions = actions
        self._sink = sink
        self._expel = expel
        self._answer = answer
        self._options = options
        self._device = device
        self._far = device.platform != "cpu"
        self._key = jax.device_put(jax.random.key(options.seed), self._device)
        rows = options.capacity + 1
        self._state = [
            jax.device_put(jnp.broadcast_to(leaf, (rows, *jnp.shape(leaf))), self._device)
            for leaf in acting.initial_state
        ]
        self._evaluation = np.zeros(rows, bool)
        self._first_version: int | None = None
        self._compiled: dict[int, Program] = {}
        self._left: _Served | None = None  # what was answered, but not appended yet

    def compile(self) -> None:
        """Compile `act` for every bucket; a compiled executable cannot recompile, it raises."""
        params = self._policies.current().params
        for bucket in self._options.buckets:
            step = jax.jit(self._act, donate_argnums=(2,))
            self._compiled[bucket] = step.lower(params, self._key, self._state, self._arguments(bucket)).compile()

    def use(self, programs: Mapping[int, Program]) -> None:
        """Take a program for every bucket in place of compiling one."""
        self._compiled = dict(programs)

    def handle(self, item: Item, *, more: bool = False) -> None:
        """Do what one item of the queue asks for. Thread: inference.

        Args:
            item: What to do.
            more: Another item is there: on an accelerator, what this one appends is left to that call, or to `settle`.
        """
        if isinstance(item, ClosedBatch):
            self._serve(item)
            # A CPU has computed before its call returns: there is nothing to do meanwhile.
            if not (more and self._far):
                self.settle()
            return
        self.settle()
        if isinstance(item, Leased):
            self._evaluation[item.slots] = item.evaluation
            self._sink.begin(item.slots, evaluation=item.evaluation)
        else:
            self._sink.drop(item.slots, item.reason)

    def is_prompt(self, batch: ClosedBatch) -> bool:
        """Say whether `handle` is sure to wait for nobody. Thread: inference."""
        return not self._far and self._options.versions_after is None and self._sink.has_room(batch.slots)

    def settle(self) -> None:
        """Append what was left. Thread: inference."""
        if self._left is None:
            return
        (batch, acts, bad, entering), self._left = self._left, None
        began, columns, count = perf_counter(), batch.rows.columns, batch.count
        if bad.size:
            self._append_without(bad, columns, acts, count, entering)
            batch.rows.release()
        else:
            self._sink.append(columns, acts, count, lambda rows: _rows_of(entering, rows), batch.rows)
            if self._far:
                batch.rows.refill()
        self.times.append_s += perf_counter() - began

    def _act(
        self, params: object, key: jax.Array, state: Sequence[jax.Array], rows: ActRows[jax.Array]
    ) -> tuple[list[jax.Array], jax.Array, Sequence[jax.Array], list[jax.Array]]:
        first = (rows.flags & FIRST) != 0
        # The invariant that the runtime keeps for every agent: the initial state enters exactly at first rows.
        entering = [
            jnp.where(first.reshape((-1,) + (1,) * (table.ndim - 1)), initial, table[rows.slot])
            for table, initial in zip(state, self._acting.initial_state, strict=True)
        ]
        epoch = rows.epoch_low
        inputs = rows._replace(epoch_low=epoch[:, 0] ^ epoch[:, 1], reward=jnp.where(first, 0.0, rows.reward))
        action, extras, after = self._act_in_parts(params, key, entering, inputs)
        written = [table.at[rows.slot].set(new) for table, new in zip(state, after, strict=True)]
        return written, action, extras, entering

    def _act_in_parts(
        self, params: object, key: jax.Array, entering: Sequence[jax.Array], rows: ActRows[jax.Array]
    ) -> tuple[jax.Array, Sequence[jax.Array], Sequence[jax.Array]]:
        """Act on all rows, a processor on `PART_ROWS` at a time where a bucket has several times as many."""
        count = rows.slot.shape[0]
        if self._far or count <= PART_ROWS or count % PART_ROWS:
            return self._acting.act(params, key, entering, rows)

        def part(inputs: tuple[Sequence[jax.Array], ActRows[jax.Array]]) -> tuple[object, ...]:
            return self._acting.act(params, key, *inputs)

        cut = jax.tree.map(lambda leaf: leaf.reshape(-1, PART_ROWS, *leaf.shape[1:]), (list(entering), rows))
        action, extras, after = jax.tree.map(lambda leaf: leaf.reshape(count, *leaf.shape[2:]), jax.lax.map(part, cut))
        return action, extras, after

    def _arguments(self, bucket: int) -> ActRows[jax.ShapeDtypeStruct]:
        sharding = jax.sharding.SingleDeviceSharding(self._device)

        def shape(dtype: str, *sizes: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((bucket, *sizes), jnp.dtype(dtype), sharding=sharding)  # type: ignore[no-untyped-call]

        return ActRows(
            slot=shape("uint32"),
            epoch_low=shape("uint32", 2),
            sequence=shape("uint32"),
            flags=shape("uint8"),
            reward=shape("float32"),
            previous_action=shape(self._action.dtype, *self._action.shape),
            observation=tuple(shape(leaf.dtype, *leaf.shape) for leaf in self._steps.leaves),
            evaluation=shape("bool"),
        )

    def _serve(self, batch: ClosedBatch) -> None:
        versions_after = self._options.versions_after
        if versions_after is not None:
            self.settle()  # may fill the batch of unrolls that training waits for
        if versions_after is not None and not self._wait_for_training(versions_after):
            return  # nobody is served after the last update, so that the end of a lockstep run is always the same
        began = perf_counter()
        columns, count = batch.rows.columns, batch.count
        bad = nonfinite_rows(columns, count)
        if bad.size:
            self.settle()  # their earlier rows come before their end
            self._refuse(columns, bad)
        bucket = next(size for size in self._options.buckets if size >= count)
        slot = columns.slot[:bucket]
        slot[count:] = self._options.capacity
        where = slot.astype(np.intp)  # once: NumPy looks up by any other dtype three times as slowly
        previous = self._actions.action[where]
        policy = self._policies.current()
        self._state, action, extras, entering = self._compiled[bucket](
            policy.params,
            self._key,
            self._state,
            ActRows(
                slot,
                columns.epoch[:bucket].view(np.uint32).reshape(bucket, 2),
                columns.sequence[:bucket],
                columns.flags[:bucket],
                columns.reward[:bucket],
                previous,
                tuple(leaf[:bucket] for leaf in columns.observation),
                self._evaluation[where],
            ),
        )
        if self._far:
            for leaf in (action, *extras):
                leaf.copy_to_host_async()  # all at once: each by itself would wait for the device anew
        dispatched = perf_counter()
        self.settle()
        settled = perf_counter() - dispatched
        # Reading the actions waits for the device; from here on nothing reads the batch's NumPy columns but this
        # thread.
        host_action = np.asarray(action)[:count]
        self._actions.action[where[:count]] = host_action
        acted = perf_counter()
        self._answer(batch, host_action.tobytes(), self._row_bytes)
        self.answering_s += perf_counter() - acted
        acts = ActColumns(
            host_action, previous[:count], tuple(np.asarray(leaf)[:count] for leaf in extras), policy.version
        )
        self._left = _Served(batch, acts, bad, entering)
        self.times.act_s += acted - began - settled
        self.times.batches += 1
        self.times.rows += count
        self.times.padded_rows += bucket - count

    def _refuse(self, columns: StepColumns, bad: np.ndarray) -> None:
        """Keep rows that are not finite from everybody; their slots lose the lease, and the batch goes on as padding.

        Raises:
            EnvironmentFailed: In lockstep, where no environment can be missing.
        """
        slots, epochs = columns.slot[bad].astype(np.int64), columns.epoch[bad]
        if self._options.versions_after is not None:
            raise EnvironmentFailed(f"environment {slots[0]} sent a reward or an observation that is not finite")
        self._sink.drop(slots, "nonfinite", int(np.count_nonzero((columns.flags[bad] & FIRST) == 0)))
        self._expel(slots, epochs)
        columns.slot[bad] = self._options.capacity
        blank(columns, bad)

    def _append_without(
        self, bad: np.ndarray, columns: StepColumns, acts: ActColumns, count: int, entering: Sequence[jax.Array]
    ) -> None:
        kept = np.delete(np.arange(count), bad)
        if kept.size:
            steps, (action, previous, extras) = jax.tree.map(lambda column: column[kept], (columns, acts[:3]))
            acts = ActColumns(action, previous, extras, acts.policy_version)
            copied = CopiedRows(kept.size)
            self._sink.append(steps, acts, kept.size, lambda rows: _rows_of(entering, kept[rows]), copied)

    def _wait_for_training(self, versions_after: Callable[[int], int]) -> bool:
        """Wait for the updates that the filled batches allow; False when training has ended."""
        if self._first_version is None:
            self._first_version = self._policies.current().version
        due = self._first_version + versions_after(self._sink.batches_finished)
        return self._policies.wait_for(due, LOCKSTEP_WAIT_S)


def _rows_of(entering: Sequence[jax.Array], rows: np.ndarray) -> Sequence[np.ndarray]:
    return [np.asarray(leaf)[rows] for leaf in entering]


def action_table(capacity: int, action: ArraySpec) -> ActionTable:
    """Return the zeroed action table for `capacity` slots and the scratch row."""
    return ActionTable(np.zeros((capacity + 1, *action.shape), action.numpy_dtype))
