from __future__ import annotations

import asyncio

import pytest

from aioseed.errors import ChannelClosed
from aioseed.transport.channel import Place
from aioseed.transport.queue import HIGH_WATER_BYTES, MESSAGE_OVERHEAD_BYTES, MessageQueue, again, cut_reason
from aioseed.types import Payload

CLEAN = ChannelClosed("over", clean=True)
BROKEN = ChannelClosed("broken", clean=False)


async def test_messages_come_out_in_order_and_are_counted() -> None:
    queue = MessageQueue()
    queue.put(b"one")
    queue.put(b"")
    assert queue.size_bytes == 3 + 2 * MESSAGE_OVERHEAD_BYTES
    assert [await queue.take(), await queue.take()] == [b"one", b""]
    assert queue.size_bytes == 0


async def test_taking_waits_for_a_message() -> None:
    queue = MessageQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.put(b"late")
    assert await taking == b"late"


async def test_message_that_meets_a_cancelled_taker_stays() -> None:
    queue = MessageQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.put(b"kept")
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await queue.take() == b"kept"


async def test_second_taker_is_a_mistake_and_the_first_goes_on() -> None:
    queue = MessageQueue()
    first = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await queue.take()
    queue.put(b"for the first")
    assert await first == b"for the first"


async def test_end_comes_after_what_was_put_before() -> None:
    queue = MessageQueue()
    queue.put(b"last")
    queue.end(CLEAN)
    queue.put(b"too late")
    assert await queue.take() == b"last"
    for _ in range(2):
        with pytest.raises(ChannelClosed) as caught:
            await queue.take()
        assert caught.value.clean
        assert caught.value.reason == "over"
        assert caught.value is not CLEAN


async def test_end_with_drop_forgets_what_waits_and_the_first_end_stays() -> None:
    queue = MessageQueue()
    queue.put(b"gone")
    queue.end(BROKEN)
    queue.end(CLEAN, drop=True)
    assert queue.size_bytes == 0
    assert queue.ended is BROKEN


async def test_take_each_hands_over_from_within_put_once_nothing_waits() -> None:
    queue, taken = MessageQueue(), []
    queue.put(b"1")
    taking = asyncio.create_task(queue.take_each(lambda message: taken.append(message) is None and message != b"stop"))
    await asyncio.sleep(0)
    assert taken == [b"1"]
    queue.put(b"2")
    assert taken == [b"1", b"2"] and queue.size_bytes == 0
    with pytest.raises(RuntimeError):
        await queue.take()
    queue.put(b"stop")
    queue.put(b"3")
    queue.end(CLEAN)
    await taking  # what ended it was the word of the taker, not the end
    assert taken == [b"1", b"2", b"stop"] and await queue.take() == b"3"


async def test_take_each_ends_with_the_queue() -> None:
    queue, taken = MessageQueue(), []
    taking = asyncio.create_task(queue.take_each(lambda message: taken.append(message) is None))
    await asyncio.sleep(0)
    queue.put(b"1")
    queue.end(BROKEN)
    with pytest.raises(ChannelClosed, match="broken"):
        await taking
    assert taken == [b"1"]


async def test_take_each_hands_over_in_order_what_waited_before_what_comes() -> None:
    queue, taken = MessageQueue(), []
    for message in (b"1", b"2", b"3"):
        queue.put(message)
    taking = asyncio.create_task(queue.take_each(lambda message: taken.append(message) is None))
    await asyncio.sleep(0)
    queue.put(b"4")
    assert taken == [b"1", b"2", b"3", b"4"] and queue.size_bytes == 0
    queue.end(BROKEN)  # while it waits for another to be put
    with pytest.raises(ChannelClosed, match="broken") as caught:
        await taking
    assert caught.value is not BROKEN


async def test_a_taker_that_ends_the_queue_and_raises_breaks_nothing_of_whoever_puts() -> None:
    queue = MessageQueue()

    def take(message: Payload) -> bool:
        if message == b"bad":
            queue.end(BROKEN)
            raise ValueError("as told")
        return True

    queue.put(b"good")
    taking = asyncio.create_task(queue.take_each(take))
    await asyncio.sleep(0)
    queue.put(b"bad")
    with pytest.raises(ChannelClosed, match="broken"):
        await taking


async def test_who_takes_each_is_asked_for_places_once_nothing_waits_and_hears_when_they_are_filled() -> None:
    queue, taken = MessageQueue(), []
    memory = memoryview(bytearray(5))

    def place(size_bytes: int, beginning: memoryview) -> Place | None:
        return (
            None
            if size_bytes < 9
            else Place([memory], lambda: taken.append(bytes(memory)) is None and b"!" not in bytes(memory))
        )

    assert queue.place(9, memory) is None
    queue.put(b"1")
    taking = asyncio.create_task(queue.take_each(lambda message: taken.append(message) is None, place))
    assert queue.place(9, memory) is None  # nobody takes yet: it would overtake
    await asyncio.sleep(0)
    assert queue.place(8, memory) is None
    for end in (b"first", b"next", b"last!"):
        found = queue.place(9, memory)
        assert found is not None and found.memory == [memory]
        memory[: len(end)] = end
        assert found.filled() is (end != b"last!")
    queue.end(CLEAN)  # which is not what ended it
    assert queue.place(9, memory) is None  # the last one said so
    await taking
    assert taken == [b"1", b"first", b"nextt", b"last!"]


async def test_who_takes_one_message_is_not_asked_for_a_place() -> None:
    queue = MessageQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert queue.place(9, memoryview(bytearray(9))) is None
    queue.put(b"whole")
    assert await taking == b"whole"


async def test_what_a_taker_of_each_raises_comes_out_of_it_and_not_out_of_put() -> None:
    queue = MessageQueue()

    def take(message: Payload) -> bool:
        if message == b"bad":
            raise ValueError("as told")
        return True

    queue.put(b"good")
    taking = asyncio.create_task(queue.take_each(take))
    await asyncio.sleep(0)
    queue.put(b"bad")
    queue.put(b"next")
    with pytest.raises(ValueError, match="as told"):
        await taking
    assert await queue.take() == b"next"


async def test_what_a_filled_place_raises_comes_out_of_take_each() -> None:
    queue = MessageQueue()

    def fail() -> bool:
        raise ValueError("as told")

    taking = asyncio.create_task(queue.take_each(lambda message: True, lambda size, there: Place([there], fail)))
    await asyncio.sleep(0)
    queue.put(b"1")
    await asyncio.sleep(0)
    found = queue.place(9, memoryview(bytearray(9)))
    assert found is not None
    assert found.filled() is False
    with pytest.raises(ValueError, match="as told"):
        await taking


async def test_what_a_maker_of_places_raises_comes_out_of_take_each() -> None:
    queue = MessageQueue()

    def fail(size_bytes: int, beginning: memoryview) -> Place | None:
        asked.append(size_bytes)
        raise ValueError("as told")

    asked: list[int] = []
    taking = asyncio.create_task(queue.take_each(lambda message: True, fail))
    await asyncio.sleep(0)
    queue.put(b"1")
    await asyncio.sleep(0)
    assert queue.place(9, memoryview(b"")) is None
    assert queue.place(9, memoryview(b"")) is None
    queue.put(b"2")  # nobody takes any more
    with pytest.raises(ValueError, match="as told"):
        await taking
    assert await queue.take() == b"2" and asked == [9]


async def test_room_waits_above_the_high_mark_and_a_cancelled_waiter_takes_nothing_from_others() -> None:
    queue = MessageQueue()
    queue.put(bytes(HIGH_WATER_BYTES))
    waiting = [asyncio.create_task(queue.room()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    await queue.take()
    await asyncio.gather(*waiting[1:])


async def test_a_queue_that_is_exactly_at_the_high_mark_has_room() -> None:
    told: list[str] = []
    queue = MessageQueue(lambda: told.append("full"), lambda: told.append("room"))
    at_the_mark = bytes(HIGH_WATER_BYTES - MESSAGE_OVERHEAD_BYTES)
    queue.put(at_the_mark)
    await queue.room()
    assert await queue.take() == at_the_mark and told == ["room"]
    queue.put(b"")
    queue.put(at_the_mark)
    waiting = asyncio.create_task(queue.room())
    await asyncio.sleep(0)
    assert await queue.take() == b"" and told == ["room", "full", "room"]
    await waiting


@pytest.mark.parametrize("drop", [False, True])
async def test_room_is_given_up_at_the_end(drop: bool) -> None:
    queue = MessageQueue()
    queue.put(bytes(HIGH_WATER_BYTES))
    waiting = asyncio.create_task(queue.room())
    await asyncio.sleep(0)
    queue.end(BROKEN, drop=drop)
    await waiting


def test_reason_is_cut_at_a_character() -> None:
    assert cut_reason("short") == "short"
    assert cut_reason("ä" * 100) == "ä" * 60
    assert len(cut_reason("a" + "ä" * 100).encode()) == 119
    assert cut_reason("\ud800") == "?"


def test_copy_of_an_end_says_the_same() -> None:
    copy = again(BROKEN)
    assert (copy.reason, copy.clean) == ("broken", False)
    assert copy is not BROKEN


async def test_a_queue_says_when_it_is_full_and_when_it_has_room_again() -> None:
    told: list[str] = []
    queue = MessageQueue(lambda: told.append("full"), lambda: told.append("room"))
    queue.put(b"small")
    assert told == []
    queue.put(bytes(HIGH_WATER_BYTES))
    assert told == ["full"]
    queue.put(b"small")
    await queue.take()
    assert told == ["full", "full"]
    await queue.take()
    assert told == ["full", "full", "room"]


async def test_a_view_that_has_to_wait_is_copied_and_one_that_is_taken_is_not() -> None:
    queue, taken = MessageQueue(), []
    place = bytearray(b"one")
    queue.put(memoryview(place))
    place[:] = b"two"
    assert await queue.take() == b"one"
    taking = asyncio.create_task(queue.take_each(lambda payload: taken.append(payload) is None and len(taken) < 2))
    queue.put(b"0")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    view = memoryview(place)
    queue.put(view)
    await taking
    assert taken[1] is view
