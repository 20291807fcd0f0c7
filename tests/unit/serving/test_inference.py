"""The engine with an agent of a few lines, whose recurrent state tells what went into it."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from aioseed.errors import EnvironmentFailed
from aioseed.serving import inference
from aioseed.serving.inference import (
    Acting,
    ActRows,
    EngineOptions,
    InferenceEngine,
    action_table,
)
from aioseed.serving.intake import ClosedBatch, Intake
from aioseed.serving.rows import BatchRows
from aioseed.serving.rule import Close, Limits
from aioseed.serving.slots import SlotTable
from aioseed.serving.thread import Leased, Released
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST, ActColumns, BeginsState, Loan, Policy, StepColumns
from aioseed.wire.columns import ActionLayout, StepLayout, StepMessage

STEPS = StepLayout(ArraySpec("float32", (1,)), 0)
ACTION = discrete(2**30)
CAPACITY = 6
INITIAL = 1000


def act(
    params: object, key: jax.Array, state: Sequence[jax.Array], rows: ActRows[jax.Array]
) -> tuple[jax.Array, Sequence[jax.Array], Sequence[jax.Array]]:
    """Answer with the state that entered plus `params`; the state counts steps and adds observations up."""
    (entering,) = state
    after = entering + 1 + rows.observation[0][:, 0].astype(jnp.int32)
    extras = [entering, rows.previous_action, rows.reward, rows.slot, rows.epoch_low, rows.sequence]
    extras.append(rows.evaluation)
    return entering + params, extras, [after]


class Board:
    """Offer policies whose parameters are their version; lockstep asks for later ones."""

    def __init__(self) -> None:
        self.version = 0
        self.asked: list[int] = []
        self.closed = False

    def current(self) -> Policy:
        return Policy(self.version, jnp.int32(self.version))

    def wait_for(self, version: int, timeout_s: float) -> bool:
        self.asked.append(version)
        self.version = max(self.version, version)
        return not self.closed


class Sink:
    """Keep what inference hands over, as copies."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, list[int], list[list[int]]]] = []
        self.versions: list[int] = []
        self.told: list[tuple[str, list[int]]] = []
        self.arrived_in_vain = 0
        self.appended_before_drop: list[int] = []
        self.batches_finished = 0
        self.room = True

    def has_room(self, slots: np.ndarray) -> bool:
        return self.room

    def append(self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState, loan: Loan) -> None:
        (entering,) = begins_state(np.arange(count))
        self.versions.append(acts.policy_version)
        assert acts.action.shape == (count,) and all(leaf.shape == (count,) for leaf in acts.extras)
        assert np.array_equal(acts.previous_action, acts.extras[1]) and np.array_equal(entering, acts.extras[0])
        assert np.array_equal(steps.slot[:count], acts.extras[3])
        for row in range(count):
            self.rows.append((int(steps.slot[row]), int(entering[row]), [int(leaf[row]) for leaf in acts.extras]))
        loan.release()

    def begin(self, slots: np.ndarray, *, evaluation: bool) -> None:
        self.told.append(("evaluate" if evaluation else "train", slots.tolist()))

    def drop(self, slots: np.ndarray, reason: str, arrived: int = 0) -> None:
        self.told.append((reason, slots.tolist()))
        self.appended_before_drop.append(len(self.rows))
        self.arrived_in_vain += arrived


class Respondent:
    def __init__(self, number: int) -> None:
        self.number = number
        self.groups: dict = {}
        self.careful: dict = {}
        self.answers: list[bytes] = []

    def answer(self, payload: bytes) -> None:
        self.answers.append(payload)

    def count_vain(self, now_s: float) -> None:
        """Let any number through."""


class Bench:
    """An engine behind a real intake, stepped by hand."""

    def __init__(self, lockstep_updates: int = 0, buckets: tuple[int, ...] = (2, 4)) -> None:
        self.board, self.sink = Board(), Sink()
        self.table = SlotTable(CAPACITY, 1)
        actions = action_table(CAPACITY, ACTION.array)
        limits = Limits(4, 4, 1.0)
        batches: list[ClosedBatch] = []
        self.expelled: list[tuple[list[int], list[int]]] = []
        self.intake = Intake(STEPS, ActionLayout(ACTION), self.table, actions, limits, batches.append)
        self.batches = batches
        self.engine = InferenceEngine(
            Acting([jnp.int32(INITIAL)], act),
            ACTION.array,
            STEPS,
            self.board,
            actions,
            self.sink,
            lambda slots, epochs: self.expelled.append((slots.tolist(), epochs.tolist())),
            lambda batch, packed, row_bytes: self.intake.answer(batch, packed, row_bytes, 0.0),
            EngineOptions(
                CAPACITY, buckets, 0, (lambda filled: filled * lockstep_updates) if lockstep_updates else None
            ),
            jax.devices("cpu")[0],
        )
        self.engine.compile()
        self.peer = Respondent(1)
        self.slots = self.table.lease(1, CAPACITY, 0.0)
        self.sequence = np.zeros(CAPACITY, np.int64)

    def step(
        self,
        slots: list[int],
        first: list[bool],
        observation: list[float],
        reward: ArrayLike = 0.5,
        *,
        more: bool = False,
    ) -> list[int]:
        """Serve one batch of these slots and return their actions."""
        message = StepMessage(STEPS, len(slots))
        columns = message.columns
        columns.slot[:] = slots
        columns.epoch[:] = self.table.epoch[slots]
        columns.sequence[:] = self.sequence[slots]
        columns.flags[:] = np.where(first, FIRST, 0)
        columns.reward[:] = reward
        columns.observation[0][:, 0] = observation
        self.sequence[slots] += 1
        assert self.intake.take(self.peer, message.tobytes(), 0.0) is None
        self.intake.close(Close.ALL, 0.0)
        self.engine.handle(self.batches.pop(), more=more)
        if not self.peer.answers:
            return []
        return ActionLayout(ACTION).decode(self.peer.answers.pop()).action.tolist()


@pytest.fixture(scope="module", params=[inference.PART_ROWS, 2], ids=["whole batches", "in parts of two rows"])
def bench(request: pytest.FixtureRequest) -> Bench:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "PART_ROWS", request.param)
        return Bench()


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, CAPACITY - 1), st.booleans(), st.integers(0, 9)),
            min_size=1,
            max_size=4,
            unique_by=lambda row: row[0],
        ),
        max_size=8,
    )
)
def test_state_and_previous_action_follow_their_slot_whatever_the_batch(
    bench: Bench, batches: list[list[tuple[int, bool, int]]]
) -> None:
    """Whatever rows share a batch, however far it is padded, a slot sees its own past and nothing of the others'."""
    state: dict[int, int] = {}
    previous: dict[int, int] = {}
    for rows in batches:
        slots, reset, observations = ([row[i] for row in rows] for i in range(3))
        first = [
            again or slot not in state or bench.sequence[slot] == 0 for slot, again in zip(slots, reset, strict=True)
        ]
        entering = [INITIAL if begins else state[slot] for slot, begins in zip(slots, first, strict=True)]
        del bench.sink.rows[:]
        assert bench.step(slots, first, observations) == entering
        for (slot, entered, extras), expected, begins in zip(bench.sink.rows, entering, first, strict=True):
            assert entered == expected
            assert begins or extras[1] == previous[slot]
            assert extras[2] == 0  # a reward of 0.5 is 0 at a first row, and as an integer 0 elsewhere
        for slot, entered, seen in zip(slots, entering, observations, strict=True):
            state[slot], previous[slot] = entered + 1 + seen, entered


def test_the_reward_is_0_at_a_first_row_and_raw_elsewhere(bench: Bench) -> None:
    del bench.sink.rows[:]
    bench.step([0], [True], [0], reward=5.0)
    bench.step([0], [False], [0], reward=5.0)
    assert [extras[2] for _, _, extras in bench.sink.rows] == [0, 5]


def test_a_row_knows_slot_sequence_number_and_the_folded_epoch(bench: Bench) -> None:
    del bench.sink.rows[:]
    before = int(bench.sequence[3])
    bench.step([3], [True], [0])
    epoch = int(bench.table.epoch[3])
    assert bench.sink.rows[0][2][3:6] == [3, (epoch ^ (epoch >> 32)) & 0xFFFFFFFF, before]


@pytest.fixture
def far(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench whose device passes for an accelerator."""
    monkeypatch.setattr(bench.engine, "_far", True)
    return bench


def test_a_cpu_leaves_nothing_for_later(bench: Bench) -> None:
    del bench.sink.rows[:]
    bench.step([0, 1], [True, True], [1, 2], more=True)
    assert [slot for slot, _, _ in bench.sink.rows] == [0, 1]


def test_where_more_waits_a_batch_is_appended_while_the_next_is_under_way(far: Bench) -> None:
    bench = far
    del bench.sink.rows[:]
    bench.step([0, 1], [True, True], [1, 2], more=True)
    assert bench.sink.rows == []
    bench.step([2], [True], [3], more=True)
    assert [slot for slot, _, _ in bench.sink.rows] == [0, 1]
    bench.step([0], [False], [3])
    assert [(slot, entered) for slot, entered, _ in bench.sink.rows] == [
        (0, INITIAL), (1, INITIAL), (2, INITIAL), (0, INITIAL + 2)
    ]  # fmt: skip


def test_columns_that_a_sink_keeps_are_made_anew_here_and_not_by_the_event_loop(
    far: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = far.intake.pool
    while pool._free:
        pool.take()
    monkeypatch.setattr(BatchRows, "release", lambda rows: None)  # the sink keeps it
    far.step([0], [True], [1])
    assert len(pool._free) == 1
    far.step([0], [False], [1])
    assert len(pool._free) == 1


def test_what_was_left_is_appended_before_a_lease_ends_and_at_the_end(far: Bench) -> None:
    bench = far
    for settle in (lambda: bench.engine.handle(Released(np.array([5]), "lease_ended")), bench.engine.settle):
        del bench.sink.rows[:], bench.sink.told[:]
        bench.step([0], [True], [1], more=True)
        assert bench.sink.rows == []
        settle()
        assert [slot for slot, _, _ in bench.sink.rows] == [0]
    del bench.sink.told[:]


def test_what_was_left_is_appended_before_a_row_that_is_not_finite_ends_its_slot(far: Bench) -> None:
    bench = far
    del bench.sink.rows[:], bench.sink.told[:], bench.expelled[:]
    bench.step([0, 1], [True, True], [1, 2], more=True)
    bench.sink.appended_before_drop.clear()
    bench.step([0], [False], [1], reward=float("nan"))
    assert bench.sink.appended_before_drop == [2]
    del bench.sink.rows[:], bench.sink.told[:], bench.expelled[:]


def test_the_newest_policy_acts_and_its_version_is_noted(bench: Bench) -> None:
    bench.board.version = 40
    assert bench.step([1, 2], [True, True], [0, 0]) == [INITIAL + 40] * 2
    assert bench.sink.versions[-1] == 40
    bench.board.version = 0


def test_the_smallest_bucket_that_fits_is_used(bench: Bench) -> None:
    before = bench.engine.times.padded_rows
    for slots, padding in (([0], 1), ([0, 1], 0), ([0, 1, 2], 1), ([0, 1, 2, 3], 0)):
        bench.step(slots, [True] * len(slots), [0] * len(slots))
        assert bench.engine.times.padded_rows - before == padding
        before += padding


def test_the_sink_is_told_about_leases(bench: Bench) -> None:
    bench.engine.handle(Leased(np.array([4, 5]), True))
    bench.engine.handle(Leased(np.array([1]), False))
    bench.engine.handle(Released(np.array([4]), "lease_ended"))
    assert bench.sink.told == [("evaluate", [4, 5]), ("train", [1]), ("lease_ended", [4])]


def test_a_row_acts_in_the_role_of_its_slots_latest_lease(bench: Bench) -> None:
    for evaluated in ([1], [2], []):
        bench.engine.handle(Leased(np.array([1, 2]), False))
        bench.engine.handle(Leased(np.array(evaluated, np.int64), True))
        del bench.sink.rows[:], bench.sink.told[:]
        bench.step([1, 2, 3], [True] * 3, [0] * 3)
        assert [slot for slot, _, extras in bench.sink.rows if extras[6]] == evaluated


def test_a_bucket_need_not_be_cut_into_whole_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "PART_ROWS", 2)
    bench = Bench(buckets=(3,))
    assert bench.step([0, 1, 2], [True] * 3, [0] * 3) == [INITIAL] * 3


def test_times_are_those_of_acting_answering_and_appending_alone(far: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where what one batch appends is appended while the next is under way."""
    engine, times, now_s = far.engine, far.engine.times, 0.0

    def slow(function, takes_s):
        def slowed(*arguments):
            nonlocal now_s
            now_s += takes_s
            return function(*arguments)

        return slowed

    monkeypatch.setattr(inference, "perf_counter", lambda: now_s)
    monkeypatch.setattr(engine, "_compiled", {size: slow(call, 1.0) for size, call in engine._compiled.items()})
    monkeypatch.setattr(engine, "_answer", slow(engine._answer, 2.0))
    monkeypatch.setattr(far.sink, "append", slow(far.sink.append, 4.0))
    before = times.act_s, engine.answering_s, times.append_s
    for _ in range(3):
        far.step([0], [True], [1], more=True)
    engine.settle()
    after = times.act_s, engine.answering_s, times.append_s
    assert np.subtract(after, before).tolist() == pytest.approx([3.0, 6.0, 12.0])


def test_lockstep_waits_for_the_updates_of_all_batches_that_were_filled() -> None:
    bench = Bench(lockstep_updates=3)
    bench.board.version = 10
    bench.step([0], [True], [0])
    bench.sink.batches_finished = 1
    bench.step([0], [False], [0])
    bench.step([0], [False], [0])
    bench.sink.batches_finished = 2
    assert bench.step([0], [True], [0]) == [INITIAL + 16]
    assert bench.board.asked == [10, 13, 13, 16]
    assert bench.sink.versions == [10, 13, 13, 16]


def test_lockstep_appends_what_was_left_before_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fill the batch of unrolls without which training makes no update."""
    bench = Bench(lockstep_updates=1)
    bench.engine._far = True
    append = bench.sink.append

    def appended(*arguments):
        append(*arguments)
        bench.sink.batches_finished += 1

    monkeypatch.setattr(bench.sink, "append", appended)
    for sequence in range(3):
        bench.step([0], [sequence == 0], [0], more=True)
    assert bench.board.asked == [0, 1, 2]


def test_lockstep_serves_nobody_after_the_last_update() -> None:
    bench = Bench(lockstep_updates=3)
    bench.board.closed = True
    assert bench.step([0], [True], [0]) == []
    assert bench.sink.rows == []


def test_a_row_that_is_not_finite_reaches_nobody_and_its_siblings_go_on() -> None:
    bench = Bench()
    bench.step([0, 1, 2], [True, True, True], [1, 2, 3])
    epoch = int(bench.table.epoch[1])
    seen, free = len(bench.sink.rows), len(bench.intake.pool._free)
    bench.step([0, 1, 2], [False, False, False], [1, 2, 3], reward=[1.0, np.nan, 1.0])
    assert [row[0] for row in bench.sink.rows[seen:]] == [0, 2]
    assert bench.expelled == [([1], [epoch])]
    assert bench.sink.told == [("nonfinite", [1])] and bench.sink.arrived_in_vain == 1
    bench.step([2], [True], [0], reward=[np.inf])  # a first row is no transition, and nothing is left of the batch
    assert len(bench.sink.rows) == seen + 2 and bench.sink.arrived_in_vain == 1
    assert len(bench.intake.pool._free) == free


def test_the_network_sees_nothing_that_is_not_finite_and_no_slot_that_lost_its_lease_by_it() -> None:
    """A network may compute with all rows of a batch together."""
    bench, seen = Bench(), []

    def watched(params, key, state, rows):
        seen.append((rows.slot.tolist(), rows.reward.tolist(), rows.observation[0][:, 0].tolist()))
        return program(params, key, state, rows)

    program = bench.engine._compiled[2]
    bench.engine.use({2: watched})
    bench.step([0, 1], [True, True], [1, 2])
    bench.step([0, 1], [False, False], [3, np.inf], reward=[0.5, np.nan])
    assert seen[1] == ([0, CAPACITY], [0.5, 0.0], [3.0, 0.0])


def test_in_lockstep_a_row_that_is_not_finite_ends_the_run() -> None:
    bench = Bench(lockstep_updates=3)
    with pytest.raises(EnvironmentFailed, match="environment 0 sent"):
        bench.step([0], [True], [0], reward=[np.nan])


def test_it_is_prompt_where_the_sink_has_room_and_training_is_not_waited_for() -> None:
    def closed(bench: Bench) -> ClosedBatch:
        rows = bench.intake.pool.take()
        slots = np.array([0], np.int64)
        return ClosedBatch(rows, 1, [], slots, np.ones(1, np.uint64), b"", b"", 0, 0.0, 0.0, Close.FULL)

    bench = Bench()
    assert bench.engine.is_prompt(closed(bench))
    bench.engine._far = True
    assert not bench.engine.is_prompt(closed(bench))
    bench.engine._far = False
    bench.sink.room = False
    assert not bench.engine.is_prompt(closed(bench))
    lockstep = Bench(lockstep_updates=1)
    assert not lockstep.engine.is_prompt(closed(lockstep))
