"""Messages go to the call one at a time and in order, whether they are written at once or by the writer's task."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from aioseed_grpc.channel import GrpcChannel
from aioseed_grpc.frame import CLOSING, decode

from aioseed.errors import ChannelClosed


class SlowStream:
    """A call that writes one message at a time, each as soon as the test lets it (implements `Stream`)."""

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.written: list[bytes] = []
        self.finished = False
        self.aborted: list[str] = []
        self.asked = asyncio.Event()  # set: the peer asks to stop writing
        self.stopped_after: list[bytes] | None = None
        self._turn: asyncio.Future[None] | None = None
        self._over = asyncio.Event()

    async def read(self) -> bytes | None:
        if self.stopped_after is None:
            waits = {asyncio.ensure_future(event.wait()) for event in (self._over, self.asked)}
            _, others = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for other in others:
                other.cancel()
            if not self._over.is_set():
                return CLOSING
        await self._over.wait()
        return None

    def all_read(self) -> None:
        return

    async def stop(self) -> None:
        self.stopped_after = list(self.written)

    async def write(self, frame: bytes) -> None:
        assert self._turn is None, "two writes at once"
        self.begun.append(decode(frame))
        self._turn = asyncio.get_running_loop().create_future()
        try:
            await self._turn
        finally:
            self._turn = None
        self.written.append(decode(frame))

    def go_on(self, failure: BaseException | None = None) -> None:
        assert self._turn is not None
        if failure is None:
            self._turn.set_result(None)
        elif isinstance(failure, asyncio.CancelledError):
            self._turn.cancel()  # as the end of a call does
        else:
            self._turn.set_exception(failure)

    async def ending(self) -> ChannelClosed:
        return ChannelClosed("", clean=True)

    async def finish(self, reason: str) -> None:
        self.finished = True

    def abort(self, reason: str) -> None:
        self.aborted.append(reason)
        self._over.set()

    async def release(self) -> None:
        self._over.set()


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def write_all(stream: SlowStream, count: int) -> None:
    for _ in range(count):
        await turns()
        stream.go_on()
    await turns()


def made(send_buffer_bytes: int = 2**20) -> tuple[GrpcChannel, SlowStream]:
    stream = SlowStream()
    return GrpcChannel(stream, peer="x", max_message_bytes=2**20, send_buffer_bytes=send_buffer_bytes), stream


async def test_a_message_is_written_at_once_when_nothing_else_is() -> None:
    channel, stream = made()
    channel.send_nowait(b"1")
    assert stream.begun == [b"1"]
    await write_all(stream, 1)
    channel.send_nowait(b"2")
    assert stream.begun == [b"1", b"2"]
    await write_all(stream, 1)
    await channel.close()


async def test_messages_that_come_during_a_write_follow_in_order() -> None:
    channel, stream = made()
    for message in (b"1", b"2", b"3"):
        channel.send_nowait(message)
    await turns()
    assert stream.begun == [b"1"]
    stream.go_on()
    await asyncio.sleep(0)
    # The writer has taken "2" and nothing is being written: this is where "4" must not overtake.
    channel.send_nowait(b"4")
    await write_all(stream, 3)
    assert stream.written == [b"1", b"2", b"3", b"4"]
    await channel.close()


async def test_a_message_does_not_overtake_one_that_the_writer_has_yet_to_take() -> None:
    channel, stream = made()
    channel.send_nowait(b"1")
    await turns()
    stream.go_on()
    asyncio.get_running_loop().call_soon(
        channel.send_nowait, b"3"
    )  # after the write has ended, before the writer wakes
    channel.send_nowait(b"2")
    await write_all(stream, 2)
    assert stream.written == [b"1", b"2", b"3"]
    await channel.close()


@pytest.mark.parametrize("pauses", range(6))
async def test_no_message_overtakes_at_any_moment_of_a_write(pauses: int) -> None:
    channel, stream = made()
    sent = []
    for number in range(20):
        sent.append(bytes([number]))
        channel.send_nowait(sent[-1])
        for _ in range(pauses):
            await asyncio.sleep(0)
        if stream._turn is not None and not stream._turn.done():
            stream.go_on()
    while len(stream.written) < len(sent):
        if stream._turn is not None and not stream._turn.done():
            stream.go_on()
        await asyncio.sleep(0)
    assert stream.written == sent
    await channel.close()


async def test_a_close_waits_for_the_write_under_way() -> None:
    channel, stream = made()
    channel.send_nowait(b"last")
    closing = asyncio.create_task(channel.close())
    await turns()
    assert not stream.finished
    stream.go_on()
    await closing
    assert stream.written == [b"last"]
    assert stream.finished


async def test_who_closes_as_well_may_be_cancelled() -> None:
    channel, stream = made()
    channel.send_nowait(b"last")
    first, second = (asyncio.create_task(channel.close()) for _ in range(2))
    await turns()
    second.cancel()
    await asyncio.wait({second})
    assert not first.done()
    stream.go_on()
    await first
    assert stream.finished and not stream.aborted


@pytest.mark.parametrize("end", ["fails", "hangs", "is cancelled"])
async def test_a_close_that_the_call_does_not_answer_breaks_it_off(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioseed_grpc.channel.CLOSE_TIMEOUT_S", 60.0 if end == "is cancelled" else 0.02)
    channel, stream = made()

    async def finish(reason: str) -> None:
        if end == "fails":
            raise grpc.aio.UsageError("gone")
        await asyncio.Event().wait()

    monkeypatch.setattr(stream, "finish", finish)
    closing = asyncio.create_task(channel.close())
    await turns()
    if end == "is cancelled":
        closing.cancel()
    await asyncio.wait({closing})
    assert closing.cancelled() if end == "is cancelled" else closing.exception() is None
    assert stream.aborted == [""]
    await channel.close()


@pytest.mark.parametrize("failure", [grpc.aio.UsageError("gone"), asyncio.CancelledError()])
async def test_a_write_that_fails_ends_sending(failure: BaseException) -> None:
    channel, stream = made()
    channel.send_nowait(b"1")
    stream.go_on(failure)
    await turns()
    assert not channel.backlog_bytes
    with pytest.raises(ChannelClosed):
        channel.send_nowait(b"2")
    await channel.close()


async def test_a_channel_that_is_cut_is_broken_at_once_and_writes_nothing_more() -> None:
    channel, stream = made()
    channel.send_nowait(b"1")
    channel.send_nowait(b"2")
    await turns()  # "1" is being written, the writer's task holds "2"
    channel.cut("too much")
    assert stream.aborted == ["too much"]
    for use in (channel.receive, lambda: channel.send(b"3")):
        with pytest.raises(ChannelClosed, match="too much") as caught:
            await use()
        assert not caught.value.clean
    stream.go_on()
    await turns()
    assert stream.begun == [b"1"]
    await channel.close()


async def test_what_the_writer_has_in_hand_is_backlog() -> None:
    channel, stream = made()
    channel.send_nowait(b"1")
    channel.send_nowait(b"2")
    await write_all(stream, 1)
    assert stream.begun == [b"1", b"2"] and channel.backlog_bytes == 1
    await write_all(stream, 1)
    assert channel.backlog_bytes == 0
    await channel.close()


async def test_a_peer_that_closes_lets_what_is_in_hand_be_written_and_gets_nothing_else() -> None:
    channel, stream = made()
    channel.send_nowait(b"1")
    channel.send_nowait(b"2")
    await turns()  # "1" is being written, the writer's task holds "2"
    channel.send_nowait(b"3")
    stream.asked.set()
    await turns()
    assert stream.stopped_after is None
    with pytest.raises(ChannelClosed) as caught:
        channel.send_nowait(b"4")
    assert caught.value.clean
    await write_all(stream, 2)
    assert stream.stopped_after == stream.begun == [b"1", b"2"]
    await channel.close()
