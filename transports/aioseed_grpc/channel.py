"""One gRPC call as a channel.

A cancelled read or write of grpc.aio ends the whole call, so no caller of the channel ever waits in one: one task reads
into an inbox and one writes from an outbox, both bounded. While nothing else is being written, a message goes straight
to the call: a task for it would cost a tenth of the whole round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from aioseed.errors import ChannelClosed
from aioseed.transport.channel import Channel, MakePlace
from aioseed.transport.queue import HIGH_WATER_BYTES, MessageQueue, again, cut_reason
from aioseed.types import Payload
from aioseed_grpc.foreign import FOREIGN, broken
from aioseed_grpc.frame import CLOSING, FrameError, decode, encode
from aioseed_grpc.stream import Stream

CLOSE_TIMEOUT_S = 2.0


class GrpcChannel(Channel):
    """Carry one message in one Frame."""

    def __init__(
        self,
        stream: Stream,
        *,
        peer: str,
        max_message_bytes: int,
        send_buffer_bytes: int,
        report: Callable[[str, str], None] = lambda what, peer: None,
    ) -> None:
        self.received_bytes = 0
        self.finished_writes = 0
        self._stream = stream
        self._peer = peer
        self._max_message_bytes = max_message_bytes
        self._send_buffer_bytes = send_buffer_bytes
        self._report = report
        self._inbox = MessageQueue()
        self._outbox = MessageQueue()
        # Completed when everything that belongs to the channel is gone; created by the first `close`.
        self._gone: asyncio.Future[None] | None = None
        # The write under way that no task waits in, and the writer's wait for its end.
        self._direct: Coroutine[object, None, None] | None = None
        self._direct_over: asyncio.Future[None] | None = None
        # Whether the writer has a message that it took from the outbox.
        self._writer_has = False
        # Cleared while the listener's guard lets nothing be read.
        self._may_read = asyncio.Event()
        self._may_read.set()
        loop = asyncio.get_running_loop()
        self._reader = loop.create_task(self._read_all(), name=f"reader of {peer}")
        self._writer = loop.create_task(self._write_all(), name=f"writer of {peer}")

    @property
    def peer(self) -> str:
        """Return the address of the other side."""
        return self._peer

    @property
    def backlog_bytes(self) -> int:
        """Return what waits in the outbox, and 1 more while a write is under way."""
        return self._outbox.size_bytes + (self._direct is not None or self._writer_has)

    def hold(self, held: bool) -> None:
        """Stop reading, or go on."""
        if held:
            self._may_read.clear()
        else:
            self._may_read.set()

    def cut(self, reason: str) -> None:
        """End the call as broken, at once."""
        self._end(ChannelClosed(reason, clean=False))
        self._writer.cancel()
        self._stream.abort(reason)

    def send_nowait(self, payload: bytes) -> None:
        """Queue one message for the writer."""
        self._put(payload)
        if self._outbox.size_bytes > self._send_buffer_bytes:
            reason = "the peer reads too slowly"
            self._report("slow_reader", self._peer)
            self.cut(reason)
            raise ChannelClosed(reason, clean=False)

    async def send(self, payload: bytes) -> None:
        """Queue one message for the writer and wait until the queue has room."""
        self._put(payload)
        await self._outbox.room()

    async def receive(self) -> bytes:
        """Return the next message."""
        return await self._inbox.take()

    async def receive_each(self, take: Callable[[Payload], bool], place: MakePlace | None = None) -> None:
        """Hand every message to `take` from within the task that reads the call."""
        await self._inbox.take_each(take)

    async def close(self, reason: str = "") -> None:
        """Write what is queued, end the call, wait for the peer to agree, at most 2 seconds."""
        if self._gone is not None:
            await asyncio.shield(self._gone)
            return
        self._gone = asyncio.get_running_loop().create_future()
        words = cut_reason(reason)
        self._inbox.end(ChannelClosed(words, clean=True), drop=True)
        self._outbox.end(ChannelClosed(words, clean=True))
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.wait({self._writer})
                await self._stream.finish(words)
        except (TimeoutError, *FOREIGN):
            self._stream.abort("")
        except BaseException:
            self._stream.abort("")
            raise
        finally:
            try:
                await self._release()
            finally:
                self._gone.set_result(None)

    def _put(self, payload: bytes) -> None:
        if (closed := self._outbox.ended) is not None:
            raise again(closed)
        if self._direct is None and not self._writer_has and not self._outbox.size_bytes:
            self._direct = self._stream.write(encode(payload))
            self._drive()
        else:
            self._outbox.put(payload)

    def _drive(self, _over: asyncio.Future[None] | None = None) -> None:
        """Run the direct write up to its next wait, to be called again when that ends."""
        assert self._direct is not None
        try:
            waited = self._direct.send(None)
        except StopIteration:
            self.finished_writes += 1
        except asyncio.CancelledError:
            self._outbox.end(ChannelClosed("", clean=False), drop=True)
        except FOREIGN as error:
            self._outbox.end(broken(error), drop=True)
        else:
            assert isinstance(waited, asyncio.Future)
            # What a Task does with a future that was yielded to it.
            waited._asyncio_future_blocking = False
            waited.add_done_callback(self._drive)
            return
        self._direct = None
        if self._direct_over is not None and not self._direct_over.done():
            self._direct_over.set_result(None)

    def _end(self, closed: ChannelClosed) -> None:
        self._inbox.end(closed)
        self._outbox.end(closed, drop=True)

    async def _release(self) -> None:
        self._reader.cancel()
        self._writer.cancel()
        await self._stream.release()
        await asyncio.wait({self._reader, self._writer})

    async def _read_all(self) -> None:
        """Move frames into the inbox until the peer ends the call; a full inbox stops reading, and so the peer."""
        stream, inbox = self._stream, self._inbox
        try:
            while isinstance(frame := await stream.read(), bytes):
                if frame == CLOSING:
                    await self._stop_writing()
                    continue
                payload = decode(frame)
                if len(payload) > self._max_message_bytes:
                    raise FrameError(f"a message of {len(payload)} bytes is too large")
                self.received_bytes += len(payload)
                inbox.put(payload)
                if not self._may_read.is_set():
                    await self._may_read.wait()
                if inbox.size_bytes > HIGH_WATER_BYTES:
                    await inbox.room()
            stream.all_read()
            closed = await self._stream.ending()
            self._end(closed)
            if closed.clean:
                # The peer waits for our end of the call, also when nobody here closes the channel soon.
                await self._stream.finish("")
        except FrameError as error:
            self._end(ChannelClosed(str(error), clean=False))
            self._stream.abort(str(error))
        except FOREIGN as error:
            self._end(broken(error))
        finally:
            # Only after something unforeseen or a cancellation is this the first end.
            self._end(ChannelClosed("", clean=False))
            stream.all_read()

    async def _stop_writing(self) -> None:
        """Let the peer, which closes, see that nothing more comes; what it sent is handed out as before."""
        self._outbox.end(ChannelClosed("", clean=True), drop=True)
        await asyncio.wait({self._writer})
        await self._stream.stop()

    async def _write_all(self) -> None:
        """Move messages from the outbox to the call until the outbox has ended and is empty."""
        try:
            while True:
                payload = await self._outbox.take()
                self._writer_has = True
                await self._end_of_direct()
                await self._stream.write(encode(payload))
                self._writer_has = False
                self.finished_writes += 1
        except ChannelClosed:
            await self._end_of_direct()
        except FOREIGN as error:
            # The inbox is left alone: what the peer sent before is still to be handed out.
            self._outbox.end(broken(error), drop=True)

    async def _end_of_direct(self) -> None:
        if self._direct is not None:  # and no other begins while the writer has a message, or the outbox has ended
            self._direct_over = asyncio.get_running_loop().create_future()
            await self._direct_over
