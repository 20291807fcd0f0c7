"""Several processes in one event loop: each party's callbacks keep their order, whose turn it is a seed decides.

Code runs as a party inside a context made by `party`; tasks, timers and callbacks that it starts belong to it as well.
A party can be frozen, as SIGSTOP freezes a process: nothing of it runs until it is thawed, its timers fall due
meanwhile. Time is virtual (`aioseed.testing.virtual_time`).
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import random
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from aioseed.testing.virtual_time import VirtualTimeLoop

__all__ = ["SeededLoop", "party", "run_seeded"]

T = TypeVar("T")
_PARTY: contextvars.ContextVar[str] = contextvars.ContextVar("party", default="")


def party(name: str) -> contextvars.Context:
    """Return a context in which everything belongs to the party `name`."""
    context = contextvars.copy_context()
    context.run(_PARTY.set, name)
    return context


class SeededLoop(VirtualTimeLoop):
    """Run parties in an order that follows from `seed` alone, and keep a hash of all that happened."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._turns = _Turns(random.Random(seed))  # noqa: S311 - an order, not a secret
        self._ready = self._turns

    def freeze(self, name: str) -> None:
        """Let nothing of the party `name` run until it is thawed."""
        self._turns.freeze(name)

    def thaw(self, name: str) -> None:
        """Let a frozen party run again, with all that has fallen due."""
        self._turns.thaw(name)

    def thaw_all(self) -> None:
        """Let everybody run again, to be cancelled: a loop ends when its tasks have."""
        for name in [*self._turns.frozen]:
            self._turns.thaw(name)

    def note(self, *what: object) -> None:
        """Add to the trace."""
        self._turns.trace.update(repr((round(self.time(), 9), *what)).encode())

    @property
    def trace(self) -> str:
        """Return the hash of all turns and of all that was noted."""
        return self._turns.trace.hexdigest()


def run_seeded(seed: int, main: Coroutine[Any, Any, T]) -> tuple[T, str]:
    """Run a coroutine to its end and return its result and the trace; equal seeds give equal traces.

    Raises:
        DeadlockError: Every task waits for ever.
    """
    loop = SeededLoop(seed)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
        return result, loop.trace


class _Turns(deque[asyncio.Handle]):
    """Stand in for the loop's queue of callbacks that are ready: one queue a party."""

    def __init__(self, order: random.Random) -> None:
        super().__init__()
        self.frozen: dict[str, deque[asyncio.Handle]] = {}
        self.trace = hashlib.sha256()
        self._order = order
        self._awake: dict[str, deque[asyncio.Handle]] = {}  # queues that are not empty
        self._count = 0

    def freeze(self, name: str) -> None:
        if name not in self.frozen:
            self.frozen[name] = self._awake.pop(name, deque())
            self._count -= len(self.frozen[name])

    def thaw(self, name: str) -> None:
        for handle in self.frozen.pop(name, ()):
            self.append(handle)

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return self._count > 0

    def append(self, handle: asyncio.Handle) -> None:
        name = handle._context.get(_PARTY, "")  # type: ignore[attr-defined]
        if name in self.frozen:
            self.frozen[name].append(handle)
        else:
            self._awake.setdefault(name, deque()).append(handle)
            self._count += 1

    def popleft(self) -> asyncio.Handle:
        if not self._count:  # the loop counted callbacks of a party that was frozen meanwhile
            nothing = asyncio.Handle(int, (), asyncio.get_running_loop())
            nothing.cancel()
            return nothing
        name = next(iter(self._awake)) if len(self._awake) == 1 else self._order.choice([*self._awake])
        queue = self._awake[name]
        if len(queue) == 1:
            del self._awake[name]
        self._count -= 1
        self.trace.update(name.encode() + b";")
        return queue.popleft()

    def clear(self) -> None:
        self.frozen.clear()
        self._awake.clear()
        self._count = 0
