"""What the transport kit does not say of how a WebSocket channel ends."""

from __future__ import annotations

import asyncio
import base64
import gc
import struct

import aiohttp
import pytest
from aioseed_websocket.channel import WebSocketChannel

from aioseed.errors import ChannelClosed
from aioseed.transport import Channel

from .conftest import Accept, Ends, closed

pytestmark = pytest.mark.every_loop


@pytest.mark.parametrize(
    ("frame", "clean"),
    [(struct.pack("!H", 1000) + b"bye", True), (struct.pack("!H", 1001), True), (b"", True), (b"\x03\xf3", False)],
)
async def test_close_frame_is_answered_and_its_code_says_how_it_ended(plain: Ends, frame: bytes, clean: bool) -> None:
    await plain.client.send_frame(frame, aiohttp.WSMsgType.CLOSE)
    end = await closed(plain.channel)
    assert end.clean is clean
    assert end.reason == frame[2:].decode()
    code = struct.unpack("!H", frame[:2])[0] if frame else 1000
    assert (await plain.client.receive())[:2] == (aiohttp.WSMsgType.CLOSE, code)
    assert isinstance(plain.channel, WebSocketChannel)
    assert plain.channel._transport.is_closing(), "nothing more is waited for"


async def test_lost_connection_is_not_clean_but_what_arrived_is_handed_out(plain: Ends) -> None:
    await plain.client.send_bytes(b"last words")
    await plain.client.ping()
    assert await plain.channel.receive() == b"last words"
    await plain.client.send_bytes(b"very last")
    transport = plain.client._writer.transport
    transport.close()
    assert await plain.channel.receive() == b"very last"
    assert not (await closed(plain.channel)).clean
    with pytest.raises(ChannelClosed):
        plain.channel.send_nowait(b"nobody hears")


async def test_who_answers_a_peer_that_has_left_still_reads_its_last_words(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    near.send_nowait(b"question")
    near.send_nowait(b"last words")
    await near.close()
    assert await far.receive() == b"question"
    far.send_nowait(b"answer")
    await far.send(b"answer")
    assert await far.receive() == b"last words"
    with pytest.raises(ChannelClosed):
        far.send_nowait(b"nobody hears")
    assert (await closed(far)).clean


async def test_reason_of_a_close_is_cut_to_what_a_frame_holds(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    _, end = await asyncio.gather(near.close("ä" * 200), closed(far))
    assert end.reason == "ä" * 60
    assert (await closed(near)).reason == "ä" * 60


async def test_cancel_that_meets_a_close_stays_a_cancel(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    receiving = asyncio.create_task(near.receive())
    await asyncio.sleep(0)
    closing = asyncio.create_task(near.close())
    receiving.cancel()
    await asyncio.gather(closing, closed(far))
    with pytest.raises(asyncio.CancelledError):
        await receiving


async def test_close_leaves_no_cancel_request_in_the_task_that_it_woke(channels: tuple[Channel, Channel]) -> None:
    near, far = channels

    async def receive() -> int:
        await closed(near)
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    receiving = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await asyncio.gather(near.close(), closed(far))
    assert await receiving == 0


async def test_peer_that_does_not_answer_the_close_is_cut_off(plain: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioseed_websocket.channel.CLOSE_TIMEOUT_S", 0.05)
    await plain.client.send_bytes(b"unread")
    await plain.client.ping()
    assert (await plain.client.receive()).type is aiohttp.WSMsgType.PONG
    closing = asyncio.create_task(plain.channel.close("over"))
    await asyncio.sleep(0)
    assert (await closed(plain.channel)).reason == "over"
    with pytest.raises(ChannelClosed, match="over"):
        plain.channel.send_nowait(b"after the goodbye")
    await closing
    assert plain.client._writer.transport is not None
    messages = [(await plain.client.receive()).type for _ in range(2)]
    assert messages == [aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED]


async def test_close_that_is_cancelled_cuts_the_connection_at_once(plain: Ends) -> None:
    closing = asyncio.create_task(plain.channel.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    assert isinstance(plain.channel, WebSocketChannel)
    assert closing.cancelled() and plain.channel._transport.is_closing()


async def test_close_that_times_out_does_not_cancel_those_who_wait_to_send(
    plain: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed_websocket.channel.CLOSE_TIMEOUT_S", 0.05)
    assert isinstance(plain.channel, WebSocketChannel)
    while plain.channel._transport.get_write_buffer_size() < 2**20:
        plain.channel.send_nowait(bytes(2**16))
    sending = asyncio.create_task(plain.channel.send(bytes(2**17)))
    await asyncio.sleep(0)
    assert not sending.done()
    await plain.channel.close()
    await asyncio.wait({sending})
    assert not sending.cancelled()


async def test_lost_connection_with_an_unanswered_ping_hands_out_what_came_after(plain: Ends) -> None:
    await plain.client.ping()
    await plain.client.send_bytes(b"last words")
    assert isinstance(plain.channel, WebSocketChannel)
    plain.client._writer.transport.abort()
    while not plain.channel._transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await plain.channel.receive() == b"last words"
    assert not (await closed(plain.channel)).clean


async def test_close_of_a_broken_channel_is_no_error(plain: Ends) -> None:
    assert isinstance(plain.channel, WebSocketChannel)
    plain.channel._transport.abort()
    for size in (1, 2**15):
        with pytest.raises(ChannelClosed):  # before anybody was told
            plain.channel.send_nowait(bytes(size))
    await plain.channel.close()
    with pytest.raises(ChannelClosed):
        plain.channel.send_nowait(b"x")


@pytest.mark.parametrize("somebody_waits", [False, True])
async def test_connection_that_breaks_while_it_is_full_leaves_no_unseen_exception(
    plain: Ends, somebody_waits: bool
) -> None:
    loop = asyncio.get_running_loop()
    unseen: list[object] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    assert isinstance(plain.channel, WebSocketChannel)
    while plain.channel._transport.get_write_buffer_size() < 2**20:
        plain.channel.send_nowait(bytes(2**16))
    waiting = asyncio.create_task(plain.channel.send(bytes(2**17)) if somebody_waits else asyncio.sleep(0))
    await asyncio.sleep(0)
    assert not (somebody_waits and waiting.done())
    plain.client._writer.transport.abort()
    with pytest.raises(ChannelClosed):
        while True:
            await plain.channel.receive()
    await asyncio.wait({waiting})
    assert isinstance(waiting.exception(), ChannelClosed) is somebody_waits
    gc.collect()
    await asyncio.sleep(0)
    assert unseen == []


class Gone(asyncio.Transport):
    """Be a connection that was lost during the handshake."""

    def is_closing(self) -> bool:
        return True


async def test_connection_that_is_lost_before_it_is_a_channel_is_a_broken_channel() -> None:
    told: list[Exception | None] = []
    channel = WebSocketChannel(
        Gone(), is_client=True, peer="x", max_message_bytes=1, send_buffer_bytes=1, connection_lost=told.append
    )
    channel.begin()
    assert not (await closed(channel)).clean
    await channel.close()
    assert told == [None]


@pytest.mark.parametrize("held", [False, True])
async def test_who_closes_reads_on_though_nobody_takes_what_arrives(
    channels: tuple[Channel, Channel], held: bool
) -> None:
    near, far = channels
    assert isinstance(near, WebSocketChannel)
    near.hold(held)
    for _ in range(64):
        far.send_nowait(bytes(2**16))
    async with asyncio.timeout(10.0):
        while not near._rests:  # noqa: ASYNC110 - until it is full, or held
            await asyncio.sleep(0)
    near.send_nowait(b"last words")
    async with asyncio.timeout(1.5):  # less than the patience with a peer that does not answer
        closing = asyncio.create_task(near.close("done"))
        assert await far.receive() == b"last words"
        assert (await closed(far)).clean
        await closing


async def test_a_peer_that_ends_its_side_and_reads_no_more_is_not_waited_for(
    accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed_websocket.channel.CLOSE_TIMEOUT_S", 0.05)
    async with accept() as (listener, accepted):
        _, writer = await upgraded(listener.url)
        channel = await accepted.get()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not channel.backlog_bytes:  # until the system takes no more
            channel.send_nowait(bytes(2**20))
            await asyncio.sleep(0)
        writer.write_eof()
        assert not (await closed(channel)).clean
        assert channel.backlog_bytes, "it is told at once"
        async with asyncio.timeout(1.0):
            while channel.backlog_bytes:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.01)
            await channel.close()
        writer.transport.abort()


async def test_nothing_is_said_after_the_goodbye(accept: Accept) -> None:
    ping, goodbye = b"\x89\x80\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xe8"
    async with accept() as (listener, accepted), asyncio.timeout(5.0):
        reader, writer = await upgraded(listener.url)
        closing = asyncio.create_task((await accepted.get()).close())
        assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
        writer.write(ping + goodbye)
        assert await reader.read() == b""
        await closing
        writer.close()


async def upgraded(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection that is a WebSocket, with nobody of ours at this end."""
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n"
    writer.write(head.format(host, base64.b64encode(bytes(16)).decode()).encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer
