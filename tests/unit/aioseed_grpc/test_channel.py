"""What the transport kit does not say of a gRPC channel: what it is to a peer that has only grpcio."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from aioseed_grpc import stream
from aioseed_grpc.channel import GrpcChannel
from aioseed_grpc.stream import CLOSE_REASON_KEY

from aioseed.errors import ChannelClosed
from aioseed.transport import Channel

from .conftest import Ends

pytestmark = pytest.mark.every_loop


async def closed(channel: Channel) -> ChannelClosed:
    with pytest.raises(ChannelClosed) as caught:
        await channel.receive()
    return caught.value


async def test_message_is_one_frame(plain: Ends) -> None:
    plain.channel.send_nowait(b"out")
    assert await plain.call.read() == b"\x0a\x03out"
    await plain.call.write(b"\x0a\x02in")
    assert await plain.channel.receive() == b"in"


async def test_fields_of_a_later_version_are_skipped(plain: Ends) -> None:
    await plain.call.write(b"\x10\x07" + b"\x0a\x02in" + b"\x1a\x01x")
    assert await plain.channel.receive() == b"in"


async def test_malformed_frame_breaks_the_channel_after_what_came_before(plain: Ends) -> None:
    await plain.call.write(b"\x0a\x06before")
    await plain.call.write(b"\x0a\x7fshort")
    assert await plain.channel.receive() == b"before"
    end = await closed(plain.channel)
    assert not end.clean
    assert end.reason == "a field is longer than the frame"
    assert await plain.call.code() is grpc.StatusCode.ABORTED


async def test_half_close_of_the_client_is_a_clean_end_that_is_answered(plain: Ends) -> None:
    await plain.call.write(b"\x0a\x04last")
    await plain.call.done_writing()
    assert await plain.channel.receive() == b"last"
    assert (await closed(plain.channel)).clean
    assert await plain.call.code() is grpc.StatusCode.OK


async def test_cancelled_call_of_the_client_is_no_clean_end(plain: Ends) -> None:
    await plain.call.write(b"\x0a\x04last")
    assert await plain.channel.receive() == b"last"
    plain.call.cancel()
    assert not (await closed(plain.channel)).clean
    with pytest.raises(ChannelClosed):
        plain.channel.send_nowait(b"nobody hears")


async def test_a_server_that_closes_asks_to_stop_and_then_sends_the_status_ok_with_the_reason(plain: Ends) -> None:
    plain.channel.send_nowait(b"x")
    closing = asyncio.create_task(plain.channel.close("ä" * 200))
    assert await plain.call.read() == b"\x0a\x01x"
    assert await plain.call.read() == b"\x10\x01"
    await plain.call.write(b"\x0a\x02on")  # what was under way is still read, so it cannot fail
    assert not closing.done()
    await plain.call.done_writing()
    assert await plain.call.read() is grpc.aio.EOF
    assert await plain.call.code() is grpc.StatusCode.OK
    assert (await plain.call.trailing_metadata())[CLOSE_REASON_KEY] == ("ä" * 60).encode()
    await closing


async def test_a_client_that_does_not_stop_gets_the_status_all_the_same(
    plain: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STOP_TIMEOUT_S", 0.02)
    await plain.call.write(b"\x0a\x06unread")
    async with asyncio.timeout(10.0):
        while not plain.channel.received_bytes:  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0)
    await plain.channel.close("done")
    assert (await closed(plain.channel)).reason == "done"
    assert await plain.call.read() == b"\x10\x01"
    assert await plain.call.read() is grpc.aio.EOF
    assert await plain.call.code() is grpc.StatusCode.OK


async def test_a_client_may_not_ask_to_stop(plain: Ends) -> None:
    await plain.call.write(b"\x10\x01")
    end = await closed(plain.channel)
    assert not end.clean and end.reason == "only a server asks to stop writing"
    assert await plain.call.code() is grpc.StatusCode.ABORTED


async def test_nothing_is_lost_where_both_write_while_the_server_closes(channels: tuple[Channel, Channel]) -> None:
    """As often as this was lost: once in some fifty times, on a busy machine."""
    near, far = channels
    messages = [bytes([number]) * 2**16 for number in range(64)]
    for message in messages:
        near.send_nowait(message)
        far.send_nowait(message)
    closing = asyncio.create_task(far.close("done"))
    assert [await near.receive() for _ in messages] == messages
    end = await closed(near)
    assert end.clean and end.reason == "done"
    await closing


async def test_reason_travels_from_the_listener_alone(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    await far.close("enough")
    assert (await closed(near)).reason == "enough"
    assert (await closed(far)).reason == "enough"


async def test_a_dialler_stops_writing_when_it_is_asked(
    channels: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STOP_TIMEOUT_S", 300.0)
    monkeypatch.setattr("aioseed_grpc.channel.CLOSE_TIMEOUT_S", 300.0)
    near, far = channels
    async with asyncio.timeout(5.0):
        await far.close("enough")
    assert (await closed(near)).clean


async def test_a_dialler_is_told_why_it_was_cut(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    assert isinstance(far, GrpcChannel)
    far.cut("the peer reads too slowly")
    end = await closed(near)
    assert not end.clean and end.reason == "the peer reads too slowly"


async def test_a_dialler_that_cuts_is_gone_at_once(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    assert isinstance(near, GrpcChannel)
    near.cut("enough")
    async with asyncio.timeout(5.0):
        assert not (await closed(far)).clean


async def test_writes_that_end_are_counted_whoever_does_them(plain: Ends) -> None:
    channel = plain.channel
    assert isinstance(channel, GrpcChannel)
    async with asyncio.timeout(10.0):
        for count in range(1, 11):
            channel.send_nowait(b"at once")
            channel.send_nowait(b"by the writer")
            assert channel.backlog_bytes > 1 and channel.finished_writes == 2 * count - 2
            while channel.finished_writes < 2 * count:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0)
    assert not channel.backlog_bytes


async def test_a_write_that_waits_for_its_peer_does_not_count(plain: Ends) -> None:
    channel = plain.channel
    assert isinstance(channel, GrpcChannel)
    for count in range(1, 31):  # soon it is more than the peer takes without reading
        channel.send_nowait(bytes(2**20))
        await asyncio.sleep(0.1)
        if channel.finished_writes < count:
            break
    assert channel.backlog_bytes == 1
    channel.send_nowait(b"waits too")
    assert channel.backlog_bytes > 1
    await asyncio.sleep(0.1)
    assert channel.finished_writes == count - 1 and channel.backlog_bytes
    plain.call.cancel()


async def test_reader_that_waits_does_not_hold_up_a_close(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    receiving = asyncio.create_task(closed(near))
    await asyncio.sleep(0)
    await near.close()
    assert (await receiving).clean
    assert (await closed(far)).clean


async def test_what_comes_while_a_channel_is_held_is_read_afterwards(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    near.hold(True)
    for message in (b"one is under way", b"later", b"last"):
        far.send_nowait(message)
    assert await near.receive() == b"one is under way"
    await asyncio.sleep(0.05)
    assert near.received_bytes == len(b"one is under way")
    near.hold(False)
    assert [await near.receive() for _ in range(2)] == [b"later", b"last"]
