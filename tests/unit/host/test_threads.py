from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from aioseed.host.threads import begun, in_own_thread


async def test_the_result_comes_from_a_daemon_thread_of_that_name():
    thread = await in_own_thread("aioseed-build", threading.current_thread)
    assert thread.name == "aioseed-build" and thread.daemon


async def test_what_it_raises_is_raised():
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_own_thread("aioseed-build", fail)


def test_what_has_begun_goes_on_in_a_daemon_thread_and_its_outcome_is_waited_for():
    go_on = threading.Event()

    def work() -> threading.Thread:
        go_on.wait()
        return threading.current_thread()

    outcome = begun("aioseed-compile", work)
    assert not outcome.done() and not outcome.cancel()
    go_on.set()
    thread = outcome.result()
    assert thread.name == "aioseed-compile" and thread.daemon


def test_what_has_begun_and_fails_raises_where_its_outcome_is_asked_for():
    with pytest.raises(ZeroDivisionError):
        begun("aioseed-compile", lambda: 1 // 0).result()


async def test_who_is_cancelled_waits_no_longer_and_what_is_made_is_dropped():
    began, go_on, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait()
        loop.call_soon_threadsafe(ended.set)

    task = asyncio.create_task(in_own_thread("aioseed-build", work))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await asyncio.to_thread(ended.wait)


def test_a_thread_that_outlives_its_loop_does_no_harm():
    go_on = threading.Event()

    async def abandon() -> threading.Thread:
        task = asyncio.create_task(in_own_thread("aioseed-abandoned", go_on.wait))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return next(thread for thread in threading.enumerate() if thread.name == "aioseed-abandoned")

    thread = asyncio.run(abandon())
    go_on.set()
    thread.join(10.0)
    assert not thread.is_alive()


_EXITING = """
import threading
from aioseed.host.threads import begun

def work():
    going_on.set()
    exiting.wait()
    print("done", flush=True)

going_on, exiting = threading.Event(), threading.Event()
begun("aioseed-compile", work)
going_on.wait()
threading._register_atexit(exiting.set)  # before the functions of atexit
"""


def test_an_interpreter_that_exits_waits_for_what_cannot_be_interrupted():
    ran = subprocess.run([sys.executable, "-c", _EXITING], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "done\n"
