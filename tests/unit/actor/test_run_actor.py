from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from aioseed.actor.seeds import environment_seed
from aioseed.types import FIRST
from aioseed.wire.messages import Bye, Error, Lease, Ping, Pong, RefusedRow, Revoke, Starting, Task


def row(slot: int, epoch: int, sequence: int, code: str = "stale_epoch") -> RefusedRow:
    return RefusedRow(slot=slot, epoch=epoch, sequence=sequence, code=code)


async def test_an_actor_steps_until_the_run_is_over(stage: Any) -> None:
    await stage.listen()
    task = stage.start(2, actor_id="me", actor_index=3, task=Task(name="counting", config={"a": 1}))
    peer = await stage.peer()
    hello = await peer.hello()
    assert (hello.actor_id, hello.actor_index, hello.environments, hello.role) == ("me", 3, 2, "train")
    assert hello.task is not None and hello.task.config == {"a": 1}
    assert hello.observation == {"dtype": "float32", "shape": [2]} and hello.metrics[0].name == "score"
    peer.say(Starting())
    peer.welcome([8, 9], [5, 6])
    first = await peer.step()
    assert (first.slots, first.epochs, first.sequences) == ([8, 9], [5, 6], [0, 0])
    assert (first.columns.flags == FIRST).all()
    peer.act(first, [1, 2])
    second = await peer.step()
    assert (second.slots, second.epochs, second.sequences) == ([8, 9], [5, 6], [1, 1])
    assert second.columns.observation[0].tolist() == [[1, 1], [1, 2]]
    peer.act(second, [3, 0])
    await peer.step()
    peer.end_run()
    assert await task == ("run", 1, 2)  # the answers to the first rows acknowledge no transition
    [environment] = stage.environments
    assert environment.resets == [([0, 1], [environment_seed(7, 8, 5), environment_seed(7, 9, 6)])]
    assert environment.actions == [[1, 2], [3, 0]]
    assert stage.kinds() == ["starting", "welcomed", "over"]
    assert len(environment.threads) == 1 and threading.main_thread() not in environment.threads


async def test_pipelined_groups_are_matched_by_slot_when_replies_come_out_of_order(stage: Any) -> None:
    await stage.listen()
    task = stage.start(4, groups=2)
    peer = await stage.peer()
    await peer.greet([0, 1, 2, 3], [1, 1, 1, 1])
    low, high = await peer.steps(2)
    for k in range(1, 6):
        peer.act(high, [3, 2])
        peer.act(low, [1, 0])
        low, high = await peer.steps(2)
        assert low.sequences == high.sequences == [k, k]
    peer.end_run()
    await task
    by_first_seed = {environment.resets[0][1][0]: environment for environment in stage.environments}
    assert by_first_seed[environment_seed(7, 0, 1)].actions == [[1, 0]] * 5
    assert by_first_seed[environment_seed(7, 2, 1)].actions == [[3, 2]] * 5


async def test_one_group_goes_on_while_another_waits_for_its_answer(stage: Any) -> None:
    await stage.listen()
    stage.start(2, groups=2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1])
    _, fast = await peer.steps(2)
    for k in range(1, 4):
        peer.act(fast, [0])
        fast = await peer.step()
        assert (fast.slots, fast.sequences) == ([1], [k])


async def test_pings_are_answered_while_environments_step(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    assert await peer.barrier() == []  # answered, and no STEP came before the answer
    held.let_go()
    assert (await peer.step()).sequences == [1]


@pytest.mark.parametrize("how", ["cut", "shutdown", "replaced", "unresponsive"])
async def test_a_lost_learner_is_dialled_again_and_environments_are_reset(stage: Any, how: str) -> None:
    await stage.listen()
    task = stage.start(2)
    peer = await stage.peer()
    assert (await peer.greet([0, 1], [1, 2])).acknowledged_rows == 0
    for _ in range(3):
        peer.act(await peer.step(), [0, 0])
    await peer.step()
    if how == "cut":
        await peer.cut()
    else:
        peer.say(Bye(code=how))
    peer = await stage.peer()
    hello = await peer.greet([4, 5], [9, 9])
    assert hello.acknowledged_rows == 4
    assert hello.resume_token == ("next" if how == "cut" else None)  # who said BYE has kept nothing
    step = await peer.step()
    assert (step.slots, step.epochs, step.sequences) == ([4, 5], [9, 9], [0, 0])
    assert (step.columns.flags == FIRST).all()
    peer.end_run()
    assert (await task).sessions == 2
    [environment] = stage.environments
    assert environment.resets[1] == ([0, 1], [environment_seed(7, 4, 9), environment_seed(7, 5, 9)])


async def test_rows_acknowledged_in_another_run_are_not_counted(stage: Any) -> None:
    await stage.listen()
    stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    for _ in range(3):
        peer.act(await peer.step(), [0])
    await peer.step()
    await peer.cut()
    for expected, run_id in ((2, "other"), (0, "other")):
        peer = await stage.peer()
        assert (await peer.greet([0], [2], run_id=run_id)).acknowledged_rows == expected
        await peer.step()
        await peer.cut()


async def test_a_step_of_the_last_session_is_not_sent_in_the_next(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    await held.under_way()
    await peer.cut()
    peer = await stage.peer()
    await peer.greet([0], [2])
    held.let_go()
    step = await peer.step()
    assert (step.epochs, step.sequences) == ([2], [0])


async def test_refused_rows_wait_for_a_lease_and_the_others_are_sent_again(stage: Any) -> None:
    await stage.listen()
    stage.start(3)
    peer = await stage.peer()
    await peer.greet([0, 1, 2], [1, 1, 1])
    peer.act(await peer.step(), [1, 1, 1])
    step = await peer.step()
    peer.say(Error(code="stale_epoch", rows=[row(1, 1, 1)]))
    again = await peer.step()
    assert (again.slots, again.sequences) == ([0, 2], [1, 1])
    assert np.array_equal(again.columns.observation[0], step.columns.observation[0][[0, 2]])
    peer.act(again, [2, 3])
    assert (await peer.step()).slots == [0, 2]
    peer.say(Lease(slots=[1], epochs=[8]))
    assert await peer.barrier() == []  # the group's step is unanswered: the lease begins with the next
    assert stage.environments[0].actions == [[1, 1, 1], [2, 0, 3]]


async def test_a_revoked_row_is_given_up_and_comes_back_reset_while_its_siblings_go_on(stage: Any) -> None:
    await stage.listen()
    task = stage.start(3)
    peer = await stage.peer()
    await peer.greet([0, 1, 2], [1, 1, 1])
    step = await peer.step()
    peer.say(Revoke(slots=[1], epochs=[1], reason="idle"))
    peer.act(step, [1, 1, 1])  # crosses the revocation and still answers the row
    step = await peer.step()
    assert (step.slots, step.sequences) == ([0, 2], [1, 1])
    peer.say(Lease(slots=[1], epochs=[7]))
    peer.act(step, [2, 3])
    step = await peer.step()
    assert (step.slots, step.epochs, step.sequences) == ([0, 1, 2], [1, 7, 1], [2, 0, 2])
    assert step.columns.flags.tolist() == [0, FIRST, 0]
    peer.act(step, [1, 2, 3])
    assert (await peer.step()).sequences == [3, 1, 3]
    peer.end_run()
    # rows 0 and 2 of three answered steps, but for their first; row 1 has only its first
    assert (await task).transitions == 2 + 2
    assert stage.environments[0].resets[1] == ([1], [environment_seed(7, 1, 7)])


async def test_a_wholly_revoked_group_begins_anew_at_once_when_leased(stage: Any) -> None:
    await stage.listen()
    stage.start(2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1])
    late = await peer.step()
    peer.say(Revoke(slots=[0, 1], epochs=[1, 1]))
    peer.say(Lease(slots=[5], epochs=[4]))
    step = await peer.step()
    assert (step.slots, step.epochs, step.sequences) == ([5], [4], [0])
    peer.act(late, [0, 0])  # of epochs that are gone: ignored
    peer.act(step, [3])
    assert (await peer.step()).sequences == [1]


async def test_an_actor_that_is_leased_nothing_any_more_joins_anew(stage: Any) -> None:
    await stage.listen()
    stage.start(2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1], ping_interval_s=0.05, ping_timeout_s=0.05)
    await peer.step()
    peer.say(Error(code="stale_epoch", rows=[row(0, 1, 0), row(1, 1, 0)]))
    while not isinstance(message := await peer.hear(), Bye):
        assert isinstance(message, Ping)
        peer.say(Pong(number=message.number))
    assert message.code == "leaving"
    peer = await stage.peer()
    await peer.greet([0, 1], [2, 2])
    assert (await peer.step()).epochs == [2, 2]


@pytest.mark.parametrize("code", ["sequence_gap", "not_first", "unanswered"])
async def test_an_actor_that_disagrees_with_the_learner_joins_anew(stage: Any, code: str) -> None:
    await stage.listen()
    stage.start(2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1])
    await peer.step()
    peer.say(Error(code=code, rows=[row(0, 1, 0, code)]))
    assert (await peer.step()).slots == [1]
    assert (await peer.hear()).code == "leaving"
    peer = await stage.peer()
    await peer.greet([0, 1], [2, 2])
    assert (await peer.step()).epochs == [2, 2]


async def test_rows_revoked_while_they_stepped_say_that_they_are_back(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    stage.start(2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1])
    peer.act(await peer.step(), [0, 0])
    peer.say(Revoke(slots=[1], epochs=[1], reason="too slow"))
    assert await peer.barrier() == []
    held.let_go()
    step, claim = await peer.step(), await peer.step()
    assert (step.slots, step.sequences) == ([0], [1])
    assert (claim.slots, claim.epochs, claim.sequences) == ([1], [1], [1])
    peer.say(Error(code="stale_epoch", rows=[row(1, 1, 1)]))
    peer.say(Lease(slots=[1], epochs=[2]))
    peer.act(step, [3])
    step = await peer.step()
    assert (step.slots, step.epochs, step.sequences) == ([0, 1], [1, 2], [2, 0])
