"""What the transport kit does not say of a WebSocket channel: messages, bounds and masks."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import aiohttp
import pytest
from aioseed_websocket.channel import WebSocketChannel, _is_unseen, forgets_to_pause

from aioseed.errors import ChannelClosed
from aioseed.transport import Channel

from .conftest import Accept, Ends, closed

pytestmark = pytest.mark.every_loop


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


@pytest.mark.parametrize(
    ("version", "forgets"),
    [
        ((3, 11, 2), False),
        ((3, 12, 0), True),
        ((3, 12, 8), True),
        ((3, 12, 9), False),
        ((3, 13, 1), True),
        ((3, 13, 2), False),
        ((3, 14, 0), False),
    ],
)
async def test_the_pythons_whose_loop_cannot_hold_back_writers_of_lines_are_known(
    version: tuple[int, ...], forgets: bool
) -> None:
    assert forgets_to_pause(version) is forgets


async def test_a_large_message_is_joined_to_its_head_where_writers_of_lines_are_not_held_back(
    channels: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful:
        def __init__(self, transport: asyncio.Transport) -> None:
            self._transport = transport

        def writelines(self, lines: object) -> None:
            raise AssertionError("nothing would say that the buffer is full")

        def __getattr__(self, name: str) -> object:
            return getattr(self._transport, name)

    monkeypatch.setattr("aioseed_websocket.channel._JOINS_ALL", True)
    for channel in channels:
        monkeypatch.setattr(channel, "_transport", Forgetful(channel._transport))  # type: ignore[attr-defined]
    message = bytes(range(256)) * 2**10
    for near, far in (channels, channels[::-1]):
        near.send_nowait(message)
        assert await far.receive() == message


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
