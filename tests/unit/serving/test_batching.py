"""When the event loop looks at the open batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from aioseed.serving.batching import Batching
from aioseed.serving.rule import Close


class Desk:
    """Stand in for an intake: rows come as a test says, and the open batch closes with so many or when none comes."""

    def __init__(self, closes_with: int) -> None:
        self.waiting_rows = 0
        self.looks: list[tuple[int, bool]] = []
        self.answered: list[object] = []
        self.batching: Batching | None = None
        self.time_s = 0.0
        self.appending_s = 0.0
        self.sending_s = 0.0
        self.took_s: list[float] = []
        self.held_back = False
        self.due_s: float | None = None  # nothing closes before
        self._closes_with = closes_with

    def poll(self, now_s: float, *, arriving: bool = False) -> Close:
        self.looks.append((self.waiting_rows, arriving))
        if self.due_s is not None and now_s < self.due_s:
            return Close.NO
        if not self.waiting_rows or (arriving and self.waiting_rows < self._closes_with):
            return Close.NO
        batch: Any = SimpleNamespace(rows=self.waiting_rows, closed_s=now_s)
        self.waiting_rows = 0
        assert self.batching is not None
        if self.held_back:
            self.batching.hold_back()
            asyncio.get_running_loop().call_soon(self.answered.append, "told before")
        self.batching.answer_from(batch, b"", 0)  # as where the loop serves a batch itself
        assert self.held_back or self.answered[-1] == batch.rows, "actors wait while unrolls are written"
        self.time_s += self.appending_s
        return Close.ENOUGH

    def due_at_s(self) -> float | None:
        return self.due_s if self.waiting_rows else None

    def answer(self, batch: Any, actions: bytes, row_bytes: int, now_s: float) -> None:
        self.answered.append(batch.rows)
        self.time_s += self.sending_s

    def served(self, service_s: float) -> None:
        self.took_s.append(service_s)


def open_desk(closes_with: int = 100, clock: Callable[[], float] | None = None) -> tuple[Desk, Batching]:
    loop, desk = asyncio.get_running_loop(), Desk(closes_with)
    intake: Any = desk
    desk.batching = Batching(loop, intake, Mock(), clock or (lambda: desk.time_s), Mock())
    return desk, desk.batching


async def bring(desk: Desk, batching: Batching, *rows: int) -> None:
    """Let so many rows come in each of the next turns of the loop."""
    for count in rows:
        if count:
            desk.waiting_rows += count
            batching.poll_soon()
        await asyncio.sleep(0)


async def test_a_burst_is_looked_at_until_a_turn_brings_nothing() -> None:
    desk, batching = open_desk()
    await bring(desk, batching, 2, 3, 1, 0, 0)
    assert desk.looks[:4] == [(2, True), (5, True), (6, True), (6, False)]
    assert desk.answered == [6]
    desk.looks.clear()
    await bring(desk, batching, 1, 2, 0, 0)
    assert desk.looks[:3] == [(1, True), (3, True), (3, False)]


async def test_all_that_are_expected_are_not_waited_for_longer() -> None:
    desk, batching = open_desk(closes_with=5)
    await bring(desk, batching, 2, 3, 0)
    assert desk.answered == [5]
    assert desk.looks == [(2, True), (5, True)]
    await bring(desk, batching, 1, 0)
    assert desk.answered == [5, 1]


async def test_what_the_loop_serves_itself_is_answered_in_the_same_turn() -> None:
    desk, batching = open_desk()
    desk.waiting_rows = 4
    batching.poll(0.0)
    assert desk.answered == [4]


async def test_serving_takes_until_the_loop_is_free_again_but_for_sending() -> None:
    desk, batching = open_desk()
    desk.waiting_rows, desk.appending_s, desk.sending_s = 4, 0.25, 8.0
    desk.time_s = 2.0
    batching.poll(2.0)
    assert desk.took_s == [0.25]
    batching.poll(20.0)
    assert desk.took_s == [0.25], "nothing was served"


async def test_answers_of_another_moment_wait_for_their_turn() -> None:
    desk, batching = open_desk()
    batching.poll(0.0)
    batch: Any = SimpleNamespace(rows=7, closed_s=-2.0)
    batching.answer_from(batch, b"", 0)
    assert desk.answered == []
    await asyncio.sleep(0)
    assert desk.answered == [7]
    await asyncio.to_thread(batching.answer_from, batch, b"", 0)
    await asyncio.sleep(0)
    assert desk.answered == [7, 7]
    assert desk.took_s == [2.0, 2.0]


async def test_an_answer_makes_room_for_the_batch_behind_it() -> None:
    desk, batching = open_desk()
    desk.waiting_rows = 3
    batch: Any = SimpleNamespace(rows=7, closed_s=0.0)
    batching.answer_from(batch, b"", 0)
    await asyncio.sleep(0)
    assert desk.answered == [7, 3]


@pytest.mark.virtual_time
async def test_time_alone_closes_one_batch_after_another() -> None:
    loop = asyncio.get_running_loop()
    desk, batching = open_desk(clock=loop.time)
    for number in range(1, 4):
        desk.waiting_rows, desk.due_s = number, float(number)
        batching.poll(loop.time())
        assert len(desk.answered) == number - 1
        await asyncio.sleep(1.0)
    assert desk.answered == [1, 2, 3]


async def test_actions_that_are_held_back_go_out_behind_what_the_loop_was_told_before() -> None:
    desk, batching = open_desk()
    desk.held_back = True
    desk.waiting_rows = 4
    batching.poll(0.0)
    assert desk.answered == []
    await asyncio.sleep(0)
    assert desk.answered == ["told before", 4]
    desk.held_back, desk.waiting_rows = False, 3
    batching.poll(0.0)
    assert desk.answered[2:] == [3], "one batch alone is held back"


def test_one_timer_is_set_for_the_earliest_moment_at_which_time_alone_closes() -> None:
    desk, loop, answered = Desk(100), Mock(), Mock()
    intake: Any = desk
    desk.batching = batching = Batching(loop, intake, Mock(), lambda: desk.time_s, answered)
    desk.waiting_rows, desk.due_s = 1, 8.0
    batching.poll(0.0, arriving=True)
    assert not loop.call_at.called, "further rows are on their way"
    batching.poll(0.0)
    batching.poll(1.0)
    loop.call_at.assert_called_once_with(8.0, batching._due)
    timer = loop.call_at.return_value
    assert not timer.cancel.called
    desk.due_s = 4.0
    batching.poll(2.0)
    timer.cancel.assert_called_once_with()
    assert loop.call_at.call_args.args == (4.0, batching._due) and not answered.called
    desk.time_s = 4.0
    batching._due()
    assert desk.answered == [1]
    answered.assert_called_once_with()
