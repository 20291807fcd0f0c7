"""Work that nothing can interrupt, in a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def begun(name: str, work: Callable[[], Result]) -> Future[Result]:
    """Run `work()` in a daemon thread called `name` and return its outcome to come; an end of the program does not wait
    for it.
    """
    outcome: Future[Result] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return outcome


async def in_own_thread(name: str, work: Callable[[], Result]) -> Result:
    """Await `work()`, run in a daemon thread called `name`.

    A compiler cannot be told to stop, and a loop that ends waits for the threads of its executor: a Ctrl-C would have
    to wait until everything is compiled. Safe to cancel: the thread goes on alone and what it makes is dropped. Any
    number of callers.

    Raises:
        Exception: What `work` raised.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result] = loop.create_future()

    def succeed(result: Result) -> None:
        if not outcome.done():
            outcome.set_result(result)

    def fail(error: BaseException) -> None:
        if not outcome.done():
            outcome.set_exception(error)

    def run() -> None:
        # A loop that is closed has nobody left who would want the outcome.
        with contextlib.suppress(RuntimeError):
            try:
                result = work()
            except BaseException as error:
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome
