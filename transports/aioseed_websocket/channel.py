"""One WebSocket as a channel, the same for both sides.

aiohttp's own closing is not used, since it does not wait for the peer in two cases (a server whose `receive` waits, a
client whose `receive` was cancelled): then unread data makes the kernel reset the connection, and what was sent last is
lost. Here the side that closes sends a close frame and reads on until the peer's answer says that all was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeAlias

from aiohttp import ClientWebSocketResponse, WebSocketError, WSCloseCode, WSMessage, WSMsgType
from aiohttp.web import WebSocketResponse

from aioseed.errors import ChannelClosed
from aioseed.transport.channel import Channel
from aioseed.transport.guard import Bucket
from aioseed.transport.queue import again, cut_reason
from aioseed_websocket.foreign import FOREIGN, broken

CLOSE_TIMEOUT_S = 2.0
JOINED_BYTES = 16 * 2**10
"""Messages up to this size are copied behind their head; a larger one is written after it."""

_HEAD_7, _HEAD_16, _HEAD_64 = (struct.Struct(form).pack for form in ("!BB", "!BBH", "!BBQ"))

WebSocket: TypeAlias = WebSocketResponse | ClientWebSocketResponse

_BINARY = WSMsgType.BINARY
_CONTROL_TYPES = (WSMsgType.PING, WSMsgType.PONG)
_OPEN_TYPES = (WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG)
# 0 is aiohttp's word for a close frame without a code.
_CLEAN_CODES = (0, WSCloseCode.OK, WSCloseCode.GOING_AWAY)


class WebSocketChannel(Channel):
    """Carry one message in one binary WebSocket message. A text message of the peer ends the channel."""

    def __init__(
        self,
        socket: WebSocket,
        transport: asyncio.Transport,
        *,
        peer: str,
        send_buffer_bytes: int,
        release: Callable[[], Awaitable[None]],
        control: Bucket | None = None,
        report: Callable[[str, str], None] = lambda what, peer: None,
    ) -> None:
        self.received_bytes = 0
        self._socket = socket
        self._transport = transport
        self._peer = peer
        self._send_buffer_bytes = send_buffer_bytes
        self._release = release
        self._control = control  # bounds the peer's control frames
        self._report = report
        # Set while the listener's guard lets nothing be read.
        self._held: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._frame = transport.write if isinstance(socket, WebSocketResponse) else None
        # How the channel ended for `receive`; set once, by our close, by the peer's or by a break.
        self._end: ChannelClosed | None = None
        # Completed when everything that belongs to the channel is gone; created by whoever ends it.
        self._gone: asyncio.Future[None] | None = None
        # The task that waits for messages.
        self._receiver: asyncio.Task[object] | None = None

    @property
    def peer(self) -> str:
        """Return the address of the other side."""
        return self._peer

    @property
    def backlog_bytes(self) -> int:
        """Return what waits in the connection's write buffer."""
        return self._transport.get_write_buffer_size()

    def hold(self, held: bool) -> None:
        """Stop reading, or go on."""
        if held and self._held is None:
            self._held = self._loop.create_future()
        elif not held and self._held is not None:
            self._held.set_result(None)
            self._held = None

    def cut(self, reason: str) -> None:
        """Drop the connection at once."""
        self.hold(False)
        self._transport.abort()

    def send_nowait(self, payload: bytes) -> None:
        """Write one message; no task is made for it.

        A server's frames are written here by hand, which takes a quarter of the time of aiohttp's two coroutines: they
        are neither masked nor compressed, and a learner answers every message with one.
        """
        if self._frame is None:
            if self._write(self._socket.send_bytes(payload)) is not None:
                self._check_backlog()
            return
        if self._end is not None:
            raise again(self._end)
        if self._transport.is_closing():
            raise ChannelClosed("the connection broke", clean=False)
        size = len(payload)
        if size <= JOINED_BYTES:
            self._frame(frame_head(size) + payload)
        else:
            self._frame(frame_head(size))
            self._frame(payload)
        self._check_backlog()

    async def send(self, payload: bytes) -> None:
        """Write one message and wait while the connection's write buffer is above its high mark."""
        drained = self._write(self._socket.send_bytes(payload))
        if drained is None:
            return
        try:
            await asyncio.shield(drained)
        except FOREIGN as error:
            raise broken(error) from error

    async def receive(self) -> bytes:
        """Return the next message."""
        received: list[bytes] = []

        def keep(payload: bytes) -> bool:
            received.append(payload)
            return False

        await self.receive_each(keep)
        return received[0]

    async def receive_each(self, take: Callable[[bytes], bool]) -> None:
        """Hand every message to `take`, until it returns False."""
        # One coroutine with no helper on the usual path: each level costs at 100,000 messages a second.
        if self._receiver is not None:
            raise RuntimeError("another task already receives on this channel")
        task = asyncio.current_task(self._loop)  # without the loop it is a system call
        assert task is not None
        cancels = task.cancelling()
        receive = self._socket.receive
        try:
            while self._end is None:
                self._receiver = task
                if self._held is not None:
                    await asyncio.shield(self._held)
                message = await receive()
                if message.type is _BINARY:
                    payload: bytes = message.data
                    self.received_bytes += len(payload)
                    if not take(payload):
                        return
                else:
                    self._receiver = None  # whatever ends the channel there must not interrupt itself
                    await self._handle(message)
        except asyncio.CancelledError:
            # `close` wakes the receiver in the way of asyncio.timeout: by a cancel request that is taken back here.
            if self._receiver is None or self._end is None or task.uncancel() > cancels:
                raise
        finally:
            self._receiver = None
        raise again(self._end)

    async def close(self, reason: str = "") -> None:
        """Say goodbye, read on until the peer answers, at most 2 seconds, then drop the connection."""
        if self._gone is not None:
            await asyncio.shield(self._gone)
        else:
            words = cut_reason(reason)
            await self._leave(ChannelClosed(words, clean=True), WSCloseCode.OK, words)

    def _write(self, sending: Coroutine[object, None, None]) -> asyncio.Future[None] | None:
        """Write a frame, unless the channel has ended; see `_drive`."""
        if self._end is not None:
            sending.close()
            raise again(self._end)
        return self._drive(sending)

    @staticmethod
    def _drive(sending: Coroutine[object, None, None]) -> asyncio.Future[None] | None:
        """Run aiohttp's coroutine up to its first wait and return the future that it waits for, None if it is done.

        An uncompressed frame is written before the coroutine can wait: what it then waits for is the drain alone, so
        dropping it there loses nothing. This saves a task for each message, and it is the only safe way to wait:
        aiohttp lets all writers wait on one future, and a writer that is cancelled in there cancels it for the others.
        """
        try:
            drained = sending.send(None)
        except StopIteration:
            return None
        except FOREIGN as error:
            raise broken(error) from error
        sending.close()
        assert isinstance(drained, asyncio.Future)
        # What a Task does with a future that was yielded to it; else the next await of the same future raises.
        drained._asyncio_future_blocking = False
        # If nobody waits for it, a connection that breaks would be reported as an exception that was never retrieved.
        drained.add_done_callback(_look_at)
        return drained

    def _check_backlog(self) -> None:
        if self._transport.get_write_buffer_size() > self._send_buffer_bytes:
            self._transport.abort()
            raise ChannelClosed("the peer reads too slowly", clean=False)

    async def _handle(self, message: WSMessage) -> None:
        if (
            message.type in _CONTROL_TYPES
            and self._control is not None
            and not self._control.take(1, self._loop.time())
        ):
            self._report("control_flood", self._peer)
            self._transport.abort()
            await self._leave(ChannelClosed("too many control frames", clean=False), None, "")
        elif message.type is WSMsgType.PING:
            # Here because aiohttp's autoping may wait for the drain. A connection that is lost says so after what had
            # arrived, so not now.
            with contextlib.suppress(ChannelClosed):
                if self._write(self._socket.pong(message.data)) is not None:
                    self._check_backlog()
        elif message.type is WSMsgType.TEXT:
            await self._leave(
                ChannelClosed("the peer sent a text message", clean=False), WSCloseCode.UNSUPPORTED_DATA, ""
            )
        elif message.type is WSMsgType.CLOSE:
            reason = str(message.extra or "")[:200]
            await self._leave(ChannelClosed(reason, clean=message.data in _CLEAN_CODES), None, "")
        elif message.type is not WSMsgType.PONG:
            error = message.data
            reason = str(error) if isinstance(error, WebSocketError) else ""
            await self._leave(ChannelClosed(reason, clean=False), None, "")

    async def _leave(self, end: ChannelClosed, code: WSCloseCode | None, reason: str) -> None:
        """End the channel: shake hands (with `code`) or just hang up (without), then release all. Runs once."""
        self._end = end
        self._gone = asyncio.get_running_loop().create_future()
        try:
            await self._interrupt_receiver()
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if code is not None:
                    await self._shake_hands(code, reason)
                elif not self._transport.is_closing():
                    await self._answer()
            self._transport.close()
        except (ChannelClosed, *FOREIGN):
            self._transport.abort()
        except BaseException:
            self._transport.abort()
            raise
        finally:
            try:
                # The transport is closing, so this writes nothing: it lets aiohttp drop what it keeps for the socket.
                await self._socket.close()
                await self._release()
            finally:
                self._gone.set_result(None)

    async def _interrupt_receiver(self) -> None:
        if self._receiver is not None:
            self._receiver.cancel()
        while self._receiver is not None:  # noqa: ASYNC110 - it leaves at its next turn
            await asyncio.sleep(0)

    async def _shake_hands(self, code: WSCloseCode, reason: str) -> None:
        """Send a close frame and read until the peer's arrives, which says that it has read all before."""
        self._drive(self._socket.send_frame(struct.pack("!H", code) + reason.encode(), WSMsgType.CLOSE))
        while (await self._socket.receive()).type in _OPEN_TYPES:
            pass

    async def _answer(self) -> None:
        """Answer the peer's close frame and wait until that is on its way."""
        drained = self._drive(self._socket.send_frame(struct.pack("!H", WSCloseCode.OK), WSMsgType.CLOSE))
        if drained is not None:
            await asyncio.shield(drained)


def frame_head(size: int) -> bytes:
    """Return what stands before an unmasked binary message of `size` bytes in one frame (RFC 6455, section 5.2)."""
    if size < 126:
        return _HEAD_7(0x82, size)
    if size < 2**16:
        return _HEAD_16(0x82, 126, size)
    return _HEAD_64(0x82, 127, size)


def _look_at(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
