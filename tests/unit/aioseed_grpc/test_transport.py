"""What the transport kit does not say of dialling and listening by gRPC, and of the package."""

from __future__ import annotations

import asyncio
import importlib
import importlib.resources
import socket
import sys

import pytest
from aioseed_grpc import GrpcTransport
from aioseed_grpc.stream import ACCEPTED_KEY, CLOSE_REASON_KEY, METHOD

from aioseed.errors import AuthenticationError, ConnectError, ListenError, PluginError, UsageError
from aioseed.transport import Channel, DialOptions, ListenOptions, Secret


async def ignore(channel: Channel) -> None:
    await channel.receive()


@pytest.mark.parametrize(
    "url", ["grpc://127.0.0.1", "grpcs://127.0.0.1:0", "grpc://192.0.2.1:0", "grpc://no.invalid:0"]
)
async def test_address_that_is_not_ours_is_one_sentence(url: str) -> None:
    with pytest.raises(ListenError, match="cannot listen at") as caught:
        await GrpcTransport().listen(url, ignore, ListenOptions())
    assert caught.value.url == url
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["grpc://gpu-box", "grpc://:8701", "grpc://127.0.0.1:99999", "ws://127.0.0.1:1"])
async def test_url_that_is_no_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="cannot dial"):
        await GrpcTransport().dial(url, DialOptions())


async def test_token_that_metadata_cannot_carry_is_refused_before_dialling() -> None:
    for token in ("schlüssel", "two\nlines"):
        with pytest.raises(AuthenticationError):
            await GrpcTransport().dial("grpc://127.0.0.1:1", DialOptions(Secret(token)))


async def test_peer_that_never_answers_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.setblocking(False)
        url = f"grpc://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConnectError, match=r"did not answer within 0\.1 s"):
            await GrpcTransport().dial(url, DialOptions(connect_timeout_s=0.1))
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(mute)
        with connection:
            connection.setblocking(False)
            while await loop.sock_recv(connection, 1000):  # ends once the dialler has hung up
                pass


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="a socket here is of one family")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_a_peer_is_named_as_urls_name_it(host: str) -> None:
    peers: asyncio.Queue[str] = asyncio.Queue()

    async def note(channel: Channel) -> None:
        peers.put_nowait(channel.peer)

    listener = await GrpcTransport().listen("grpc://[::]:0", note, ListenOptions())
    async with await GrpcTransport().dial(listener.url.replace("[::]", host), DialOptions()):
        assert (await peers.get()).startswith(f"{host}:")
    await listener.close()


async def test_listener_that_is_back_is_reached_after_a_moment() -> None:
    transport = GrpcTransport()
    listener = await transport.listen("grpc://127.0.0.1:0", ignore, ListenOptions())
    channel = await transport.dial(listener.url, DialOptions())
    await asyncio.gather(listener.close(), channel.close())
    with pytest.raises(ConnectError):
        await transport.dial(listener.url, DialOptions())
    again = await transport.listen(listener.url, ignore, ListenOptions())
    for _ in range(10):
        try:
            channel = await transport.dial(again.url, DialOptions())
        except ConnectError:
            await asyncio.sleep(0.05)
        else:
            break
    await channel.close()
    await again.close()


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    listener = await GrpcTransport().listen("grpc://127.0.0.1:0", ignore, ListenOptions())
    async with await GrpcTransport().dial(listener.url, DialOptions()):
        pass
    await listener.close()


def test_published_proto_is_in_the_package_and_names_what_is_used() -> None:
    text = importlib.resources.files("aioseed_grpc").joinpath("aioseed.proto").read_text()
    package, service, method = "aioseed.v1", "Aioseed", "Session"
    assert f"/{package}.{service}/{method}" == METHOD
    for part in (f"package {package};", f"service {service} {{", f"rpc {method}(stream Frame) returns (stream Frame);"):
        assert part in text
    assert "bytes payload = 1;" in text
    assert ACCEPTED_KEY in text
    assert CLOSE_REASON_KEY in text


def test_without_grpcio_the_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "aioseed_grpc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(PluginError, match=r"aioseed\[grpc\]") as caught:
        importlib.import_module("aioseed_grpc")
    assert caught.value.extra == "grpc"
