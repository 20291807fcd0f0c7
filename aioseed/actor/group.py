"""One group of environments as the event loop sees it: what was sent, what waits for an answer, what is to be done.

Theory of operation. A group is in one of three states::

    working      a worker thread has the columns; the loop must not touch them
    outstanding  a STEP was sent and waits for its ACTION (the columns are kept, to send a part of them again)
    idle         nothing to send: every row was revoked or refused

All rows of a group step together, so a group goes on when its one outstanding STEP is answered. A row is *leased* while
the learner wants it. A row that was taken away keeps stepping with action 0 and is not sent; when a lease gives it a
new epoch it is reset after the next step of the group, or at once in an idle group.

Decisions only: no thread, no clock, no await. Thread: the event loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aioseed.errors import ProtocolError
from aioseed.types import FIRST, BatchEnvironment
from aioseed.wire.columns import HEADER, ActionLayout, ActionRows, StepMessage
from aioseed.wire.messages import RefusedRow
from aioseed.wire.packing import PACKED_STEP_TYPE, Packer


class Reset(NamedTuple):
    """Begin new epochs: reset these rows with these seeds."""

    rows: np.ndarray  # intp, ascending
    slots: np.ndarray  # uint32
    epochs: np.ndarray  # uint64
    seeds: Sequence[int]


class Job(NamedTuple):
    """Tell a worker what to do: step with these actions, then reset; at least one of both."""

    actions: np.ndarray | None  # [E, *action shape]
    reset: Reset | None
    packer: Packer | None = None  # packs the STEP, where the learner unpacks it


class Work(NamedTuple):
    """Report what a worker did."""

    payload: bytes  # the STEP of all rows, perhaps packed
    transitions: int  # rows of it that are not first


class Reaction(NamedTuple):
    """Say what a group wants: messages to send, or a job to hand to its worker, or neither."""

    sends: tuple[bytes, ...] = ()
    job: Job | None = None


NOTHING = Reaction()


def perform(environment: BatchEnvironment, message: StepMessage, job: Job) -> Work:
    """Do a job. Thread: the group's worker, which owns the columns of `message` from the job to the report.

    Raises:
        EnvironmentFailed: An environment raised.
    """
    columns = message.columns
    if job.actions is not None:
        environment.step(job.actions, columns)
        np.add(columns.sequence, 1, out=columns.sequence)
    if job.reset is not None:
        rows = job.reset.rows
        environment.reset(rows, job.reset.seeds, columns)
        columns.slot[rows] = job.reset.slots
        columns.epoch[rows] = job.reset.epochs
        columns.sequence[rows] = 0
    first, payload = np.count_nonzero(columns.flags & FIRST), message.tobytes()
    if job.packer is not None:
        payload = job.packer.pack(payload, message.rows)
    return Work(payload, message.rows - int(first))


class _Outstanding(NamedTuple):
    identity: bytes  # of a STEP of all rows as the worker made it, else empty
    sent: np.ndarray  # bool[E], the rows of the STEP
    transitions: int  # rows that are not first, where there is an identity; else they are counted with the answer


class Group:
    """Decide what a group of E environments does, in one session and in those that go on with it.

    Args:
        message: The group's STEP; its columns are read here only while no worker has them.
        actions: Layout of the answers.
        seed: Gives the seed of a slot in an epoch.
    """

    def __init__(self, message: StepMessage, actions: ActionLayout, seed: Callable[[int, int], int]) -> None:
        self._message = message
        self._actions = actions
        self._seed = seed
        self._epochs: dict[int, int] = {}  # slot -> epoch of the rows that are leased
        self._row_of: dict[int, int] = {}  # slot -> row, kept after a revocation until another slot takes the row
        self._all = np.ones(message.rows, bool)
        self._leased = np.zeros(message.rows, bool)
        self._vacant = message.rows  # rows that are not leased
        self._claims: dict[int, tuple[int, int]] = {}  # row -> (slot, epoch), revoked before the row could answer
        self._leases: dict[int, tuple[int, int]] = {}  # row -> (slot, epoch), given but not yet begun
        self._working = False
        self._outstanding: _Outstanding | None = None
        self.acknowledged_rows = 0
        """Transitions that were answered so far."""
        self.packer: Packer | None = None
        """Packs STEPs from the next job on; None where this session's learner reads no packed ones."""

    @property
    def slots(self) -> list[int]:
        """Return the slots that have a row here, leased or taken away."""
        return list(self._row_of)

    @property
    def is_working(self) -> bool:
        """Return True while the worker has a job."""
        return self._working

    @property
    def leased_rows(self) -> int:
        """Return the number of rows that the learner wants, those of leases that have not begun included."""
        return self._message.rows - self._vacant + len(self._leases)

    @property
    def free_rows(self) -> int:
        """Return the number of rows that a lease of a new slot may take."""
        return self._message.rows - self.leased_rows

    def begin(self, slots: Sequence[int], epochs: Sequence[int]) -> Job:
        """Take one slot a row at the start of a session and return the job that resets them all."""
        self._row_of = {slot: row for row, slot in enumerate(slots)}
        self._leases = dict(enumerate(zip(slots, epochs, strict=True)))
        return self._job(None)

    def holds(self, slot: int, epoch: int) -> bool:
        """Return True for a lease that a row has or is about to begin."""
        return self._epochs.get(slot) == epoch or (slot, epoch) in self._leases.values()

    def keep(self, granted: Mapping[int, int]) -> None:
        """Give up every lease but those that were granted again (slot -> epoch): a session goes on with them."""
        self._leases = {row: lease for row, lease in self._leases.items() if granted.get(lease[0]) == lease[1]}
        for slot, epoch in list(self._epochs.items()):
            if granted.get(slot) != epoch:
                self._vacate(slot)

    def again(self) -> Reaction:
        """Send the STEP that waits for its answer again: nobody knows whether it or its answer was lost."""
        return self._settle() if self._outstanding is None else self._send_leased()

    def stepped(self, work: Work) -> Reaction:
        """Note that the worker is done and return the STEP to send, or a further job."""
        self._working = False
        if self._vacant == 0:
            # One that was packed for a learner of before, which another has followed, goes as it is.
            readable = self.packer is not None or work.payload[0] != PACKED_STEP_TYPE
            payload = work.payload if readable else self._message.tobytes()
            identity = payload[HEADER.size : self._message.layout.identity_bytes(self._message.rows)]
            self._outstanding = _Outstanding(identity, self._all, work.transitions)
            return Reaction(sends=(payload,))
        claim = self._claim()
        reaction = self._send_leased()
        return reaction._replace(sends=(*reaction.sends, *claim))

    def answered(self, payload: bytes, rows: int) -> Reaction:
        """Take an ACTION, whose header and size were checked, and return the next job.

        Rows of epochs that were taken away meanwhile do not count. The others must be the outstanding STEP, row by row.

        Raises:
            ProtocolError: It is not, or an action is none of the environments'.
        """
        outstanding, end = self._outstanding, self._actions.identity_bytes(rows)
        if outstanding is None or payload[HEADER.size : end] != outstanding.identity:
            return self._answered_in_part(self._actions.decode(payload))
        spec = self._actions.action
        actions = np.frombuffer(payload, spec.numpy_dtype, rows * spec.size, end).reshape((rows, *spec.shape))
        self._actions.check(actions)
        self.acknowledged_rows += outstanding.transitions
        return Reaction(job=self._job(actions))

    def revoke(self, slot: int, epoch: int) -> Reaction:
        """Give up a row; an older or unknown epoch changes nothing."""
        row = self._row_of.get(slot)
        if row is None:
            return NOTHING
        if self._leases.get(row) == (slot, epoch):
            del self._leases[row]
            self._claims[row] = slot, epoch
            return NOTHING
        if self._epochs.get(slot) != epoch:
            return NOTHING
        self._vacate(slot)
        if self._working:
            self._claims[row] = slot, epoch
        return self._settle()

    def lease(self, slot: int, epoch: int) -> Reaction:
        """Take a slot: on the row that it had, else on a vacant one; it begins when the group steps next.

        Raises:
            ProtocolError: More slots than environments.
        """
        self.reserve(slot, epoch)
        return self._settle()

    def reserve(self, slot: int, epoch: int) -> None:
        """Take a slot as `lease` does, but begin nothing yet.

        Raises:
            ProtocolError: More slots than environments.
        """
        row = self._row_of.get(slot)
        if row is None:
            row = self._take_vacant(slot)
        if slot in self._epochs:
            self._vacate(slot)
        self._leases[row] = (slot, epoch)
        self._claims.pop(row, None)

    def refused(self, rows: Iterable[RefusedRow]) -> Reaction:
        """Take an ERROR that names rows: they wait for a lease, the rest of that STEP is sent again."""
        outstanding = self._outstanding
        if outstanding is None:
            return NOTHING
        columns, named = self._message.columns, False
        for refused in rows:
            row = self._row_of.get(refused.slot)
            if row is None or not outstanding.sent[row]:
                continue
            if (columns.epoch[row], columns.sequence[row]) != (refused.epoch, refused.sequence):
                continue
            named = True
            if self._epochs.get(refused.slot) == refused.epoch:
                self._vacate(refused.slot)
        if not named:
            return NOTHING
        return self._send_leased()

    def _answered_in_part(self, answer: ActionRows) -> Reaction:
        pairs = zip(answer.slot.tolist(), answer.epoch.tolist(), strict=True)
        current = np.array([self._epochs.get(slot) == epoch for slot, epoch in pairs], bool)
        if not current.any():
            return NOTHING  # it crossed a revocation on the road
        if self._outstanding is None:
            raise _wrong_rows()
        expected = np.flatnonzero(self._leased)
        columns = self._message.columns
        if not (
            np.array_equal(answer.slot[current], columns.slot[expected])  # so the epochs are, too
            and np.array_equal(answer.sequence[current], columns.sequence[expected])
        ):
            raise _wrong_rows()
        chosen = answer.action[current]
        self._actions.check(chosen)
        self.acknowledged_rows += len(expected) - int(np.count_nonzero(columns.flags[expected] & FIRST))
        actions = np.repeat(self._actions.idle_action[None], self._message.rows, axis=0)
        actions[expected] = chosen
        return Reaction(job=self._job(actions))

    def _job(self, actions: np.ndarray | None) -> Job:
        self._outstanding, self._working = None, True
        if not self._leases:
            return Job(actions, None, self.packer)
        begun = sorted(self._leases.items())
        self._leases = {}
        for row, (slot, epoch) in begun:
            self._leased[row] = True
            self._vacant -= 1
            self._epochs[slot] = epoch
        slots, epochs = [slot for _, (slot, _) in begun], [epoch for _, (_, epoch) in begun]
        seeds = [self._seed(slot, epoch) for slot, epoch in zip(slots, epochs, strict=True)]
        rows = np.array([row for row, _ in begun], np.intp)
        reset = Reset(rows, np.array(slots, np.uint32), np.array(epochs, np.uint64), seeds)
        return Job(actions, reset, self.packer)

    def _send_leased(self) -> Reaction:
        """Send the rows that are leased: leases begin with a job alone, so that a STEP that waits has them all."""
        rows = self._leased.copy()
        if not rows.any():
            return self._settle()
        self._outstanding = _Outstanding(b"", rows, 0)
        return Reaction(sends=(self._message.subset(rows),))

    def _claim(self) -> tuple[bytes, ...]:
        """Return a STEP of the rows that were revoked during the job, or with a lease that waited for its end.

        It is refused for its old epochs, and so tells the learner, which revoked them perhaps since they took too long,
        that they are back and can be leased again.
        """
        if not self._claims:
            return ()
        columns, claimed = self._message.columns, np.zeros(self._message.rows, bool)
        for row, (slot, epoch) in self._claims.items():
            claimed[row] = True
            columns.slot[row], columns.epoch[row] = slot, epoch  # of a lease that never began, another than was stepped
        self._claims = {}
        return (self._message.subset(claimed),)

    def _settle(self) -> Reaction:
        """Forget an outstanding STEP of which no row is left, and begin leases when nothing else is under way."""
        if self._working or self._leased.any():
            return NOTHING
        self._outstanding = None
        return Reaction(job=self._job(None)) if self._leases else NOTHING

    def _vacate(self, slot: int) -> None:
        del self._epochs[slot]
        self._leased[self._row_of[slot]] = False
        self._vacant += 1

    def _take_vacant(self, slot: int) -> int:
        for former, row in self._row_of.items():
            if not self._leased[row] and row not in self._leases:
                del self._row_of[former]
                self._row_of[slot] = row
                return row
        raise ProtocolError("not_leased", f"slot {slot} was leased, but every environment here has a slot")


def _wrong_rows() -> ProtocolError:
    return ProtocolError("action_rows", "an ACTION does not answer the rows of the STEP that waits for it")
