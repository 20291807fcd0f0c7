"""An event loop whose clock jumps: tests of hours take milliseconds, and a deadlock is an error instead of a hang.

Whenever nothing can run, the clock jumps to the next timer: ``asyncio.timeout(3600)`` fires at once, and after
``await asyncio.sleep(1e-6)`` every other task has run as far as it can. When nothing can run and no timer is set,
nothing will ever happen again: `DeadlockError` names each waiting task and where it waits.

The clock is the loop's own. Code under test must read ``loop.time()``, or a clock that it was handed, never
`time.monotonic`. Threads, child processes and other machines are outside this time: the loop cannot know that they will
answer, so hand `InlineExecutor` to code that wants an executor and use the memory transport instead of sockets.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

__all__ = ["DeadlockError", "InlineExecutor", "VirtualTimeLoop", "run_virtual"]

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DeadlockError(AssertionError):
    """Report that every task waits and that no timer will ever wake one. A failure of a test, so no `AioseedError`."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Run asyncio with a clock that starts at 0 and moves only when nothing else can."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_JumpingSelector(self._jump))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` in `executor`, which must be an inline one.

        Raises:
            RuntimeError: `executor` is None or has threads, whose progress this clock cannot see.
        """
        if executor is None or isinstance(executor, ThreadPoolExecutor):
            raise RuntimeError("virtual time knows nothing of threads: pass an InlineExecutor to run_in_executor")
        return super().run_in_executor(executor, func, *args)

    def _jump(self, timeout_s: float | None) -> None:
        """Move the clock by `timeout_s`, the time to the next timer; None says that there is none."""
        if timeout_s is None:
            waiting = sorted(f"\n  {task.get_name()}: {_where(task)}" for task in asyncio.all_tasks(self))
            raise DeadlockError("nothing can run and no timer is set; these tasks wait:" + "".join(waiting))
        self._now_s += timeout_s
        # asyncio runs a timer that is less than this ahead, by default a nanosecond. After some days of virtual time
        # the gap between two floats is wider than that, and a timer that is due now would never run.
        self._clock_resolution = max(1e-9, 4 * math.ulp(self._now_s))


class InlineExecutor(Executor):
    """Run what is submitted at once, in the caller's thread, so that the order of things is always the same."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` and return a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time and asyncio's debug mode, like `asyncio.run`.

    Raises:
        DeadlockError: Every task waits for ever. The tasks are cancelled first.
    """
    with asyncio.Runner(debug=True, loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


class _JumpingSelector(selectors.BaseSelector):
    """Poll without waiting; where the loop would have waited, call `jump` with the time that it would have taken."""

    def __init__(self, jump: Callable[[float | None], None]) -> None:
        self._inner = selectors.DefaultSelector()
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._inner.select(0)
        if not ready and (timeout is None or timeout > 0):
            self._jump(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()


def _where(task: asyncio.Task[Any]) -> str:
    """Return the innermost coroutine of `task` that has a frame, with its file and line."""
    place = "has not begun"
    awaited: object = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        place = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        awaited = getattr(awaited, "cr_await", None)
    return place
