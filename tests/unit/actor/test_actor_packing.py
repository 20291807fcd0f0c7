"""When an actor packs its STEPs: if the user or the distance asks for it, and if the learner can unpack them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aioseed.actor.group import Group, Job, perform
from aioseed.actor.run import _packs
from aioseed.actor.worker import Built
from aioseed.specs import ArraySpec, discrete
from aioseed.types import EnvironmentSpec
from aioseed.wire import packing
from aioseed.wire.columns import STEP_TYPE, ActionLayout, StepLayout, StepMessage, step_views
from aioseed.wire.packing import DEFLATE, PACKED_STEP_TYPE, Packer

from .conftest import STEPS, CountingEnvironment

ROWS = 64


@pytest.mark.parametrize(
    ("compression", "packings", "kind"),
    [
        ("deflate", [DEFLATE], PACKED_STEP_TYPE),
        ("deflate", ["later", DEFLATE], PACKED_STEP_TYPE),
        ("deflate", ["later"], STEP_TYPE),
        ("deflate", [], STEP_TYPE),
        ("none", [DEFLATE], STEP_TYPE),
        ("auto", [DEFLATE], STEP_TYPE),  # over memory
    ],
)
async def test_steps_are_packed_if_both_ends_agree(
    stage: Any, compression: str, packings: list[str], kind: int
) -> None:
    await stage.listen()
    task = stage.start(ROWS, compression=compression)
    peer = await stage.peer()
    await peer.greet(range(ROWS), [1] * ROWS, packings=packings)
    for sequence in range(3):
        step = await peer.step()
        assert step.payload[0] == kind and step.sequences == [sequence] * ROWS
        assert step.columns.observation[0][:, 0].tolist() == [sequence] * ROWS
        peer.act(step, [3] * ROWS)
    await peer.step()
    peer.end_run()
    assert (await task).transitions == 2 * ROWS


async def test_a_learner_that_comes_back_without_it_gets_plain_steps(stage: Any) -> None:
    await stage.listen()
    task = stage.start(ROWS, compression="deflate", jitter=lambda: 0.0)
    peer = await stage.peer()
    await peer.greet(range(ROWS), [1] * ROWS, packings=[DEFLATE])
    assert (await peer.step()).payload[0] == PACKED_STEP_TYPE
    await peer.cut()
    again = await stage.peer()
    await again.greet(range(ROWS), [1] * ROWS)
    for sequence in range(4):
        step = await again.step()
        assert step.payload[0] == STEP_TYPE and step.sequences == [sequence] * ROWS
        again.act(step, [1] * ROWS)
    again.end_run()
    await task


def test_what_was_packed_for_a_learner_of_before_goes_plain_to_one_that_reads_no_packed_steps() -> None:
    environment, message = CountingEnvironment(ROWS), StepMessage(STEPS, ROWS)
    group = Group(message, ActionLayout(environment.spec.action), lambda slot, epoch: 1)
    group.packer = Packer(STEPS, 0.9)
    work = perform(environment, message, group.begin(range(ROWS), [1] * ROWS))
    group.packer = None
    assert work.payload[0] == PACKED_STEP_TYPE
    assert group.stepped(work).sends == (message.tobytes(),)


def test_rows_of_a_group_that_lost_some_go_plain_and_all_of_them_packed_again() -> None:
    environment, message = CountingEnvironment(ROWS), StepMessage(STEPS, ROWS)
    group = Group(message, ActionLayout(environment.spec.action), lambda slot, epoch: 1)
    group.packer = Packer(STEPS, 0.9)

    def does(job: Job | None) -> bytes:
        assert job is not None and job.packer is group.packer
        (payload,) = group.stepped(perform(environment, message, job)).sends
        return payload

    first = does(group.begin(range(ROWS), [1] * ROWS))
    assert first[0] == PACKED_STEP_TYPE
    group.revoke(5, 1)
    plain = packing.unpack(STEPS, first, ROWS)
    keep = np.arange(ROWS) != 5
    identity = message.subset(keep)[8 : STEPS.identity_bytes(ROWS - 1)]
    actions = ActionLayout(environment.spec.action)
    part = does(group.answered(actions.encode(ROWS - 1, identity, bytes(4 * (ROWS - 1))), ROWS - 1).job)
    assert part[0] == STEP_TYPE and step_views(STEPS, part).slot.tolist() == np.arange(ROWS)[keep].tolist()
    assert step_views(STEPS, plain).slot.tolist() == list(range(ROWS))
    group.lease(5, 2)
    identity = part[8 : STEPS.identity_bytes(ROWS - 1)]
    whole = does(group.answered(actions.encode(ROWS - 1, identity, bytes(4 * (ROWS - 1))), ROWS - 1).job)
    assert whole[0] == PACKED_STEP_TYPE
    # ... and an answer to a packed step is known by its identity, which is not packed.
    answer = actions.encode(ROWS, whole[8 : STEPS.identity_bytes(ROWS)], bytes(4 * ROWS))
    assert group.answered(answer, ROWS).job is not None


@pytest.mark.parametrize(
    ("compression", "url", "observation_bytes", "packs"),
    [
        ("auto", "ws://learner.example:8700", 1024, 0.5),
        ("auto", "grpcs://10.0.0.1:8701", 2**20, 0.5),
        ("auto", "ws://learner.example:8700", 1023, None),
        ("auto", "ws://127.0.0.1:8700", 2**20, None),
        ("auto", "wss://localhost:8700", 2**20, None),
        ("auto", "grpc://[::1]:8701", 2**20, None),
        ("auto", "memory://learner", 2**20, None),
        ("deflate", "ws://127.0.0.1:8700", 1, 0.9),
        ("none", "ws://learner.example:8700", 2**20, None),
    ],
)
def test_auto_packs_what_is_not_tiny_on_its_way_to_another_machine(
    compression: Any, url: str, observation_bytes: int, packs: float | None
) -> None:
    observation = {"picture": ArraySpec("uint8", (observation_bytes - 1,)), "rest": ArraySpec("uint8", ())}
    if observation_bytes == 1:
        del observation["picture"]
    message = StepMessage(StepLayout(observation, 1), 1)
    assert _packs(compression, url, [Built(EnvironmentSpec(observation, discrete(2)), (), message)]) == packs
