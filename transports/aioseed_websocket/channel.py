"""One WebSocket as a channel, the same for both sides.

aiohttp shakes hands and then steps aside: a channel is the protocol of its connection itself. Messages go from the
socket to whoever takes them without a task in between, large ones without a copy, and the closing waits for the peer in
every case. Else unread data makes the kernel reset the connection, and what was sent last is lost: the side that closes
sends a close frame and reads on until the peer's answer says that all was read.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable

from aioseed.errors import ChannelClosed
from aioseed.transport.address import is_loopback
from aioseed.transport.channel import Channel, MakePlace
from aioseed.transport.guard import Bucket
from aioseed.transport.queue import MessageQueue, again, cut_reason
from aioseed.types import Payload
from aioseed_websocket.foreign import broken
from aioseed_websocket.frames import (
    BINARY,
    CLOSE,
    NO_CODE,
    NORMAL,
    PING,
    PONG,
    Closing,
    FrameError,
    FrameReader,
    close_payload,
    frame_head,
    masked,
)
from aioseed_websocket.scatter import read_arrived_of

CLOSE_TIMEOUT_S = 2.0
JOINED_BYTES = 16 * 2**10
"""Messages up to this size are copied behind their head; a larger one is written beside it."""


def forgets_to_pause(version: tuple[int, ...]) -> bool:
    """Say whether ``writelines`` of this Python's own loop never tells that its buffer is full (CVE-2024-12254)."""
    return (3, 12) <= version < (3, 12, 9) or (3, 13) <= version < (3, 13, 2)


_JOINS_ALL = forgets_to_pause(sys.version_info[:3])
"""Every message is copied behind its head: a peer that takes nothing would else let memory grow without end."""

_KEY_THAT_HIDES_NOTHING = bytes(4)


class WebSocketChannel(Channel, asyncio.BufferedProtocol):
    """Carry one message in one binary WebSocket message. A text message of the peer ends the channel.

    Args:
        transport: The connection, just after the handshake; `begin` makes the channel its protocol.
        is_client: Whether this side has dialled: then its frames are masked and the peer's are not.
        connection_lost: Told with what the transport says when the connection is gone.
        release: Lets go of what else belongs to the connection, once it is gone; None if there is nothing.
        control: Bounds the peer's control frames.
        report: Told why the peer was cut, and its address.
    """

    finished_writes = 0  # the write buffer becomes smaller with each byte that leaves, which tells more

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        is_client: bool,
        peer: str,
        max_message_bytes: int,
        send_buffer_bytes: int,
        connection_lost: Callable[[Exception | None], None],
        release: Callable[[], Awaitable[None]] | None = None,
        control: Bucket | None = None,
        report: Callable[[str, str], None] = lambda what, peer: None,
    ) -> None:
        self._transport = transport
        self._peer = peer
        self._send_buffer_bytes = send_buffer_bytes
        self._tell_lost = connection_lost
        self._release = release
        self._control = control
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._inbox = MessageQueue(self._rest, self._read_on)
        self._frames = FrameReader(
            self._inbox.put,
            self._heard,
            from_client=not is_client,
            max_message_bytes=max_message_bytes,
            place=self._inbox.place,
            read_arrived=read_arrived_of(transport),
        )
        self._is_client = is_client
        self._hides = is_client and not _is_unseen(transport)
        self._held = False  # by the listener's guard
        self._full = False  # nobody takes what arrives
        self._rests = False  # is not read from the network
        self._deaf = False  # what the peer sends means nothing any more
        self._said_close = False
        self._has_left = False  # the peer, by a close frame
        self._drained: asyncio.Future[None] | None = None  # while the write buffer is above its high mark
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._releasing: asyncio.Task[None] | None = None
        self._too_late: asyncio.TimerHandle | None = None

    def begin(self, arrived: bytes = b"") -> None:
        """Take the connection over; `arrived` came behind the handshake."""
        transport = self._transport
        if transport.is_closing():
            self.connection_lost(None)  # of which only the protocol before this one would be told
            return
        transport.pause_reading()  # uvloop looks only when it begins to read at how a protocol wants it
        transport.set_protocol(self)
        transport.resume_reading()
        try:
            self._frames.feed(arrived)
        except FrameError as error:
            self.break_off(error)

    @property
    def peer(self) -> str:
        """Return the address of the other side."""
        return self._peer

    @property
    def received_bytes(self) -> int:
        """Return the payload that was received so far."""
        return self._frames.received_bytes

    @property
    def backlog_bytes(self) -> int:
        """Return what waits in the connection's write buffer."""
        return self._transport.get_write_buffer_size()

    def hold(self, held: bool) -> None:
        """Stop reading, or go on."""
        self._held = held
        self._read_or_rest()

    def cut(self, reason: str) -> None:
        """Drop the connection at once."""
        self._deaf = True
        self._inbox.end(ChannelClosed(reason, clean=False))
        self._transport.abort()

    def break_off(self, error: FrameError) -> None:
        """End the channel after a breach of the protocol and tell the peer why."""
        self._deaf = True
        self._inbox.end(ChannelClosed(error.reason, clean=False))
        self._say_close(error.code, cut_reason(error.reason))

    def send_nowait(self, payload: bytes) -> None:
        """Write one message; no task is made for it."""
        size = len(payload)
        if size <= JOINED_BYTES and self._inbox.ended is None and not (self._hides or self._transport.is_closing()):
            self._transport.write(_plain_head(size, self._is_client) + payload)
        else:
            self._write(payload)
        if self._drained is not None and self._cut_if_unread():
            raise ChannelClosed("the peer reads too slowly", clean=False)

    async def send(self, payload: bytes) -> None:
        """Write one message and wait while the connection's write buffer is above its high mark."""
        self._write(payload)
        if self._drained is not None:
            await asyncio.shield(self._drained)
            if self._lost.done():
                raise ChannelClosed("the connection broke", clean=False)

    async def receive(self) -> bytes:
        """Return the next message."""
        return await self._inbox.take()

    async def receive_each(self, take: Callable[[Payload], bool], place: MakePlace | None = None) -> None:
        """Hand every message to `take`, from within the reading of the socket, until it returns False."""
        await self._inbox.take_each(take, place)

    async def close(self, reason: str = "") -> None:
        """Say goodbye, read on until the peer answers, at most 2 seconds, then drop the connection."""
        words = cut_reason(reason)
        self._inbox.end(ChannelClosed(words, clean=True), drop=True)
        self._say_close(NORMAL, words)
        try:
            await asyncio.shield(self._lost)
            if self._releasing is not None:
                await asyncio.shield(self._releasing)
        except asyncio.CancelledError:
            self._transport.abort()
            raise

    # -- what the connection tells -------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes are to be written."""
        return self._frames.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes in that were written there."""
        if not self._deaf:
            try:
                self._frames.received(nbytes)
            except FrameError as error:
                self.break_off(error)

    def eof_received(self) -> None:
        """Let the connection close: a peer says goodbye before it ends its side, or it has broken off.

        What is unsent goes out first, but a peer that no longer reads either is not waited for.
        """
        self._inbox.end(ChannelClosed("the connection broke", clean=False))
        self._end_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the channel as broken, if it has not ended before."""
        self._inbox.end(broken(exc) if exc is not None else ChannelClosed("the connection broke", clean=False))
        if self._too_late is not None:
            self._too_late.cancel()
        self.resume_writing()
        if self._lost.done():
            return
        self._lost.set_result(None)
        self._tell_lost(exc)
        if self._release is not None:
            self._releasing = asyncio.ensure_future(self._release())

    def pause_writing(self) -> None:
        """Let those who `send` wait."""
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let them go on."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    # -- within --------------------------------------------------------------------------------------------------------

    def _heard(self, opcode: int, payload: bytes) -> None:
        """Answer a PING or the peer's goodbye."""
        if self._deaf:
            return  # it came in one piece with what ended the channel
        if opcode == CLOSE:
            closing = Closing(payload)
            self._inbox.end(ChannelClosed(closing.reason, clean=closing.is_clean))
            self._deaf = self._has_left = True  # it has said its last word
            self._say_close(NORMAL if closing.code == NO_CODE else closing.code)
            self._transport.close()
        elif self._control is not None and not self._control.take(1, self._loop.time()):
            self._report("control_flood", self._peer)
            self.cut("too many control frames")
        elif opcode == PING and not self._said_close and not self._transport.is_closing():
            self._frame(PONG, payload)
            self._cut_if_unread()  # whoever asks on and on, and reads no answer, takes no memory by that

    def _cut_if_unread(self) -> bool:
        """Drop the connection if more waits to be read than may, and say whether it does."""
        if self._transport.get_write_buffer_size() <= self._send_buffer_bytes:
            return False
        self._report("slow_reader", self._peer)
        self.cut("the peer reads too slowly")
        return True

    def _rest(self) -> None:
        self._full = True
        self._read_or_rest()

    def _read_on(self) -> None:
        if self._full:
            self._full = False
            self._read_or_rest()

    def _read_or_rest(self) -> None:
        rests = (self._held or self._full) and not self._said_close
        if rests == self._rests or self._transport.is_closing():
            return
        self._rests = rests
        if rests:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _write(self, payload: bytes) -> None:
        if self._inbox.ended is not None:
            if self._has_left and self._inbox.size_bytes:
                return  # crosses the peer's goodbye, before which there are still its last words to be read
            raise again(self._inbox.ended)
        if self._transport.is_closing():
            raise ChannelClosed("the connection broke", clean=False)
        self._frame(BINARY, payload)

    def _frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        body: Payload = payload
        head = frame_head(size, opcode, is_masked=self._is_client)
        if self._is_client:
            key = os.urandom(4) if self._hides else _KEY_THAT_HIDES_NOTHING
            head, body = head + key, masked(payload, key)
        if size <= JOINED_BYTES or _JOINS_ALL:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))  # at once, so that the head alone wakes nobody

    def _say_close(self, code: int, words: str = "") -> None:
        """Send a close frame, once, and see that the connection ends soon after."""
        if self._said_close:
            return
        self._said_close = True
        self._end_soon()
        if not self._transport.is_closing():
            self._frame(CLOSE, close_payload(code, words))
            self._read_or_rest()

    def _end_soon(self) -> None:
        """See that the connection ends within a while, whatever the peer does."""
        if self._too_late is None and not self._lost.done():
            self._too_late = self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)


@functools.lru_cache(maxsize=1024)
def _plain_head(size: int, is_client: bool) -> bytes:
    """Return what stands before a binary message that no mask hides."""
    head = frame_head(size, BINARY, is_masked=is_client)
    return head + _KEY_THAT_HIDES_NOTHING if is_client else head


def _is_unseen(transport: asyncio.Transport) -> bool:
    """Say whether no proxy can look into what goes over this connection: it stays on this machine, or TLS is around it.

    Masks with keys that nobody can guess are there for proxies, which scripts could else make see requests of their own
    (RFC 6455, section 10.3). Where none looks, a key of zeros spares both sides a pass over every byte.
    """
    if transport.get_extra_info("ssl_object") is not None:
        return True
    name = transport.get_extra_info("peername")
    return not isinstance(name, tuple) or is_loopback(name[0])
