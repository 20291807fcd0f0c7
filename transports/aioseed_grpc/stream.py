"""The two ends of one gRPC call, made alike for `aioseed_grpc.channel`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Protocol

import grpc

from aioseed.errors import ChannelClosed
from aioseed_grpc.foreign import ended
from aioseed_grpc.frame import CLOSING, FrameError

METHOD = "/aioseed.v1.Aioseed/Session"
ACCEPTED_KEY = "aioseed-accepted"
CLOSE_REASON_KEY = "aioseed-close-reason-bin"

STOP_TIMEOUT_S = 1.0
"""How long a server that closes waits for the client to stop writing."""

_CANCELLATION_FOLLOWS_S = 0.1


class Stream(Protocol):
    """Read and write frames on one call. Reading and writing may run at the same time, each in one task.

    `read` and `write` return grpc.aio's own coroutines: one of ours around them would be run at each step of them.
    """

    def read(self) -> Coroutine[object, None, object]:
        """Return the next frame, `bytes`; anything else when no more will come. Cancelling it may end the call."""

    def all_read(self) -> None:
        """Note that `read` will not be called again."""

    def write(self, frame: bytes) -> Coroutine[object, None, None]:
        """Write one frame; returns when gRPC has room again. Cancelling it may end the call."""

    async def stop(self) -> None:
        """Do as the peer asked with `CLOSING`: write nothing more, but read on. Nothing may be being written.

        Raises:
            FrameError: This end must not be asked.
        """

    async def ending(self) -> ChannelClosed:
        """Return how the call ended, after `read` returned the end."""

    async def finish(self, reason: str) -> None:
        """Say that no more frames will be written, and return once the peer is done too."""

    def abort(self, reason: str) -> None:
        """End the call as broken."""

    async def release(self) -> None:
        """Give back what belongs to the call. Idempotent."""


class ClientStream:
    """Be the dialler's end of a call; it owns the gRPC channel that the call was made on.

    Args:
        leave_connection: Called when the call did not end well, for the connection may be dead: nobody else is to
            share it.
    """

    def __init__(
        self, channel: grpc.aio.Channel, call: grpc.aio.StreamStreamCall, leave_connection: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._call = call
        self._leave_connection = leave_connection

    def read(self) -> Coroutine[object, None, object]:
        """Return the next frame, `grpc.aio.EOF` after the last."""
        reading: Coroutine[object, None, object] = self._call.read()
        return reading

    def all_read(self) -> None:
        """Do nothing: the server does not wait for it."""

    def write(self, frame: bytes) -> Coroutine[object, None, None]:
        """Write one frame."""
        writing: Coroutine[object, None, None] = self._call.write(frame)
        return writing

    async def stop(self) -> None:
        """Half-close."""
        await self._call.done_writing()

    async def ending(self) -> ChannelClosed:
        """Return the server's status, with its words for the close where there are some."""
        code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            return ended(code, await self._call.details())
        words = (await self._call.trailing_metadata()).get(CLOSE_REASON_KEY, b"")
        return ended(code, words.decode("utf-8", "replace"))

    async def finish(self, reason: str) -> None:
        """Half-close and wait for the server's status. A reason cannot travel this way."""
        await self._call.done_writing()
        await self._call.code()

    def abort(self, reason: str) -> None:
        """Cancel the call."""
        self._leave_connection()
        self._call.cancel()

    async def release(self) -> None:
        """Close the connection."""
        self._call.cancel()
        await self._channel.close()


class ServerStream:
    """Be the listener's end of a call. The call ends when gRPC's own coroutine, waiting in `serve`, returns."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context
        loop = asyncio.get_running_loop()
        # Completed with None when the call is to end well, with words when it is to be aborted.
        self._verdict: asyncio.Future[str | None] = loop.create_future()
        self._lost = asyncio.Event()
        self._all_read = asyncio.Event()
        self._over = asyncio.Event()
        context.add_done_callback(lambda _: self._over.set())

    async def serve(self) -> None:
        """Hold the call open until it is finished or aborted here, or cancelled by the peer."""
        try:
            failure = await self._verdict
        except asyncio.CancelledError:
            # This is how grpc.aio says that the client went away or that the server stops.
            self._lost.set()
            raise
        if failure is not None:
            await self._context.abort(grpc.StatusCode.ABORTED, failure)

    def read(self) -> Coroutine[object, None, object]:
        """Return the next frame, `grpc.aio.EOF` after the last."""
        reading: Coroutine[object, None, object] = self._context.read()
        return reading

    def all_read(self) -> None:
        """Let `finish` go on: the client writes nothing more, or nobody would read it."""
        self._all_read.set()

    def write(self, frame: bytes) -> Coroutine[object, None, None]:
        """Write one frame."""
        writing: Coroutine[object, None, None] = self._context.write(frame)
        return writing

    async def stop(self) -> None:
        """Refuse: a client half-closes when it closes, and asks for nothing.

        Raises:
            FrameError: Always.
        """
        raise FrameError("only a server asks to stop writing")

    async def ending(self) -> ChannelClosed:
        """Tell a half-close from a cancelled call: both read as the end, but a cancellation follows the latter."""
        try:
            async with asyncio.timeout(_CANCELLATION_FOLLOWS_S):
                await self._lost.wait()
        except TimeoutError:
            return ChannelClosed("", clean=True)
        return ChannelClosed("", clean=False)

    async def finish(self, reason: str) -> None:
        """Let the client stop writing, end the call with the status OK after all frames, and wait until it is written.

        A write of the client that the status meets under way would fail there, and grpc.aio then takes the whole call
        for broken, with all that was not read yet.
        """
        if not self._verdict.done():
            if reason:
                self._context.set_trailing_metadata(((CLOSE_REASON_KEY, reason.encode()),))
            await self._ask_to_stop()
        if not self._verdict.done():
            self._verdict.set_result(None)
        await self._over.wait()

    async def _ask_to_stop(self) -> None:
        if self._all_read.is_set():
            return
        asking = asyncio.ensure_future(self._context.write(CLOSING))
        asking.add_done_callback(_look_at)  # not awaited: to cancel it would end the call
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._all_read.wait()

    def abort(self, reason: str) -> None:
        """End the call with the status ABORTED."""
        if not self._verdict.done():
            self._verdict.set_result(reason)

    async def release(self) -> None:
        """Let the call end, if it has not yet; gRPC's server owns the connection."""
        self.abort("")


def _look_at(asked: asyncio.Future[None]) -> None:
    if not asked.cancelled():
        asked.exception()  # a call that breaks there says so by its end
