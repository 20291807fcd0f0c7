"""What the transport kit does not say of a WebSocket listener: HTTP before the handshake."""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
import socket

import aiohttp
import pytest
from aioseed_websocket.gate import NO_DESCRIPTORS_S, Gate
from aioseed_websocket.listener import WebSocketListener

from aioseed.transport import Keyring, ListenOptions

from .conftest import Accept

pytestmark = pytest.mark.every_loop

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
}


async def dropped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait until the other side is gone; a reset says so as well as an end."""
    try:
        assert await reader.read() == b""
    except ConnectionError:
        pass
    finally:
        writer.close()


AS_IN_A_PAGE = "aioseed.v1, aioseed.token." + base64.urlsafe_b64encode(b"right").decode().rstrip("=")


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what was logged, but for what asyncio says in its debug mode of a slow machine."""
    return [record for record in caplog.records if record.name != "asyncio" or record.levelno > logging.WARNING]


async def get(url: str, headers: dict[str, str], path: str = "/") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session:
        async with session.get(url.replace("ws:", "http:") + path, headers=headers) as answer:
            assert answer.headers.get("Connection") == "close"
            assert "Server" not in answer.headers
            return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("headers", "path", "status", "reason"),
    [
        (UPGRADE, "/", 401, "bad_token"),
        (UPGRADE | {"Authorization": "Bearer wrong"}, "/", 401, "bad_token"),
        (UPGRADE | {"Authorization": "Bearer right", "Origin": "http://localhost"}, "/", 403, "foreign_origin"),
        (UPGRADE | {"Sec-WebSocket-Protocol": AS_IN_A_PAGE, "Host": "evil.example"}, "/", 403, "foreign_host"),
        (UPGRADE | {"Authorization": "Bearer wrong", "Host": "learner.example"}, "/", 401, "bad_token"),
        (UPGRADE | {"Authorization": "Bearer right"}, "/metrics", 404, "bad_request"),
        ({"Authorization": "Bearer right"}, "/", 400, "no_upgrade"),
        (UPGRADE | {"Authorization": "Bearer right", "Sec-WebSocket-Key": "\u00e9" * 16}, "/", 400, "no_upgrade"),
    ],
)
async def test_refusal_says_nothing_but_its_status(
    accept: Accept,
    caplog: pytest.LogCaptureFixture,
    headers: dict[str, str],
    path: str,
    status: int,
    reason: str,
) -> None:
    seen: list[str] = []
    options = ListenOptions(Keyring.of("right"), report=lambda what, peer: seen.append(f"{what} {peer}"))
    async with accept(options) as (listener, accepted):
        assert await get(listener.url, headers, path) == (status, "refused\n")
        assert accepted.empty()
    assert [said.rpartition(":")[0] for said in seen] == [f"{reason} 127.0.0.1"] and not logged(caplog)


@pytest.mark.parametrize("host", ["learner.example", "10.0.0.1:8700"])
async def test_an_actor_behind_a_proxy_that_keeps_its_host_is_let_in(accept: Accept, host: str) -> None:
    async with accept(ListenOptions(Keyring.of("right"))) as (listener, accepted), aiohttp.ClientSession() as session:
        shown = {"Authorization": "Bearer right", "Host": host}
        async with session.ws_connect(listener.url, headers=shown, protocols=("aioseed.v1",)) as client:
            channel = await accepted.get()
            await asyncio.gather(client.close(), channel.close())


async def test_browser_style_token_is_taken_and_never_echoed(accept: Accept) -> None:
    token = AS_IN_A_PAGE.split(", ")[1]
    async with accept(ListenOptions(Keyring.of("right"))) as (listener, accepted), aiohttp.ClientSession() as session:
        async with session.ws_connect(listener.url, protocols=("aioseed.v1", token)) as client:
            assert client.protocol == "aioseed.v1"
            assert client._response.headers["Sec-WebSocket-Protocol"] == "aioseed.v1"
            channel = await accepted.get()
            await asyncio.gather(client.close(), channel.close())


async def test_compression_is_never_agreed_on(accept: Accept) -> None:
    async with accept() as (listener, accepted), aiohttp.ClientSession() as session:
        async with session.ws_connect(listener.url, compress=15) as client:
            assert not client.compress
            await asyncio.gather(client.close(), (await accepted.get()).close())


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_connection_that_opens_no_channel_is_cut_after_the_handshake_timeout(accept: Accept, said: bytes) -> None:
    async with accept(ListenOptions(handshake_timeout_s=0.05)) as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        writer.write(said)
        await dropped(reader, writer)


async def test_open_channel_has_no_timer_that_could_cut_it(accept: Accept, monkeypatch: pytest.MonkeyPatch) -> None:
    gates: list[Gate] = []

    class Seen(Gate):
        def open(self) -> bool:
            gates.append(self)
            return super().open()

    monkeypatch.setattr("aioseed_websocket.gate.Gate", Seen)
    async with accept() as (listener, accepted), aiohttp.ClientSession() as session:
        async with session.ws_connect(listener.url) as client:
            channel = await accepted.get()
            assert isinstance(listener, WebSocketListener)
            assert not len(listener._doorway)
            assert [gate._timer.cancelled() for gate in gates] == [True]
            await asyncio.gather(client.close(), channel.close())


async def test_who_hangs_up_leaves_its_place_at_the_door_and_nothing_else(accept: Accept) -> None:
    async with accept(ListenOptions(max_unauthenticated=1, handshake_timeout_s=300.0)) as (listener, _):
        assert isinstance(listener, WebSocketListener)
        _, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        async with asyncio.timeout(5.0):
            while not listener._http.connections:  # noqa: ASYNC110
                await asyncio.sleep(0)
            writer.transport.abort()
            while listener._http.connections or len(listener._doorway):  # noqa: ASYNC110
                await asyncio.sleep(0)


REQUEST = "".join(f"{name}: {value}\r\n" for name, value in UPGRADE.items())
HEAD = f"GET / HTTP/1.1\r\nHost: localhost\r\n{REQUEST}\r\n".encode()
MESSAGE = b"\x82\x85\0\0\0\0hello"


@pytest.mark.parametrize("behind", [MESSAGE, MESSAGE[:3], b"\r\n"], ids=["a message", "half a head", "no frame"])
async def test_a_peer_that_does_not_wait_for_its_answer_is_told_so(accept: Accept, behind: bytes) -> None:
    seen: list[str] = []
    options = ListenOptions(report=lambda what, peer: seen.append(what))
    async with accept(options) as (listener, accepted), asyncio.timeout(5.0):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        writer.write(HEAD + behind)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101") and b"Server" not in answer
        said = await reader.readexactly(2 + 2 + 36)
        assert said == b"\x88\x26\x03\xeathe peer sent before it was answered"
        writer.write(MESSAGE)
        writer.write_eof()
        await dropped(reader, writer)
        assert seen == ["bad_request"] and accepted.empty()


@pytest.mark.parametrize(
    "said",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x24\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n:\r\n\r\n",
    ],
    ids=["gRPC", "TLS", "no header"],
)
async def test_a_peer_that_talks_no_http_is_reported_and_no_traceback(
    accept: Accept, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    options = ListenOptions(report=lambda what, peer: seen.append(what))
    async with accept(options) as (listener, _), asyncio.timeout(5.0):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        writer.write(said)
        writer.write_eof()
        try:  # from Python 3.12 on aiohttp answers before it hears of the end
            answer = await reader.read()
            assert answer[:13] in (b"", b"HTTP/1.0 400 ") and b"Server" not in answer
        except ConnectionError:
            pass
        finally:
            writer.close()
    assert seen == ["bad_request"] and not logged(caplog)


async def test_a_request_may_come_in_pieces(accept: Accept) -> None:
    async with accept() as (listener, accepted), asyncio.timeout(5.0):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        for piece in (HEAD[:20], HEAD[20:-3], HEAD[-3:]):
            writer.write(piece)
            await asyncio.sleep(0.01)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(MESSAGE)
        assert await (await accepted.get()).receive() == b"hello"
        writer.transport.abort()


async def test_a_door_that_gets_no_descriptor_pauses_and_goes_on(
    accept: Accept, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    asked_at_s: list[float] = []
    watched: list[bool] = []
    gone = [BlockingIOError(errno.EAGAIN, "gone meanwhile"), ConnectionAbortedError(errno.ECONNABORTED, "reset")]
    failures = [*gone, OSError(errno.EMFILE, "too many open files")]
    real = socket.socket.accept

    def refusing(self: socket.socket) -> tuple[socket.socket, object]:
        asked_at_s.append(asyncio.get_running_loop().time())
        watched.append(asyncio.get_running_loop().remove_reader(self))
        if failures:
            raise failures.pop()
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", refusing)
    options = ListenOptions(report=lambda what, peer: seen.append((what, peer)))
    async with accept(options) as (listener, accepted), asyncio.timeout(5.0), aiohttp.ClientSession() as session:
        async with session.ws_connect(listener.url) as client:
            await asyncio.gather(client.close(), (await accepted.get()).close())
    assert seen == [("no_descriptors", "the door")]
    assert not any(watched), "the loop would spin"
    assert len(asked_at_s) == 4 and asked_at_s[1] - asked_at_s[0] > 0.9 * NO_DESCRIPTORS_S


async def test_nobody_takes_the_last_descriptors(accept: Accept, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr("aioseed_websocket.gate.few_left", lambda: True)
    async with accept(ListenOptions(report=lambda what, peer: seen.append((what, peer)))) as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        peer = "{}:{}".format(*writer.get_extra_info("sockname"))
        await dropped(reader, writer)
    assert seen == [("no_descriptors", peer)]


async def test_close_drops_connections_that_are_no_channels(accept: Accept) -> None:
    async with accept() as (listener, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        writer.write(b"GET")
        assert isinstance(listener, WebSocketListener)
        while not len(listener._doorway):  # noqa: ASYNC110
            await asyncio.sleep(0)
        await listener.close()
        await dropped(reader, writer)


async def test_a_peer_that_goes_during_the_handshake_is_no_error(
    accept: Accept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare = aiohttp.web.WebSocketResponse.prepare

    async def gone(self: aiohttp.web.WebSocketResponse, request: aiohttp.web.BaseRequest) -> object:
        assert request.transport is not None
        request.transport.abort()
        return await prepare(self, request)

    monkeypatch.setattr(aiohttp.web.WebSocketResponse, "prepare", gone)
    async with accept(ListenOptions(Keyring.of("right"))) as (listener, accepted):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(listener.url, UPGRADE | {"Authorization": "Bearer right"})
        assert accepted.empty()
    assert not logged(caplog)
