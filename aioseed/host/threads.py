"""Work that nothing can interrupt, in a thread that nobody has to wait for.

But for the interpreter: what compiles while it is taken down ends the process with SIGABRT. aioseed's commands end
without taking it down; a program that embeds a learner waits for such threads as it exits.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

EXIT_WAIT_S = 60.0
"""How long an interpreter that exits waits for such threads in all: compiling the largest network takes less."""

_running: set[threading.Thread] = set()


def begun(name: str, work: Callable[[], Result]) -> Future[Result]:
    """Run `work()` in a daemon thread called `name` and return its outcome to come."""
    outcome: Future[Result] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    _start(name, run)
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

    _start(name, run)
    return await outcome


def _start(name: str, run: Callable[[], None]) -> None:
    def known() -> None:
        try:
            run()
        finally:
            _running.discard(thread)

    thread = threading.Thread(target=known, name=name, daemon=True)
    _running.add(thread)
    thread.start()


@atexit.register
def _wait_for_all() -> None:
    until_s = time.monotonic() + EXIT_WAIT_S
    for thread in list(_running):
        thread.join(max(0.0, until_s - time.monotonic()))
