"""What the transport kit does not say of a WebSocket channel."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import struct

import aiohttp
import pytest
from aioseed_websocket.channel import WebSocketChannel, _is_unseen

from aioseed.errors import ChannelClosed
from aioseed.transport import Channel

from .conftest import Accept, Ends

pytestmark = pytest.mark.every_loop


async def closed(channel: Channel) -> ChannelClosed:
    with pytest.raises(ChannelClosed) as caught:
        await channel.receive()
    return caught.value


async def test_message_is_one_binary_message(plain: Ends) -> None:
    plain.channel.send_nowait(b"out")
    assert (await plain.client.receive())[:2] == (aiohttp.WSMsgType.BINARY, b"out")
    await plain.client.send_bytes(b"in")
    assert await plain.channel.receive() == b"in"


async def test_text_message_ends_the_channel_as_a_breach(plain: Ends) -> None:
    await plain.client.send_bytes(b"before")
    await plain.client.send_str("{}")
    assert await plain.channel.receive() == b"before"
    ending = asyncio.create_task(closed(plain.channel))
    assert (await plain.client.receive())[:2] == (aiohttp.WSMsgType.CLOSE, 1003)
    await plain.client.close()
    assert not (await ending).clean


async def test_ping_is_answered_with_its_payload_and_is_no_message(plain: Ends) -> None:
    receiving = asyncio.create_task(plain.channel.receive())
    await plain.client.ping(b"are you there")
    assert (await plain.client.receive())[:2] == (aiohttp.WSMsgType.PONG, b"are you there")
    await plain.client.pong(b"unasked")
    await plain.client.send_bytes(b"message")
    assert await receiving == b"message"


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


async def test_slow_reader_is_cut_at_the_bound(accept: Accept) -> None:
    from aioseed_websocket import WebSocketTransport

    from aioseed.transport import DialOptions, ListenOptions

    async with accept(ListenOptions(send_buffer_bytes=2**20)) as (listener, accepted):
        async with await WebSocketTransport().dial(listener.url, DialOptions()):
            far = await accepted.get()
            assert isinstance(far, WebSocketChannel)
            highest = 0
            with pytest.raises(ChannelClosed, match="too slowly"):
                while True:
                    far.send_nowait(bytes(2**14))
                    highest = max(highest, far._transport.get_write_buffer_size())
    # It looks once in 64 KiB, and only while the connection is full.
    assert 2**19 < highest < 2**20 + 2**17


class Full(asyncio.Transport):
    """Be a connection whose other end reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.unread_bytes = 0
        self.is_cut = False

    def write(self, data: bytes) -> None:
        self.unread_bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def abort(self) -> None:
        self.is_cut = True

    def is_closing(self) -> bool:
        return self.is_cut

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


async def test_answers_to_pings_that_nobody_reads_are_bounded_like_messages() -> None:
    transport, seen = Full(), []
    channel = WebSocketChannel(
        transport,
        is_client=True,
        peer="x",
        max_message_bytes=1,
        send_buffer_bytes=2**16,
        connection_lost=lambda error: None,
        report=lambda what, peer: seen.append(what),
    )
    channel.begin()
    ping = b"\x89\x7d" + bytes(125)
    for _ in range(2**16 // (len(ping) + 4) + 1):  # an answer has a mask
        assert not transport.is_cut
        channel.get_buffer(-1)[: len(ping)] = ping
        channel.buffer_updated(len(ping))
    assert transport.is_cut and seen == ["slow_reader"]
    assert (await closed(channel)).reason == "the peer reads too slowly"


@pytest.mark.parametrize(
    ("frame", "code"), [(b"\x82\x01x", 1002), (b"\xc2\x81\0\0\0\0x", 1002), (b"\x81\x80\0\0\0\0", 1003)]
)
async def test_breach_of_the_protocol_is_answered_with_its_code(plain: Ends, frame: bytes, code: int) -> None:
    await plain.client.send_bytes(b"before")
    plain.client._writer.transport.write(frame + b"\x82\x80\0\0\0\0")
    assert await plain.channel.receive() == b"before"
    assert not (await closed(plain.channel)).clean
    message = await plain.client.receive()
    assert message[:2] == (aiohttp.WSMsgType.CLOSE, code)
    assert message.extra.startswith("the peer sent")


async def test_flood_of_control_frames_in_one_piece_is_reported_once(accept: Accept) -> None:
    from aioseed.transport import ListenOptions

    seen: list[str] = []
    options = ListenOptions(control_frames_per_s=1.0, report=lambda what, peer: seen.append(what))
    async with accept(options) as (listener, accepted), aiohttp.ClientSession() as session:
        async with session.ws_connect(listener.url, autoping=False) as client:
            channel = await accepted.get()
            client._writer.transport.write(b"\x89\x80\0\0\0\0" * 50)
            assert (await closed(channel)).reason == "too many control frames"
    assert seen == ["control_flood"]


async def test_who_takes_nothing_stops_its_peer_and_loses_nothing(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    assert isinstance(near, WebSocketChannel)
    messages = [bytes([number]) * 2**18 for number in range(64)]
    sending = asyncio.create_task(_send_all(near, messages))
    async with asyncio.timeout(10.0):
        while near._drained is None:  # noqa: ASYNC110 - until the network is full
            await asyncio.sleep(0)
    assert not sending.done()
    assert [await far.receive() for _ in messages] == messages
    await sending


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


async def _send_all(channel: Channel, messages: list[bytes]) -> None:
    for message in messages:
        await channel.send(message)


@pytest.mark.parametrize("unseen", [True, False])
async def test_mask_hides_nothing_where_nobody_looks_in_between(unseen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioseed_websocket.channel._is_unseen", lambda transport: unseen)
    seen = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        answer = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept
        # With the answer in one piece: what comes behind the handshake is not lost, nor what is not whole yet.
        writer.write(answer + b"\r\n\r\n\x82\x05early\x82")
        await writer.drain()
        seen.extend(await reader.readexactly(11))
        writer.write(b"\x04late\x88\x02\x03\xe8")
        await reader.read()
        writer.close()

    from aioseed_websocket import WebSocketTransport

    from aioseed.transport import DialOptions

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with await WebSocketTransport().dial(f"ws://127.0.0.1:{port}", DialOptions()) as channel:
        assert await channel.receive() == b"early"
        channel.send_nowait(b"hello")
        assert await channel.receive() == b"late"
        assert (await closed(channel)).clean
    server.close()
    await server.wait_closed()
    assert seen[:2] == b"\x82\x85"
    key, body = bytes(seen[2:6]), bytes(seen[6:])
    assert (key == bytes(4)) is unseen
    assert bytes(byte ^ key[at % 4] for at, byte in enumerate(body)) == b"hello"


class Connected(asyncio.Transport):
    """Be a connection of which something is known."""

    def __init__(self, **known: object) -> None:
        super().__init__(known)


@pytest.mark.parametrize(
    ("known", "unseen"),
    [
        ({"peername": ("192.0.2.1", 80)}, False),
        ({"peername": ("2001:db8::1", 80, 0, 0)}, False),
        ({"peername": ("192.0.2.1", 80), "ssl_object": object()}, True),
        ({"peername": ("127.0.0.1", 80)}, True),
        ({"peername": ("::1", 80, 0, 0)}, True),
        ({"peername": "/run/a.socket"}, True),
    ],
)
async def test_proxies_look_only_into_what_leaves_this_machine_in_the_clear(
    known: dict[str, object], unseen: bool
) -> None:
    assert _is_unseen(Connected(**known)) is unseen


async def test_what_comes_while_a_channel_is_held_is_read_afterwards(channels: tuple[Channel, Channel]) -> None:
    near, far = channels
    near.hold(True)
    far.send_nowait(b"later")
    await asyncio.sleep(0.05)
    assert not near.received_bytes
    near.hold(False)
    assert await near.receive() == b"later"


async def upgraded(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection that is a WebSocket, with nobody of ours at this end."""
    host, port = url.removeprefix("ws://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "GET / HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n"
    writer.write(head.format(host, base64.b64encode(bytes(16)).decode()).encode())
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


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
