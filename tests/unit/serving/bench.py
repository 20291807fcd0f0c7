"""An intake with sessions that keep what they were answered, and a device that is served by hand."""

from __future__ import annotations

import numpy as np

from aioseed.serving.intake import ActionTable, CarefulReply, ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.slots import SlotTable
from aioseed.specs import ArraySpec, discrete
from aioseed.types import FIRST
from aioseed.wire.columns import ActionLayout, StepLayout, StepMessage

STEPS = StepLayout(ArraySpec("float32", (2,)), 0)
ACTIONS = ActionLayout(discrete(100))


class Peer:
    """A session as intake sees it, which keeps what it was answered."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.groups: dict = {}
        self.careful: dict[bytes, CarefulReply] = {}
        self.counted = 0
        self.answers: list[bytes] = []

    def answer(self, payload: bytes) -> None:
        self.answers.append(payload)

    def count_vain(self, now_s: float) -> None:
        self.counted += 1


class Bench:
    """An intake with a device that is served by hand: each action is its slot number plus its sequence number."""

    def __init__(self, capacity: int = 16, *, steps: StepLayout = STEPS, **limits: float) -> None:
        self.steps = steps
        self.table = SlotTable(capacity, 1)
        self.actions = ActionTable(np.zeros(capacity + 1, np.int32))
        self.batches: list[ClosedBatch] = []
        defaults = {"max_rows": 8, "max_in_flight": 4, "deadline_s": 1.0}
        self.intake = Intake(
            steps, ACTIONS, self.table, self.actions, Limits(**(defaults | limits)), self.batches.append
        )

    def join(self, number: int, environments: int) -> tuple[Peer, np.ndarray]:
        slots = self.table.lease(number, environments, 0.0)
        assert slots is not None
        return Peer(number), slots

    def step(self, slots: np.ndarray, sequence: int | list[int], value: float = 0.0) -> bytes:
        message = StepMessage(self.steps, len(slots))
        columns = message.columns
        columns.slot[:] = slots
        columns.epoch[:] = self.table.epoch[slots]
        columns.sequence[:] = sequence
        columns.flags[:] = np.where(columns.sequence == 0, FIRST, 0)
        columns.observation[0][:] = value
        return message.tobytes()

    def serve(self, now_s: float = 0.0) -> int:
        batch = self.batches.pop(0)
        columns = batch.rows.columns
        acts = (columns.slot[: batch.count] + columns.sequence[: batch.count]).astype(np.int32)
        self.actions.action[columns.slot[: batch.count]] = acts
        self.intake.answer(batch, acts.tobytes(), 4, now_s)
        self.intake.served(now_s - batch.closed_s)
        batch.rows.release()
        return batch.count


def taken(peer: Peer) -> list[tuple[list[int], list[int], list[int]]]:
    rows = [ACTIONS.decode(payload) for payload in peer.answers]
    return [(row.slot.tolist(), row.sequence.tolist(), row.action.tolist()) for row in rows]
