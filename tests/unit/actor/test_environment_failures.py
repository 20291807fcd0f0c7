"""Environments that hang, raise or cannot be built or closed: what the actor says, to whom, and what it leaves."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from aioseed.errors import EnvironmentFailed, SpaceError
from aioseed.wire.messages import Bye

from .conftest import CountingEnvironment


async def test_a_hung_environment_is_told_while_pings_are_answered(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    task = stage.start(1, step_deadline_s=0.2)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    assert await peer.barrier() == []
    bye = await peer.hear()
    assert isinstance(bye, Bye) and bye.code == "failed" and "hung" in bye.reason
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("aioseed-environments")]
    assert hanging and all(thread.daemon for thread in hanging)  # they do not keep the process alive
    held.let_go()  # so that the thread can end
    with pytest.raises(EnvironmentFailed, match="hung"):
        await task


async def test_environments_that_hang_across_a_break_are_told_in_the_next_session(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    task = stage.start(1, step_deadline_s=0.2)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    await held.under_way()
    await peer.cut()
    peer = await stage.peer()
    await peer.greet([0], [1])
    try:
        async with asyncio.timeout(5.0):
            bye = await peer.hear()
    finally:
        held.let_go()
    assert isinstance(bye, Bye) and "hung" in bye.reason
    with pytest.raises(EnvironmentFailed, match="hung"):
        await task


async def test_who_waits_for_an_answer_does_not_hang(stage: Any) -> None:
    await stage.listen()
    stage.start(1, step_deadline_s=0.4)
    peer = await stage.peer()
    await peer.greet([0], [1])
    step = await peer.step()
    await asyncio.sleep(0.9)
    peer.act(step, [0])
    await peer.step()


async def test_the_learner_may_shorten_the_step_deadline(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1], step_deadline_s=0.1)
    peer.act(await peer.step(), [0])
    assert (await peer.hear()).code == "failed"
    held.let_go()
    with pytest.raises(EnvironmentFailed, match="hung"):
        await task


@pytest.mark.parametrize("error", [ValueError, SystemExit])
async def test_an_environment_that_raises_ends_the_actor_with_its_words(stage: Any, error: type[BaseException]) -> None:
    await stage.listen()

    def fail() -> None:
        raise error("the wheel came off")

    stage.before_step = fail
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    bye = await peer.hear()
    assert isinstance(bye, Bye) and bye.code == "failed"
    with pytest.raises(EnvironmentFailed, match=f"{error.__name__}: the wheel came off") as caught:
        await task
    assert isinstance(caught.value.__cause__, error)


async def test_an_environment_that_fails_while_no_learner_is_there_is_not_forgotten(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps(ValueError("late"))
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    await held.under_way()
    await peer.cut()
    peer = await stage.peer()
    held.let_go()
    await peer.greet([0], [2])
    with pytest.raises(EnvironmentFailed, match="late"):
        await task


async def test_what_fails_while_it_is_built_is_raised(stage: Any) -> None:
    def make(count: int) -> Any:
        raise SpaceError("a space of unicorns cannot be served")

    with pytest.raises(SpaceError, match="unicorns"):
        await stage.start(2, groups=2, make_env=make)
    assert stage.events == []  # the thread of the second group has not begun, and is not waited for


async def test_what_was_built_wrongly_is_closed(stage: Any) -> None:
    with pytest.raises(EnvironmentFailed, match="1 environments were asked for, 2 were made"):
        await stage.start(1, make_env=lambda count: stage.make(count + 1))
    assert [environment.closed for environment in stage.environments] == [True]


async def test_environments_that_fail_while_they_close_are_told(stage: Any) -> None:
    class Stuck(CountingEnvironment):
        def close(self) -> None:
            super().close()
            raise ValueError("the door is stuck")

    await stage.listen()
    task = stage.start(1, make_env=Stuck)
    peer = await stage.peer()
    await peer.greet([0], [1])
    await peer.step()
    peer.end_run()
    await task
    assert stage.events[-1].message == (
        "the environments of group 0 did not close cleanly: the environment raised ValueError: the door is stuck"
    )


async def test_environments_that_do_not_close_are_left_behind_and_told(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed.actor.run.CLOSE_S", 0.05)
    await stage.listen()
    held = stage.hold_steps()
    task = stage.start(1, step_deadline_s=0.2)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    try:
        async with asyncio.timeout(5.0):
            with pytest.raises(EnvironmentFailed, match="hung"):
                await task
    finally:
        held.let_go()
    assert stage.events[-1].message == "the environments of group 0 did not close and are left behind"
    await asyncio.to_thread(held.thread.join, 10)


async def test_whatever_else_goes_wrong_ends_the_actor_with_it(stage: Any) -> None:
    class Full(list[Any]):
        def append(self, event: Any) -> None:
            raise LookupError("no room for events")

    stage.events = Full()
    await stage.listen()
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    with pytest.raises(LookupError, match="no room"):
        await task


async def test_cancelling_in_the_middle_of_a_step_tells_the_learner_and_leaves_nothing(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    task = stage.start(2, groups=2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1])
    peer.act((await peer.steps(2))[0], [0])
    await held.under_way()
    task.cancel()
    bye = await peer.hear()
    assert isinstance(bye, Bye) and bye.code == "leaving"
    assert not task.done()  # it waits for the step
    held.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(environment.closed for environment in stage.environments)
