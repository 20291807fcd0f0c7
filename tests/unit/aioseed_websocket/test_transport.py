"""What the transport kit does not say of dialling and listening by WebSocket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from aioseed_websocket import WebSocketTransport

from aioseed.errors import ChannelClosed, ConnectError, ListenError, UsageError
from aioseed.transport import Channel, ClientTls, DialOptions, ListenOptions, Secret

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


async def ignore(channel: Channel) -> None:
    await channel.receive()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("wss://127.0.0.1:0", "no certificate"),
        ("ws://127.0.0.1", "a port"),
        ("ws://no-such-host.invalid:0", "cannot listen"),
        ("ws://192.0.2.1:0", "cannot listen"),
    ],
)
async def test_address_that_is_not_ours_is_one_sentence(url: str, words: str) -> None:
    with pytest.raises(ListenError, match=words) as caught:
        await WebSocketTransport().listen(url, ignore, ListenOptions())
    assert caught.value.url == url
    assert "\n" not in str(caught.value)


async def test_listener_on_a_name_is_dialled_by_it() -> None:
    listener = await WebSocketTransport().listen("ws://localhost:0", ignore, ListenOptions())
    assert listener.url.startswith("ws://localhost:")
    async with await WebSocketTransport().dial(listener.url, DialOptions()) as channel:
        assert channel.peer == listener.url
    await listener.close()


@pytest.mark.parametrize(
    "url",
    [
        "ws://user@127.0.0.1:1",
        "ws://127.0.0.1:1/x",
        "http://127.0.0.1:1",
        "ws://gpu-box",
        "ws://:8700",
        "ws://127.0.0.1:99999",
        "ws://[::1:1",
    ],
)
async def test_url_that_is_no_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="cannot dial"):
        await WebSocketTransport().dial(url, DialOptions())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "did not answer within 0.05 s"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"SSH-2.0-OpenSSH\r\n", "speaks no HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "no WebSocket"),
    ],
)
async def test_something_else_at_the_address_is_a_connect_error(answer: bytes, words: str) -> None:
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # on a busy machine time is over before it has asked
            await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ConnectError, match=words):
        await WebSocketTransport().dial(url, DialOptions(connect_timeout_s=0.05 if not answer else 5.0))
    await served.wait()
    server.close()
    await server.wait_closed()


def accepting(request: bytes) -> bytes:
    (key,) = re.findall(rb"(?i)sec-websocket-key: *([^\r]+)", request)
    accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID, usedforsecurity=False).digest())
    lines = (b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: upgrade")
    return b"\r\n".join((*lines, b"Sec-WebSocket-Protocol: aioseed.v1", b"Sec-WebSocket-Accept: " + accept, b"", b""))


def with_an_extension(request: bytes) -> bytes:
    return accepting(request).replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")


def elsewhere(request: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(("answer", "words"), [(with_an_extension, "opens no WebSocket"), (elsewhere, "302")])
async def test_an_answer_that_asks_for_more_is_not_followed(answer: Callable[[bytes], bytes], words: str) -> None:
    requests: list[bytes] = []
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answer(requests[-1]))
        writer.close()
        await writer.wait_closed()
        served.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectError, match=words):
            await WebSocketTransport().dial(url, DialOptions(Secret("ours")))
        await served.wait()
    assert len(requests) == 1


@asynccontextmanager
async def said_at_once(said: bytes, later: bytes = b"") -> AsyncIterator[Channel]:
    """Dial a listener whose answer to the handshake and first bytes come in one piece."""
    heard = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accepting(await reader.readuntil(b"\r\n\r\n")) + said)
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(later)
        await reader.read(1)  # of a close frame
        writer.close()
        heard.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with await WebSocketTransport().dial(url, DialOptions()) as channel:
            yield channel
        await heard.wait()


@pytest.mark.parametrize(("said", "later"), [(b"\x82\x05hello", b""), (b"\x82\x05he", b"llo"), (b"", b"\x82\x05hello")])
async def test_what_comes_right_behind_the_handshake_is_read(said: bytes, later: bytes) -> None:
    async with said_at_once(said, later) as channel:
        assert await channel.receive() == b"hello"


@pytest.mark.parametrize(
    ("said", "clean"), [(b"\x82\x85\0\0\0\0hello", False), (b"\xf2\x00", False), (b"\x88\x00", True)]
)
async def test_what_ends_a_channel_does_so_right_behind_the_handshake(said: bytes, clean: bool) -> None:
    async with said_at_once(said) as channel:
        with pytest.raises(ChannelClosed) as told:
            await channel.receive()
    assert told.value.clean is clean


@pytest.mark.parametrize("tls", [ClientTls(), ClientTls("ab" * 32)], ids=["authority", "fingerprint"])
async def test_wss_to_a_plain_listener_is_a_connect_error(tls: ClientTls) -> None:
    listener = await WebSocketTransport().listen("ws://127.0.0.1:0", ignore, ListenOptions())
    with pytest.raises(
        ConnectError, match=r"no secure connection to wss://[^ ]+: what listens there does not speak TLS$"
    ):
        await WebSocketTransport().dial(listener.url.replace("ws:", "wss:"), DialOptions(tls=tls))
    await listener.close()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_who_hangs_up_without_an_answer_may_want_tls(scheme: str) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectError, match=url) as caught:
            await WebSocketTransport().dial(url, DialOptions())
    assert ("does it want TLS (wss://127" in str(caught.value)) is (scheme == "ws")


async def test_token_that_no_header_can_carry_is_an_error_of_ours() -> None:
    listener = await WebSocketTransport().listen("ws://127.0.0.1:0", ignore, ListenOptions())
    with pytest.raises(ConnectError):
        await WebSocketTransport().dial(listener.url, DialOptions(Secret("two\r\nlines")))
    await listener.close()


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ws_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    listener = await WebSocketTransport().listen("ws://127.0.0.1:0", ignore, ListenOptions())
    async with await WebSocketTransport().dial(listener.url, DialOptions()):
        pass
    await listener.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="a socket here is of one family")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_at_all_addresses_means_those_of_both_families(host: str) -> None:
    peers: asyncio.Queue[str] = asyncio.Queue()

    async def note(channel: Channel) -> None:
        peers.put_nowait(channel.peer)

    listener = await WebSocketTransport().listen("ws://[::]:0", note, ListenOptions())
    async with await WebSocketTransport().dial(listener.url.replace("[::]", host), DialOptions()):
        assert (await peers.get()).startswith(f"{host}:")
    await listener.close()
