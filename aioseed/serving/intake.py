"""From STEP messages to closed batches, and from answered batches to ACTION messages.

The hot path of a learner. An actor's group sends the same slots under the same epochs step after step, so a session
keeps for each group, by its first slot, the header and identity that its next STEP must have: one look into a dict and
one comparison accept a message, whatever its number of rows, and one slice assignment a column copies it into the open
batch. Everything else (first contact, repeats, subsets, refusals) takes the careful road through `SlotTable.sort`.

Synchronous and without a clock of its own; the time comes with each call. Thread: the event loop alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from aioseed.errors import ProtocolError
from aioseed.serving.groups import MAX_GROUPS, CarefulReply, KnownGroup, Respondent, Segment, beginning_of, drop_groups
from aioseed.serving.rows import BatchRows, RowPool
from aioseed.serving.rule import TIMER_S, Close, Limits, Waiting, close_now, patience_s
from aioseed.serving.slots import Rows, SlotTable
from aioseed.types import Allocate, Payload, StepColumns
from aioseed.wire import packing
from aioseed.wire.columns import HEADER, ActionLayout, End, StepLayout, beginning_views, flat_columns, step_views
from aioseed.wire.messages import MAX_ERROR_ROWS, Error, ErrorCode, RefusedRow

_ONE = np.array(1, np.uint32)  # without axes: to NumPy that is cheaper than a number, which it has to make one of
_SERVICE_WEIGHT = 1 / 16
"""Of the latest batch in the running mean of what serving one takes."""
_ROUNDING_S = 1e-9
"""Later than the deadline, so that the age of the batch is not found a rounding error short of it, again and again."""


class ActionTable(NamedTuple):
    """Hold the last action of every slot, scratch included: the previous action of its next row, and the answer to
    repeats.

    Written by inference before a batch is answered; the event loop reads only answered slots.
    """

    action: np.ndarray  # [S + 1, *action shape]


class ClosedBatch(NamedTuple):
    """Carry a closed batch to inference and back."""

    rows: BatchRows
    count: int  # type: ignore[assignment]  # it shadows tuple.count
    segments: list[Segment]
    slots: np.ndarray  # int64[count], a copy: the columns are recycled before the answer is sent
    epochs: np.ndarray  # uint64[count], likewise
    sequence: bytes  # number of each row, u32[count]
    following: bytes  # number of each row's next step, u32[count]
    lease_changes: int  # `SlotTable.changes` when it was closed
    opened_s: float
    closed_s: float
    cause: Close


class PlacedStep(NamedTuple):
    """Carry a STEP whose observations are being read to where they belong."""

    end: End  # where they go in the open batch
    group: KnownGroup
    beginning: bytes  # of the message, up to there


class Intake:
    """Take STEPs in, close batches by the rule, and answer them.

    Args:
        table: The leases.
        actions: Last action of every slot, shared with inference.
        limits: Constants of the closing rule.
        submit: Called with each closed batch; hands it to inference.
        zeros: Makes the columns of batches, which inference reads.
        at_once: The memory of these is taken as they are made, and not as rows are written.
    """

    def __init__(
        self,
        steps: StepLayout,
        action_layout: ActionLayout,
        table: SlotTable,
        actions: ActionTable,
        limits: Limits,
        submit: Callable[[ClosedBatch], None],
        zeros: Allocate = np.zeros,
        *,
        at_once: bool = False,
    ) -> None:
        self.pool = RowPool(steps, limits.lockstep_rows or limits.max_rows, zeros, at_once=at_once)
        self.table = table
        self.limits = limits
        self.in_flight = 0
        self._steps = steps
        self._first_slots = steps.first_slots
        self._action_layout = action_layout
        self._actions = actions
        self._submit = submit
        self._open = self.pool.take()
        self._segments: list[Segment] = []
        self._free_up_to = 0 if limits.lockstep_rows else limits.max_rows  # rows that need no thought where they go
        self._careful: dict[int, Respondent] = {}  # sessions with answers that are held back, by number
        self._count = 0
        self._entered = 0  # rows of the open batch that the slot table knows
        self._opened_s = 0.0
        self._idle_from_s = 0.0  # when the last batch in flight was answered
        self._service_s = math.inf
        self._in_flight_rows = 0
        self._closes = 0
        self._closed_in = np.full(table.capacity, -2, np.int64)  # number of the last close that a slot was in
        self._last_count = 0
        self._recent = 0

    @property
    def waiting_rows(self) -> int:
        """Return the number of rows in the open batch."""
        return self._count

    def due_at_s(self) -> float | None:
        """Return when time alone closes the open batch, or None while it is empty or may not close."""
        if not self._count or self.limits.lockstep_rows or self.in_flight >= self.limits.max_in_flight:
            return None
        due_s = self._opened_s + self.limits.deadline_s
        if not self.in_flight:
            patient_s = max(patience_s(self._service_s), TIMER_S)
            due_s = min(due_s, max(self._opened_s, self._idle_from_s) + patient_s)
        return due_s + _ROUNDING_S

    def take(self, session: Respondent, payload: Payload, now_s: float) -> Error | None:
        """Take one STEP in: apply it, answer a repeat, or return the ERROR that refuses it.

        Raises:
            ProtocolError: The message cannot be read by the agreed specs.
        """
        size_bytes = len(payload)
        slots_at = self._first_slots.get(size_bytes, 0)
        beginning = beginning_of(payload, slots_at)
        group = session.groups.get(beginning[slots_at : slots_at + 4])
        if group is None or size_bytes != group.size_bytes or not beginning.startswith(group.expected):
            return self._take_carefully(session, payload, now_s)
        self._place(group, payload, now_s)
        return None

    def take_packed(self, session: Respondent, payload: Payload, now_s: float, max_bytes: int) -> Error | None:
        """Take a packed STEP in that stands for one of at most `max_bytes`. It is inflated only if a row of it applies.

        Raises:
            ProtocolError: The message cannot be read by the agreed specs.
        """
        steps = self._steps
        rows = packing.packed_rows(steps, payload, self.limits.max_rows, max_bytes)
        head = packing.beginning(steps, payload, rows)
        group = session.groups.get(head[(slot_at := steps.offsets(rows).columns[1][0]) : slot_at + 4])
        if group is None or not head.startswith(group.expected):
            self.sync()
            views = beginning_views(steps, head, rows)
            sorted_rows = self.table.sort(session.number, views)
            if sorted_rows.refused:
                return _refusal(views, sorted_rows)
            if not sorted_rows.apply.size:
                self._repeat(session, head[HEADER.size : steps.identity_bytes(rows)], views, now_s)
                return None
        return self.take(session, packing.unpack(steps, payload, rows), now_s)

    def place(self, session: Respondent, size_bytes: int, beginning: memoryview) -> PlacedStep | None:
        """Return where the end of a STEP that is about to come goes, if it is of a known group.

        Good until anything else is asked of this object but `take_placed`.
        """
        slots_at = self._first_slots.get(size_bytes, 0)
        there = beginning_of(beginning, slots_at)
        group = session.groups.get(there[slots_at : slots_at + 4])
        if group is None or size_bytes != group.size_bytes or not there.startswith(group.expected):
            return None
        if self._count + group.rows > self._free_up_to:
            return None
        end = self._open.writer.end(group.rows, self._count)
        if end is None or len(beginning) < end.begin or size_bytes < 2 * end.begin:
            return None
        return PlacedStep(end, group, bytes(beginning[: end.begin]))

    def take_placed(self, step: PlacedStep, now_s: float) -> None:
        """Take a STEP in whose end is where `place` said."""
        group, start = step.group, self._count
        group.await_nothing()
        if not start:
            self._opened_s = now_s
        step.end.write_before(step.beginning)
        self._segments.append((group, start, start + group.rows, now_s))
        self._count += group.rows

    def poll(self, now_s: float, *, arriving: bool = False) -> Close:
        """Close the open batch if the rule says so, and say by which clause.

        Args:
            now_s: The time.
            arriving: The latest look at the network has brought rows, and another follows.
        """
        opened_s, idle_from_s = self._opened_s, self._idle_from_s
        state = Waiting(  # in the order of its fields: by name, which is asked for several times a batch, takes longer
            self._count,
            self.table.leased - self.table.late_count - self._in_flight_rows,
            self._recent,
            self.in_flight,
            now_s - opened_s,
            now_s - (opened_s if opened_s > idle_from_s else idle_from_s),
            self._service_s,
            arriving,
        )
        cause = close_now(state, self.limits)
        if cause is not Close.NO:
            self.close(cause, now_s)
        return cause

    def close(self, cause: Close, now_s: float) -> None:
        """Close the open batch, which has rows, and hand it to inference."""
        count, rows = self._count, self._open
        columns = rows.columns
        slots, sequence = columns.slot[:count].astype(np.int64), columns.sequence[:count]
        if self._entered:
            self.sync()
        else:
            self.table.enter(slots, sequence)
        batch = ClosedBatch(
            rows,
            count,
            self._segments,
            slots,
            columns.epoch[:count].copy(),
            sequence.tobytes(),
            (sequence + _ONE).tobytes(),
            self.table.changes,
            self._opened_s,
            now_s,
            cause,
        )
        self._open, self._segments, self._count, self._entered = self.pool.take(), [], 0, 0
        if count > rows.resident_rows:
            rows.resident_rows = count
        self.in_flight += 1
        self._in_flight_rows += count
        if cause is Close.DEADLINE:
            self.table.mark_late()
        self._submit(batch)  # which may answer it
        self._remember(slots)

    def answer(self, batch: ClosedBatch, actions: bytes, row_bytes: int, now_s: float) -> None:
        """Send the actions of a batch that inference has served: one ACTION a STEP.

        Args:
            actions: The packed actions of the batch's rows, `row_bytes` each.
        """
        self.in_flight -= 1
        self._in_flight_rows -= batch.count
        self._idle_from_s = now_s
        self.table.answer(batch.slots, batch.epochs, batch.lease_changes, now_s)
        sequence, following = batch.sequence, batch.following
        for group, start, stop, _ in batch.segments:
            if group is not None:
                # Of one whose lease has ended no session knows any more (`forget`): no STEP is compared with it.
                group.expect(following[4 * start : 4 * stop])
                group.answer(sequence[4 * start : 4 * stop], actions[start * row_bytes : stop * row_bytes])
        if self._careful:
            self._answer_careful()

    def served(self, service_s: float) -> None:
        """Note how long serving a batch took, from its close until the next could be served, but for sending."""
        if math.isinf(self._service_s):
            self._service_s = service_s
        else:
            self._service_s += _SERVICE_WEIGHT * (service_s - self._service_s)

    def forget(self, session: Respondent, slots: np.ndarray, now_s: float) -> None:
        """End the leases of `slots` of a session.

        Their rows that wait are served first, so that the order holds. In lockstep, where a batch is all or nothing,
        they were not accepted yet and are forgotten.
        """
        if self.limits.lockstep_rows:
            waiting = self._open.columns.slot  # by slot: a session may wait for rows of the one whose place it took
            self._segments = [segment for segment in self._segments if waiting[segment[1]] not in slots]
            self._count = sum(stop - start for _, start, stop, _ in self._segments)
            self._entered = 0  # rows that come now count anew
        elif self._count and np.isin(self._open.columns.slot[: self._count], slots).any():
            self.close(Close.FULL, now_s)
        self.table.release(slots)
        drop_groups(session, slots)
        kept = {key: reply for key, reply in session.careful.items() if not np.isin(reply.slots, slots).any()}
        session.careful = kept

    def sync(self) -> None:
        """Tell the slot table about the rows that were taken in since the last call."""
        begin, end = self._entered, self._count
        if begin < end and not self.limits.lockstep_rows:
            columns = self._open.columns
            self.table.enter(columns.slot[begin:end], columns.sequence[begin:end])
        elif begin < end:
            for _, start, stop, _ in self._segments:
                rows = slice(start, stop)
                self.table.enter(self._open.columns.slot[rows], self._open.columns.sequence[rows])
        self._entered = end

    def _take_carefully(self, session: Respondent, payload: Payload, now_s: float) -> Error | None:
        rows = self._steps.rows(payload, self.limits.max_rows)
        head = bytes(payload[: self._steps.identity_bytes(rows)])
        self.sync()
        views = step_views(self._steps, payload)
        sorted_rows = self.table.sort(session.number, views)
        if sorted_rows.refused:
            return _refusal(views, sorted_rows)
        slots = views.slot.astype(np.int64)
        if sorted_rows.repeat.size == 0:
            drop_groups(session, slots)
            self._place(self._group(session, head, slots), payload, now_s)
            self.sync()
            return None
        if sorted_rows.apply.size:
            drop_groups(session, slots[sorted_rows.apply])
            self._place_some(session, views, sorted_rows.apply, now_s)
            self.sync()
        self._repeat(session, head[HEADER.size :], views, now_s)
        return None

    def _repeat(self, session: Respondent, identity: bytes, views: StepColumns, now_s: float) -> None:
        """Answer a STEP with rows that came before."""
        session.count_vain(now_s)
        self._reply(session, CarefulReply(identity, views.slot.astype(np.int64), views.sequence.copy()))

    def _place(self, group: KnownGroup, payload: Payload, now_s: float) -> None:
        rows, start = group.rows, self._count
        group.await_nothing()
        if not start or start + rows > self._free_up_to:
            start = self._room(rows, group.slots, now_s)
        self._open.writer.write(payload, rows, start)
        self._segments.append((group, start, start + rows, now_s))
        self._count += rows

    def _place_some(self, session: Respondent, views: StepColumns, apply: np.ndarray, now_s: float) -> None:
        start = self._room(apply.size, views.slot[apply].astype(np.int64), now_s)
        stop = start + apply.size
        for target, source in zip(flat_columns(self._open.columns), flat_columns(views), strict=True):
            target[start:stop] = source[apply]
        self._segments.append((None, start, stop, now_s))
        self._count += int(apply.size)

    def _room(self, rows: int, slots: np.ndarray, now_s: float) -> int:
        """Return the row at which `rows` rows go, after closing a batch that has no room for them."""
        if self.limits.lockstep_rows:
            first = int(slots[0])
            assert int(slots[-1]) - first == rows - 1, "lockstep leases are ranges"
            if self._count == 0:
                self._opened_s = now_s
            return first
        if self._count + rows > self.limits.max_rows:
            self.close(Close.FULL, now_s)
        if self._count == 0:
            self._opened_s = now_s
        return self._count

    def _remember(self, slots: np.ndarray) -> None:
        """Count the different environments in this close and the one before."""
        self._closes += 1
        both = int(np.count_nonzero(self._closed_in[slots] == self._closes - 1))
        self._closed_in[slots] = self._closes
        self._recent = slots.size + self._last_count - both
        self._last_count = slots.size

    def _group(self, session: Respondent, head: bytes, slots: np.ndarray) -> KnownGroup:
        """Return the group that steps with `slots`, in their order, new to the session."""
        if len(session.groups) >= MAX_GROUPS:
            session.groups.clear()
        group = KnownGroup(session, head, slots, self._steps, self._action_layout)
        session.groups[group.key] = group
        return group

    def _answer_careful(self) -> None:
        """Send the answers that were held back and are complete, without the rows that have gone on meanwhile.

        Not only those of the sessions in the batch: a row of a session that broke off is answered to the one that has
        taken its place.
        """
        for session in [*self._careful.values()]:
            waiting, session.careful = session.careful, {}
            del self._careful[session.number]
            for reply in waiting.values():
                asked = self.table.last_sequence[reply.slots] == reply.sequence
                self._reply(session, reply if asked.all() else reply.only(asked))

    def _reply(self, session: Respondent, reply: CarefulReply) -> None:
        """Send an answer, or hold it back until every slot has its action: one, however often it is asked for.

        Raises:
            ProtocolError: So many are held back that no actor can have asked for them in earnest.
        """
        if not self.table.in_batch[reply.slots].any():
            packed = np.ascontiguousarray(self._actions.action[reply.slots]).tobytes()
            session.answer(self._action_layout.encode(reply.slots.size, reply.identity, packed))
            return
        if len(session.careful) >= MAX_GROUPS:
            raise ProtocolError("unexpected_message", f"more than {MAX_GROUPS} repeats of steps that are under way")
        session.careful[reply.identity] = reply
        self._careful[session.number] = session


def _refusal(views: StepColumns, rows: Rows) -> Error:
    codes = {code for _, code in rows.refused}
    code = next(iter(codes)) if len(codes) == 1 else ErrorCode.MALFORMED
    named = [
        RefusedRow(slot=int(views.slot[row]), epoch=int(views.epoch[row]), sequence=int(views.sequence[row]), code=why)
        for row, why in rows.refused[:MAX_ERROR_ROWS]
    ]
    return Error(code=code, message=f"{len(rows.refused)} of {views.slot.size} rows were refused", rows=named)
