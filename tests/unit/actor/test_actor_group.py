"""What the environments of rows are stepped with that the learner has taken away."""

from __future__ import annotations

import numpy as np

from aioseed.actor.group import Group, perform
from aioseed.specs import ActionSpec, ArraySpec
from aioseed.types import EnvironmentMetric, EnvironmentSpec, StepColumns
from aioseed.wire.columns import HEADER, ActionLayout, StepLayout, StepMessage


class Heard:
    """Two environments that keep what they were stepped with."""

    spec = EnvironmentSpec(
        ArraySpec("float32", (1,)), ActionSpec("box", ArraySpec("float32", (1,)), low=(5.0,), high=(10.0,))
    )
    metrics: tuple[EnvironmentMetric, ...] = ()
    count = 2

    def __init__(self) -> None:
        self.actions: list[list[list[float]]] = []

    def reset(self, rows: np.ndarray, seeds: list[int], columns: StepColumns) -> None:
        """Begin."""

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        self.actions.append(actions.tolist())

    def close(self) -> None:
        """End."""


def test_a_row_that_was_taken_away_is_stepped_with_a_legal_action() -> None:
    env = Heard()
    layout = ActionLayout(env.spec.action)
    message = StepMessage(StepLayout(env.spec.observation, 0), 2)
    group = Group(message, layout, lambda slot, epoch: 1)
    group.stepped(perform(env, message, group.begin([0, 1], [1, 1])))
    group.revoke(1, 1)
    sent = message.subset(np.array([True, False]))
    identity = bytes(sent[HEADER.size : message.layout.identity_bytes(1)])
    answer = layout.encode(1, identity, np.array([[7.0]], np.float32).tobytes())
    group.stepped(perform(env, message, group.answered(answer, 1).job))
    assert env.actions == [[[7.0], [5.0]]]
