"""Groups of an actor: the slots of a session that step together, and so stand in every STEP in the same order.

What a STEP of a group begins with is known before it comes, but for nothing: header, epochs and slots stay as long as
the leases do, and the sequence numbers are those of the answer before, plus one. So a message is accepted by one
comparison, whatever its number of rows, and answered by joining what is known with one slice of the actions.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from aioseed.types import Payload
from aioseed.wire.columns import HEADER, ActionLayout, StepLayout

MAX_GROUPS = 256
"""Groups that are kept for a session: one that plays with subsets must not fill our memory."""

_NOTHING = b"\xff"
"""No STEP begins with it."""


class KnownGroup:
    """Know what the next STEP of a group begins with, and how it is answered.

    Args:
        session: Who is answered.
        head: A STEP of the group, up to the end of its identity.
        slots: Of its rows, int64[n].
    """

    __slots__ = ("_gap", "_step_head", "answer_head", "expected", "key", "rows", "session", "size_bytes", "slots")

    def __init__(
        self, session: Respondent, head: bytes, slots: np.ndarray, steps: StepLayout, actions: ActionLayout
    ) -> None:
        rows = len(slots)
        sequence_at = HEADER.size + ((12 * rows + 7) & ~7)  # behind epochs and slots
        self.session = session
        self.slots = slots
        self.rows = rows
        self.size_bytes = steps.size_bytes(rows)
        self.key = head[(at := HEADER.size + 8 * rows) : at + 4]
        self.expected = _NOTHING  # header and identity of its next STEP, while one may come
        self.answer_head = actions.header(rows) + head[HEADER.size : sequence_at]
        self._step_head = head[:sequence_at]
        self._gap = bytes(len(head) - sequence_at - 4 * rows)  # behind an odd number of sequence numbers

    def await_nothing(self) -> None:
        """Accept no STEP without a careful look until `answer`."""
        self.expected = _NOTHING

    def answer(self, sequence: bytes, actions: bytes) -> None:
        """Send the ACTION of the STEP that has come.

        Args:
            sequence: Its sequence numbers, u32[n].
            actions: Packed actions of its rows.
        """
        self.session.answer(b"".join((self.answer_head, sequence, self._gap, actions)))

    def expect(self, sequence: bytes) -> None:
        """Accept the next STEP, which has these sequence numbers, without looking at its rows one by one."""
        self.expected = self._step_head + sequence + self._gap


class CarefulReply(NamedTuple):
    """Hold an answer back until every slot of the STEP has its action."""

    identity: bytes
    slots: np.ndarray  # int64[n]
    sequence: np.ndarray  # uint32[n]

    def only(self, rows: np.ndarray) -> CarefulReply:
        """Return the answer to some of the rows, bool[n]."""
        epochs = np.frombuffer(self.identity, np.uint64, len(rows))[rows]
        slots, sequence = self.slots[rows], self.sequence[rows]
        columns = epochs.tobytes(), slots.astype(np.uint32).tobytes(), sequence.tobytes()
        return CarefulReply(b"".join(column + bytes(-len(column) % 8) for column in columns), slots, sequence)


class Respondent(Protocol):
    """Be somebody who sent a STEP: what intake needs of a session."""

    number: int
    groups: dict[bytes, KnownGroup]  # which never overlap, by the bytes of the first row's slot
    careful: dict[bytes, CarefulReply]  # answers that are held back, by identity

    def answer(self, payload: bytes) -> None:
        """Send one ACTION; a channel that has ended swallows it."""

    def count_vain(self, now_s: float) -> None:
        """Count a STEP that brings nothing new.

        Raises:
            ProtocolError: There were too many in a short time.
        """


# Whose rows lie in a batch: (group, or None for rows that came over the careful road, first row in the batch, the row
# behind the last, when the STEP arrived in seconds). A plain tuple, since one is made for each message.
Segment: TypeAlias = tuple[KnownGroup | None, int, int, float]


def beginning_of(payload: Payload, slots_at: int) -> bytes:
    """Return a STEP's header and identity, and perhaps what follows, as bytes.

    Args:
        slots_at: Offset of its first slot, behind header and epochs: the identity is less than twice as long.
    """
    return payload if isinstance(payload, bytes) else bytes(payload[: 2 * slots_at + 8])


def drop_groups(session: Respondent, slots: np.ndarray) -> None:
    """Forget groups that share a slot with `slots`. A STEP of theirs that is in a batch is answered nevertheless."""
    for key, group in list(session.groups.items()):
        if np.isin(group.slots, slots).any():
            del session.groups[key]
