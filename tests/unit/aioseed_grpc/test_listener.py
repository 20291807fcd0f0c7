"""What the transport kit does not say of a gRPC listener."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from aioseed_grpc import GrpcTransport
from aioseed_grpc.listener import GrpcListener, check_free, server_options
from aioseed_grpc.stream import ACCEPTED_KEY, METHOD

from aioseed.errors import ConnectError, ListenError
from aioseed.transport import Channel, DialOptions, Keyring, ListenOptions
from aioseed.transport.address import Address

from .conftest import Accept, plain_channel


async def ignore(channel: Channel) -> None:
    await channel.receive()


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "right"),)])
async def test_call_without_the_token_is_unauthenticated(accept: Accept, metadata: tuple[tuple[str, str], ...]) -> None:
    async with (
        accept(ListenOptions(Keyring.of("right"))) as (listener, accepted),
        plain_channel(listener.url) as channel,
    ):
        call = channel.stream_stream(METHOD)(metadata=metadata)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert ACCEPTED_KEY not in await call.initial_metadata()
        assert await call.details() == "refused"
        assert accepted.empty()


@pytest.mark.parametrize("origin", ["https://evil.example", "https://here.example"])
async def test_what_looks_like_a_foreign_page_is_refused(accept: Accept, origin: str) -> None:
    refused: list[str] = []
    options = ListenOptions(
        allowed_origins=frozenset({"https://here.example"}), report=lambda what, peer: refused.append(what)
    )
    async with (
        accept(options) as (listener, accepted),
        plain_channel(listener.url) as channel,
        asyncio.timeout(5.0),
    ):
        call = channel.stream_stream(METHOD)(metadata=(("origin", origin),))
        if origin in options.allowed_origins:
            assert ACCEPTED_KEY in await call.initial_metadata()
            call.cancel()
        else:
            assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
            assert refused == ["foreign_origin"] and accepted.empty()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _head(**fields: bytes) -> bytes:
    """Return a header block (RFC 7541, section 6.2.2) of a call; gRPC's own clients refuse what is no text."""
    usual = {":method": b"POST", ":scheme": b"http", ":path": METHOD.encode(), ":authority": b"x", "te": b"trailers"}
    every = usual | {"content-type": b"application/grpc"} | fields
    return b"".join(b"\0%c%b%c%b" % (len(name), name.encode(), len(value), value) for name, value in every.items())


@pytest.mark.parametrize("bearer", ["wrong", "right"])
async def test_metadata_that_is_no_text_is_judged_like_any_other_and_fills_no_log(
    accept: Accept, caplog: pytest.LogCaptureFixture, bearer: str
) -> None:
    refused: list[str] = []
    options = ListenOptions(Keyring.of("right"), report=lambda what, peer: refused.append(what))
    async with accept(options) as (listener, accepted), asyncio.timeout(5.0):
        _, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rsplit(":", 1)[1]))
        call = _frame(1, 4, 1, _head(authorization=f"Bearer {bearer}".encode(), other=b"\xff\xfe"))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + call)
        while not refused and accepted.empty():  # noqa: ASYNC110
            await asyncio.sleep(0)
        writer.transport.abort()
    assert refused == ([] if bearer == "right" else ["bad_token"])
    assert not [record for record in caplog.records if record.name.startswith("grpc")]


async def test_there_is_one_method(accept: Accept) -> None:
    async with accept() as (listener, _), plain_channel(listener.url) as channel:
        call = channel.stream_stream("/aioseed.v1.Aioseed/Other")()
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_too_large_a_message_is_not_even_read(accept: Accept) -> None:
    async with accept(ListenOptions(max_message_bytes=1000)) as (listener, _), plain_channel(listener.url) as channel:
        call = channel.stream_stream(METHOD)()
        await call.write(bytes(2000))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_nobody_takes_the_last_descriptors(accept: Accept, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    options = ListenOptions(report=lambda what, peer: refused.append(what))
    monkeypatch.setattr("aioseed_grpc.listener.few_left", lambda: True)
    async with accept(options) as (listener, _):
        with pytest.raises(ConnectError, match="RESOURCE_EXHAUSTED"):
            await GrpcTransport().dial(listener.url, DialOptions())
    assert refused == ["no_descriptors"]


class Refused(Exception):
    """Stand for the end that gRPC makes of a call that is aborted."""


class Hesitating:
    """Be a call whose client does not take its initial metadata."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1"

    async def send_initial_metadata(self, metadata: object) -> None:
        await asyncio.Event().wait()

    async def abort(self, code: grpc.StatusCode, words: str) -> None:
        raise Refused(code)


async def test_calls_that_come_at_once_are_counted_before_they_are_channels(accept: Accept) -> None:
    async with accept(ListenOptions(max_connections=1)) as (listener, _):
        assert isinstance(listener, GrpcListener)
        first, second = (asyncio.create_task(listener._session(None, Hesitating())) for _ in range(2))  # type: ignore[arg-type]
        with pytest.raises(Refused, match="RESOURCE_EXHAUSTED"):
            async with asyncio.timeout(5.0):
                await second
        first.cancel()
        await asyncio.wait({first})
        async with await GrpcTransport().dial(listener.url, DialOptions()):
            pass


def test_ports_are_not_shared() -> None:
    assert dict(server_options(ListenOptions()))["grpc.so_reuseport"] == 0


async def test_port_in_use_is_an_error_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        url = f"grpc://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ListenError) as caught:
            await GrpcTransport().listen(url, ignore, ListenOptions())
    assert caught.value.url == url
    assert capfd.readouterr() == ("", "")


async def test_port_that_is_taken_after_the_look_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioseed_grpc.listener.check_free", lambda address: None)
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(ListenError, match="cannot listen at"):
            await GrpcTransport().listen(f"grpc://127.0.0.1:{other.getsockname()[1]}", ignore, ListenOptions())


async def test_a_listener_that_is_closed_leaves_no_task(accept: Accept) -> None:
    async with accept() as (listener, _):
        assert any("guard" in task.get_name() for task in asyncio.all_tasks())
        await listener.close()
        await asyncio.sleep(0)
        assert not any("guard" in task.get_name() for task in asyncio.all_tasks())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_free_port_is_free_after_the_look(host: str) -> None:
    check_free(Address("grpc", host, 0))
