"""The bounds of a listener, tried by peers that do not keep to them, over real sockets.

Timeouts of the listeners are short, so that nobody waits long; what a test waits for always comes, so nothing here
depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import aiohttp
import grpc
import pytest
from aioseed_grpc import GrpcTransport
from aioseed_grpc.stream import METHOD
from aioseed_websocket import WebSocketTransport

from aioseed.errors import ChannelClosed, ConnectError
from aioseed.transport import Channel, ClientTls, DialOptions, Keyring, ListenOptions, Secret, ServerTls, Transport

pytestmark = pytest.mark.may_block("certificates are made by the test itself")

TOKEN = Secret("right")
URLS = {
    "ws": "ws://127.0.0.1:0",
    "wss": "wss://127.0.0.1:0",
    "grpc": "grpc://127.0.0.1:0",
    "grpcs": "grpcs://127.0.0.1:0",
}
PATIENCE_S = 40.0


class Place(NamedTuple):
    transport: Transport
    url: str
    port: int
    seen: Counter[str]
    accepted: asyncio.Queue[Channel]

    async def heard_of(self, what: str, count: int = 1) -> None:
        """Wait until the listener has reported `what` so often."""
        async with asyncio.timeout(PATIENCE_S):
            while self.seen[what] < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@asynccontextmanager
async def place(scheme: str, tls: ServerTls | None = None, **options: Any) -> AsyncIterator[Place]:
    seen: Counter[str] = Counter()
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    over = asyncio.Event()

    async def hold(channel: Channel) -> None:
        accepted.put_nowait(channel)
        await over.wait()

    transport: Transport = GrpcTransport() if scheme.startswith("grpc") else WebSocketTransport()
    bounds = ListenOptions(Keyring.of(TOKEN), tls=tls, report=lambda what, peer: seen.update([what]), **options)
    listener = await transport.listen(URLS[scheme], hold, bounds)
    try:
        yield Place(transport, listener.url, int(listener.url.rsplit(":", 1)[1]), seen, accepted)
    finally:
        over.set()
        await listener.close(0.5)


async def dropped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Wait until the other side has gone and return what it said."""
    said = b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = await reader.read()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.transport.abort()
    return said


async def no_handshake_is_under_way() -> None:
    async with asyncio.timeout(PATIENCE_S):
        while any(task.get_name().startswith("handshake of") for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
CLIENT_HELLO = bytes.fromhex("16030100f5010000f10303")  # the beginning of one, and then silence
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize(
    ("scheme", "secure", "said"),
    [
        ("ws", False, b""),
        ("ws", False, HEAD),
        ("wss", False, b""),
        ("wss", False, CLIENT_HELLO),
        ("wss", True, b""),
        ("wss", True, HEAD),
        ("grpc", False, b""),
        ("grpc", False, PREFACE),
        ("grpcs", False, b""),
        ("grpcs", False, CLIENT_HELLO),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_whoever_is_slow_before_a_channel_is_cut_in_every_phase(authority, scheme, secure, said) -> None:
    tls = ServerTls(*authority.issue("127.0.0.1")) if scheme.endswith("s") and scheme != "ws" else None
    # Who speaks TLS for real needs the time for it.
    async with place(scheme, tls, handshake_timeout_s=0.5 if secure else 0.1) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=careless() if secure else None)
        writer.write(said)
        await dropped(reader, writer)
        assert here.accepted.empty()
        if scheme.startswith("ws"):
            await here.heard_of("handshake_timeout")


async def test_a_connection_that_opens_no_call_is_ended() -> None:
    async with place("grpc", handshake_timeout_s=0.1) as here:
        async with grpc.aio.insecure_channel(here.url.removeprefix("grpc://")) as channel:
            idle = channel.get_state(try_to_connect=True)
            async with asyncio.timeout(PATIENCE_S):
                await channel.wait_for_state_change(idle)
                while (state := channel.get_state()) is not idle:  # again, after it was connected
                    await channel.wait_for_state_change(state)


@pytest.mark.every_loop
@pytest.mark.parametrize("secure", [False, True])
async def test_so_many_may_wait_at_the_door_and_those_inside_are_not_disturbed(authority, secure) -> None:
    tls = ServerTls(*authority.issue("127.0.0.1")) if secure else None
    async with place("wss" if secure else "ws", tls, max_unauthenticated=3, handshake_timeout_s=30.0) as here:
        trust = {"ssl": careless()} if secure else {}
        async with aiohttp.ClientSession() as session:
            inside = await session.ws_connect(here.url, headers={"Authorization": "Bearer right"}, **trust)
            channel = await here.accepted.get()
            waiting = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(3)]
            await asyncio.sleep(0)
            for _ in range(5):
                await dropped(*await asyncio.open_connection("127.0.0.1", here.port))
            assert here.seen["too_many_connections"] == 5
            await inside.send_bytes(b"hello")
            assert await channel.receive() == b"hello"
            for _, writer in waiting:
                writer.transport.abort()
            await asyncio.gather(inside.close(), channel.close())


@pytest.mark.every_loop
@pytest.mark.parametrize(
    ("said", "told"),
    [(b"GET / HTTP/1.1\r\n\r\n", {"tls_failed": 1}), (b"", {}), (CLIENT_HELLO, {})],
    ids=["no TLS", "looks whether the port is open", "hangs up half-way"],
)
async def test_a_handshake_that_fails_leaves_its_place_at_the_door_and_is_told_unless_the_peer_hung_up(
    authority, said, told
) -> None:
    tls = ServerTls(*authority.issue("127.0.0.1"))
    async with place("wss", tls, max_unauthenticated=1, handshake_timeout_s=30.0) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(said)
        writer.write_eof()
        await dropped(reader, writer)
        await no_handshake_is_under_way()
        options = DialOptions(TOKEN, tls=ClientTls(ca=authority.file), connect_timeout_s=PATIENCE_S)
        async with await here.transport.dial(here.url, options):
            assert here.seen == told


@pytest.mark.every_loop
async def test_a_handshake_under_way_does_not_outlive_its_listener(authority) -> None:
    tls = ServerTls(*authority.issue("127.0.0.1"))
    async with place("wss", tls, max_unauthenticated=1, handshake_timeout_s=300.0) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(CLIENT_HELLO)
        await dropped(*await asyncio.open_connection("127.0.0.1", here.port))
        await here.heard_of("too_many_connections")
    async with asyncio.timeout(5.0):
        await dropped(reader, writer)


async def test_grpc_bounds_all_connections_together() -> None:
    async with place("grpc", max_connections=2, max_unauthenticated=2, handshake_timeout_s=30.0) as here:
        idle = [await asyncio.open_connection("127.0.0.1", here.port) for _ in range(12)]
        dropped_ones = [asyncio.create_task(dropped(*connection)) for connection in idle]
        async with asyncio.timeout(PATIENCE_S):
            while sum(task.done() for task in dropped_ones) < 8:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for _, writer in idle:
            writer.transport.abort()
        await asyncio.gather(*dropped_ones)


async def test_a_listener_has_so_many_channels(authority) -> None:
    for scheme in ("ws", "grpc"):
        async with place(scheme, max_connections=1) as here:
            near = await here.transport.dial(here.url, DialOptions(TOKEN))
            far = await here.accepted.get()
            with pytest.raises(ConnectError):
                await here.transport.dial(here.url, DialOptions(TOKEN))
            assert here.seen == {"too_many_connections": 1}
            await asyncio.gather(near.close(), far.close())


@pytest.mark.parametrize("kind", [WebSocketTransport, GrpcTransport])
async def test_a_channel_that_has_ended_leaves_its_place_to_the_next(kind) -> None:
    async def until_it_ends(channel: Channel) -> None:
        with suppress(ChannelClosed):
            await channel.receive()

    transport = kind()
    url = f"{transport.schemes[0]}://127.0.0.1:0"
    listener = await transport.listen(url, until_it_ends, ListenOptions(max_connections=1))
    try:
        for _ in range(3):
            async with asyncio.timeout(5.0):
                while True:
                    with suppress(ConnectError):  # the last one may not have gone yet
                        async with await transport.dial(listener.url, DialOptions()):
                            break
                    await asyncio.sleep(0.01)
    finally:
        await listener.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (number, b"x" * 90) for number in range(100)),
        b"GET /" + b"x" * 9000,
        b"GET / HTTP/1.1\r\nX: " + b"x" * 9000,
    ],
    ids=["many lines", "a long path", "a long line"],
)
async def test_a_head_that_is_too_large_is_not_read_to_its_end(head) -> None:
    async with place("ws", max_header_bytes=4096) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(head)
        assert b"101" not in await dropped(reader, writer)
        await here.heard_of("header_too_large")


async def test_a_head_that_grows_in_pieces_is_not_read_to_its_end() -> None:
    async with place("ws", max_header_bytes=4096, handshake_timeout_s=300.0) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while not here.seen:
                await asyncio.sleep(0.001)  # so that it is read piece by piece
                writer.write(b"X-Piece: %s\r\n" % (b"x" * 200))
        await dropped(reader, writer)
        assert here.seen == {"header_too_large": 1}


async def test_metadata_that_is_too_large_opens_no_call() -> None:
    async with place("grpc", max_header_bytes=4096) as here:
        async with grpc.aio.insecure_channel(here.url.removeprefix("grpc://")) as channel:
            call = channel.stream_stream(METHOD)(metadata=(("authorization", "Bearer right"), ("x", "y" * 5000)))
            assert await call.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
        assert here.accepted.empty()


@pytest.mark.every_loop
async def test_a_flood_of_control_frames_ends_its_channel_alone() -> None:
    async with place("ws", control_frames_per_s=5.0) as here, aiohttp.ClientSession() as session:
        bearer = {"Authorization": "Bearer right"}
        loud, quiet = [await session.ws_connect(here.url, headers=bearer, autoping=False) for _ in range(2)]
        of_loud, of_quiet = await here.accepted.get(), await here.accepted.get()
        for _ in range(50):
            await loud.ping()
        with pytest.raises(ChannelClosed, match="too many control frames"):
            await of_loud.receive()
        assert here.seen == {"control_flood": 1}
        await quiet.send_bytes(b"hello")
        assert await of_quiet.receive() == b"hello"
        await asyncio.gather(loud.close(), quiet.close(), of_quiet.close())


@pytest.mark.every_loop
@pytest.mark.parametrize("scheme", ["ws", "grpc"])
async def test_who_sends_too_fast_is_read_more_slowly_and_loses_nothing(scheme) -> None:
    async with place(scheme, received_bytes_per_s=100_000.0) as here:
        near = await here.transport.dial(here.url, DialOptions(TOKEN))
        far = await here.accepted.get()
        async with asyncio.timeout(PATIENCE_S):
            number, late = 0, 5
            while late:
                await near.send(struct.pack("<I", number) + bytes(10_000))
                assert struct.unpack_from("<I", await far.receive()) == (number,)
                number += 1
                late -= here.seen["rate_limited"] > 0
                await asyncio.sleep(0.01)
        await asyncio.gather(near.close(), far.close())


@pytest.mark.every_loop
@pytest.mark.parametrize("scheme", ["ws", "grpc"])
async def test_who_never_reads_is_cut_and_the_others_go_on(scheme) -> None:
    async with place(scheme, stall_timeout_s=0.5, send_buffer_bytes=2**30) as here:
        near = await here.transport.dial(here.url, DialOptions(TOKEN))
        stuck = await here.accepted.get()
        other = await here.transport.dial(here.url, DialOptions(TOKEN))
        far = await here.accepted.get()
        for _ in range(64):
            stuck.send_nowait(bytes(2**18))
        with pytest.raises(ChannelClosed):
            async with asyncio.timeout(PATIENCE_S):
                await stuck.receive()
        await other.send(b"hello")
        assert await far.receive() == b"hello"
        await here.heard_of("slow_reader")
        await asyncio.gather(near.close(), other.close(), far.close())


@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**31 + 1, 2**63 - 1, 2**64 - 1], ids=hex)
async def test_a_frame_that_says_it_is_huge_is_refused_on_its_head(length) -> None:
    async with place("ws") as here, aiohttp.ClientSession() as session:
        client = await session.ws_connect(here.url, headers={"Authorization": "Bearer right"})
        channel = await here.accepted.get()
        client._writer.transport.write(struct.pack("!BBQ", 0x82, 0xFF, length) + bytes(64))
        with pytest.raises(ChannelClosed):
            async with asyncio.timeout(PATIENCE_S):
                await channel.receive()
        await client.close()


@pytest.mark.parametrize("scheme", ["ws", "grpc"])
async def test_every_refusal_says_the_same_to_the_peer_and_tells_the_learner_which(scheme) -> None:
    async with place(scheme) as here:
        for shown in ("wrong", "righ", "right ", "Right", ""):
            with pytest.raises(Exception, match="did not accept the token"):
                await here.transport.dial(here.url, DialOptions(Secret(shown + "x")))
        assert here.seen == {"bad_token": 5}
