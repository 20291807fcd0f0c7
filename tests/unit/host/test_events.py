from __future__ import annotations

import asyncio

import pytest

from aioseed.host.events import EventHub, Finished, Listening, Progress, Ready, Saved, Trouble
from aioseed.host.run import finished_before_training

pytestmark = pytest.mark.virtual_time

LISTENING, READY, TROUBLE = Listening(("memory://a",)), Ready(1.0), Trouble("an actor died")
SAVED = Saved(4, "runs/a/checkpoints/000000000004")


def progress(number: int) -> Progress:
    fields = dict.fromkeys(Progress._fields, 0.0)
    return Progress(**{**fields, "env_steps": number, "dropped": {}, "metrics": {}, "verdict": "", "share_done": None})


async def follow(hub: EventHub, run: asyncio.Task[Finished]) -> list[object]:
    return [event async for event in hub.follow(run)]


@pytest.fixture
async def run():
    """A run that ends when its event is set."""
    end = asyncio.Event()

    async def body() -> Finished:
        await end.wait()
        return finished_before_training("runs/a")

    task = asyncio.create_task(body())
    yield task, end
    end.set()
    await task


async def test_every_listener_hears_everything_in_order_until_the_end(run):
    task, end = run
    hub = EventHub()
    early = [asyncio.create_task(follow(hub, task)) for _ in range(2)]
    await asyncio.sleep(1)
    for event in (LISTENING, READY, progress(1), TROUBLE):
        hub.emit(event)
    await asyncio.sleep(1)
    hub.emit(progress(2))
    end.set()
    for listener in early:
        assert await listener == [LISTENING, READY, progress(1), TROUBLE, progress(2)]


async def test_who_comes_late_is_told_what_happened_but_only_the_newest_progress_and_checkpoint(run):
    task, end = run
    hub = EventHub()
    for event in (LISTENING, READY, progress(1), SAVED, progress(2), TROUBLE, progress(3), SAVED, progress(4)):
        hub.emit(event)
    end.set()
    await task
    assert await follow(hub, task) == [LISTENING, READY, TROUBLE, SAVED, progress(4)]


async def test_what_is_kept_for_who_comes_late_does_not_grow_with_the_run(run):
    task, end = run
    hub = EventHub()
    for number in range(1000):
        for event in (progress(number), SAVED, Trouble(f"the disk is full, {number}")):
            hub.emit(event)
    end.set()
    await task
    heard = await follow(hub, task)
    assert len(heard) < 100
    assert heard[-3:] == [progress(999), SAVED, Trouble("the disk is full, 999")]


async def test_a_slow_listener_loses_progress_and_nothing_else(run):
    task, end = run
    hub = EventHub()
    listener = hub.follow(task)
    hub.emit(LISTENING)
    assert await anext(listener) == LISTENING
    for number in range(1000):
        hub.emit(progress(number))
    hub.emit(TROUBLE)
    end.set()
    await task
    heard = [event async for event in listener]
    assert heard[-1] == TROUBLE and len(heard) < 100
    assert heard[:3] == [progress(0), progress(1), progress(2)]


async def test_a_listener_that_leaves_is_forgotten_and_cancelling_one_loses_nothing_for_the_others(run):
    task, end = run
    hub = EventHub()
    leaves, stays = asyncio.create_task(follow(hub, task)), asyncio.create_task(follow(hub, task))
    await asyncio.sleep(1)
    hub.emit(LISTENING)
    leaves.cancel()
    await asyncio.sleep(1)
    assert leaves.cancelled()
    hub.emit(READY)
    end.set()
    assert await stays == [LISTENING, READY]
    assert not hub._listeners


def test_finished_knows_whether_it_was_solved_and_saved():
    nothing = finished_before_training("runs/a")
    assert (nothing.reason, nothing.solved, nothing.saved) == ("stopped", False, False)
    assert nothing._replace(reason="solved", params_sha256="ab").solved
    assert nothing._replace(params_sha256="ab").saved
