"""Messages between a network and the one task that takes them, measured in bytes."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable

from aioseed.errors import ChannelClosed
from aioseed.transport.channel import MakePlace, Place
from aioseed.types import Payload

MESSAGE_OVERHEAD_BYTES = 128
"""Counted for every message beside its length, so that empty ones fill a queue too."""
HIGH_WATER_BYTES = 128 * 2**10
"""Bytes in a queue above which `MessageQueue.room` waits."""
CLOSE_REASON_BYTES = 120
"""Longest reason of a close that travels; it fits a WebSocket control frame."""


class MessageQueue:
    """Hold messages in order until they are taken; one task takes, any number may put.

    Not thread-safe: all calls belong to the thread of one event loop.

    Args:
        on_full: Called when a message had to wait and more than `HIGH_WATER_BYTES` do.
        on_room: Called when a message was taken and at most `HIGH_WATER_BYTES` are left.
    """

    def __init__(self, on_full: Callable[[], None] = lambda: None, on_room: Callable[[], None] = lambda: None) -> None:
        self._on_full = on_full
        self._on_room = on_room
        self._messages: deque[bytes] = deque()
        self._size_bytes = 0
        self.ended: ChannelClosed | None = None
        """How the queue ended, None while it lives. What was put before may still wait. An attribute, since every
        message asks for it."""
        self._taker: asyncio.Future[None] | None = None
        self._take: Callable[[Payload], bool] | None = None  # of `take_each`, while its caller waits in `_taker`
        self._make_place: MakePlace | None = None  # likewise
        self._room: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def size_bytes(self) -> int:
        """Return what waits, overhead included."""
        return self._size_bytes

    def put(self, payload: Payload) -> None:
        """Append a message, of which a view is copied if it has to wait; after the end it is dropped."""
        if self.ended is not None:
            return
        take, taker = self._take, self._taker
        if take is not None and taker is not None and not taker.done():
            # Here and not in a method of its own: this is the road of every message.
            try:
                more = take(payload)
            except Exception as error:
                self._fail(error)
                return
            if not more:
                self._take = None
                _wake(taker)
            return
        self._messages.append(bytes(payload))  # of bytes it makes no copy
        self._size_bytes += len(payload) + MESSAGE_OVERHEAD_BYTES
        if self._size_bytes > HIGH_WATER_BYTES:
            self._on_full()
        _wake(self._taker)

    def place(self, size_bytes: int, beginning: memoryview) -> Place | None:
        """Return where the end of a message goes that is about to be put, if its taker wants it somewhere."""
        if self._make_place is None or self._taker is None or self._taker.done():
            return None
        try:
            place = self._make_place(size_bytes, beginning)
        except Exception as error:
            self._fail(error)
            return None
        return None if place is None else Place(place.memory, functools.partial(self._fill, place.filled))

    def end(self, closed: ChannelClosed, *, drop: bool = False) -> None:
        """Let nothing more in; the first end stays. With `drop`, forget what waits as well."""
        if drop:
            self._messages.clear()
            self._size_bytes = 0
        if self.ended is None:
            self.ended = closed
        _wake(self._taker)
        _wake(self._room)

    async def take(self) -> bytes:
        """Return the next message. Safe to cancel: nothing is lost. One caller at a time, a second raises RuntimeError.

        Raises:
            ChannelClosed: The queue ended and is empty.
        """
        if self._taker is not None:
            raise RuntimeError("another task already receives on this channel")
        while not self._messages:
            if self.ended is not None:
                raise again(self.ended)
            if self._loop is None:
                # Kept, since asking for it is a system call.
                self._loop = asyncio.get_running_loop()
            self._taker = self._loop.create_future()
            try:
                await self._taker
            finally:
                self._taker = None
        payload = self._messages.popleft()
        self._size_bytes -= len(payload) + MESSAGE_OVERHEAD_BYTES
        if self._size_bytes <= HIGH_WATER_BYTES:
            _wake(self._room)
            self._on_room()
        return payload

    async def take_each(self, take: Callable[[Payload], bool], place: MakePlace | None = None) -> None:
        """Hand every message to `take` in order until it returns False: from within `put`, once none waits here.

        From then on `place` is asked where the end of a large one goes.

        Whoever puts must be ready for what `take` does. Safe to cancel, one caller at a time, as `take` of this class.

        Raises:
            ChannelClosed: The queue ended and is empty.
            Exception: What `take` raised.
        """
        while True:
            if not take(await self.take()):
                return
            if not self._messages and self.ended is None:
                break
        self._taker, self._take = asyncio.get_running_loop().create_future(), take
        self._make_place = place
        try:
            await self._taker
            enough = self._take is None
        finally:
            self._taker = self._take = self._make_place = None
        if not enough and self.ended is not None:
            raise again(self.ended)

    def _fill(self, filled: Callable[[], bool]) -> bool:
        """Let the taker take a message that is where its end belongs."""
        try:
            more = filled()
        except Exception as error:
            self._fail(error)
            return False
        if not more:
            self._take = None
            _wake(self._taker)
        return more

    def _fail(self, error: Exception) -> None:
        """Let `take_each` raise what its caller's function raised."""
        if self._taker is not None and not self._taker.done():
            self._taker.set_exception(error)

    async def room(self) -> None:
        """Wait until at most `HIGH_WATER_BYTES` wait or the queue has ended. Safe to cancel; any number of callers."""
        while self._size_bytes > HIGH_WATER_BYTES and self.ended is None:
            if self._room is None or self._room.done():
                self._room = asyncio.get_running_loop().create_future()
            # Several wait on one future: a cancelled waiter must not take it from the others.
            await asyncio.shield(self._room)


def again(closed: ChannelClosed) -> ChannelClosed:
    """Return a fresh copy to raise, so that tracebacks do not pile up on one exception."""
    return ChannelClosed(closed.reason, clean=closed.clean)


def cut_reason(reason: str) -> str:
    """Return `reason` cut to `CLOSE_REASON_BYTES` of UTF-8 at a character border."""
    return reason.encode("utf-8", "replace")[:CLOSE_REASON_BYTES].decode("utf-8", "ignore")


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
