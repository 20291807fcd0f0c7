from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed.testing.virtual_time import DeadlockError, InlineExecutor, VirtualTimeLoop, run_virtual


async def wait_for_nobody() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.virtual_time
async def test_the_marker_runs_the_coroutine_on_the_virtual_loop() -> None:
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


@pytest.mark.virtual_time
async def test_a_year_passes_without_waiting() -> None:
    loop = asyncio.get_running_loop()
    start_s, year_s = loop.time(), 365 * 86_400
    await asyncio.sleep(year_s)
    assert loop.time() - start_s == pytest.approx(year_s)


@pytest.mark.virtual_time
async def test_a_timeout_fires_exactly_when_it_is_due() -> None:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await wait_for_nobody()
    assert loop.time() - start_s == pytest.approx(3600)


@pytest.mark.virtual_time
@given(delays_s=st.lists(st.floats(0.0, 1e8), max_size=3))
async def test_every_timer_is_reached_however_far_away(delays_s: list[float]) -> None:
    async with asyncio.timeout(1e9):
        for delay_s in delays_s:
            await asyncio.sleep(delay_s)


@pytest.mark.virtual_time
async def test_timers_run_in_the_order_of_their_times() -> None:
    order: list[int] = []

    async def append_after(delay_s: int) -> None:
        await asyncio.sleep(delay_s)
        order.append(delay_s)

    async with asyncio.TaskGroup() as group:
        for delay_s in (30, 10, 20):
            group.create_task(append_after(delay_s))
    assert order == [10, 20, 30]


@pytest.mark.virtual_time
async def test_the_clock_stands_still_while_anything_can_run() -> None:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    timer = loop.call_later(0.5, lambda: None)
    for _ in range(100):
        await asyncio.sleep(0)
    assert loop.time() == start_s
    timer.cancel()


@pytest.mark.virtual_time
async def test_after_the_shortest_sleep_every_other_task_has_run_as_far_as_it_can() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    seen: list[int] = []

    async def relay(hops: int) -> None:
        for _ in range(hops):
            await asyncio.sleep(0)
        queue.put_nowait(hops)
        seen.append(await queue.get())

    async with asyncio.TaskGroup() as group:
        group.create_task(relay(50))
        await asyncio.sleep(1e-6)
        assert seen == [50]


def test_a_deadlock_raises_at_once_and_names_the_task_and_its_place() -> None:
    async def main() -> None:
        task = asyncio.create_task(wait_for_nobody(), name="the-waiter")
        await task

    with pytest.raises(DeadlockError) as caught:
        run_virtual(main())
    assert "the-waiter: wait_for_nobody" in str(caught.value)
    assert "test_virtual_time.py" in str(caught.value)


def test_after_a_deadlock_the_tasks_are_cancelled() -> None:
    cancelled: list[bool] = []

    async def main() -> None:
        try:
            await wait_for_nobody()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(DeadlockError):
        run_virtual(main())
    assert cancelled == [True]


def test_run_virtual_returns_the_result_in_debug_mode() -> None:
    async def main() -> bool:
        await asyncio.sleep(1000)
        return asyncio.get_running_loop().get_debug()

    assert run_virtual(main()) is True


@pytest.mark.virtual_time
async def test_an_inline_executor_answers_in_no_time() -> None:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    assert await loop.run_in_executor(InlineExecutor(), divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(InlineExecutor(), divmod, 7, 0)
    assert loop.time() == start_s


@pytest.mark.virtual_time
async def test_threads_are_refused() -> None:
    with pytest.raises(RuntimeError, match="InlineExecutor"):
        await asyncio.to_thread(int)


def test_the_example_in_the_documentation_runs() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "howto" / "test-your-plugin.md"
    (example, *_) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(page), "exec"), {})
