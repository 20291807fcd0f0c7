"""Every transport of the project passes the kit that is shipped for those of others, on each event loop; what breaks a
promise about connections does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aioseed_grpc import GrpcTransport
from aioseed_websocket import WebSocketTransport

from aioseed.errors import ChannelClosed
from aioseed.testing.transport_kit import TRANSPORT_CHECKS, Check, Make
from aioseed.transport import Channel, DialOptions, Handler, Listener, ListenOptions, MemoryTransport, Transport


def maker(transport: Callable[[], Transport], url: str) -> Make:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, str]]:
        yield transport(), url

    return make


MAKERS = {
    "memory": maker(MemoryTransport, "memory://here:0"),
    "websocket": maker(WebSocketTransport, "ws://127.0.0.1:0"),
    "grpc": maker(GrpcTransport, "grpc://127.0.0.1:0"),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
@pytest.mark.every_loop
async def test_transport_passes(check: Check, make: Make) -> None:
    await check(make)


class Wrapped(Channel):
    """Pass everything on to a channel that keeps its promises."""

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.credential = inner.credential

    @property
    def peer(self) -> str:
        return self.inner.peer

    def send_nowait(self, payload: bytes) -> None:
        self.inner.send_nowait(payload)

    async def send(self, payload: bytes) -> None:
        await self.inner.send(payload)

    async def receive(self) -> bytes:
        return await self.inner.receive()

    async def close(self, reason: str = "") -> None:
        await self.inner.close(reason)


class CallsABreakClean(Wrapped):
    async def receive(self) -> bytes:
        try:
            return await self.inner.receive()
        except ChannelClosed as closed:
            raise ChannelClosed(closed.reason, clean=True) from closed


class LetsForeignErrorsOut(Wrapped):
    async def receive(self) -> bytes:
        try:
            return await self.inner.receive()
        except ChannelClosed as closed:
            if closed.clean:
                raise
            raise ConnectionResetError("foreign") from closed


class Wrapping(WebSocketTransport):
    def __init__(self, wrap: Callable[[Channel], Channel]) -> None:
        super().__init__()
        self._wrap = wrap

    async def dial(self, url: str, options: DialOptions) -> Channel:
        return self._wrap(await super().dial(url, options))


class NeverGivesUp(WebSocketTransport):
    async def dial(self, url: str, options: DialOptions) -> Channel:
        return await super().dial(url, options._replace(connect_timeout_s=1e6))


class WaitsForTheSilent(WebSocketTransport):
    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        return await super().listen(url, handler, options._replace(handshake_timeout_s=1e6))


@pytest.mark.parametrize(
    ("name", "saboteur", "promise"),
    [
        ("dial_to_the_mute_fails", NeverGivesUp, "dial gives up after connect_timeout_s"),
        ("silence_is_cut", WaitsForTheSilent, "a connection that says nothing is cut"),
        (
            "broken_connection_is_told",
            lambda: Wrapping(CallsABreakClean),
            "a connection that broke was not closed cleanly",
        ),
        (
            "broken_connection_is_told",
            lambda: Wrapping(LetsForeignErrorsOut),
            "raises ChannelClosed, not ConnectionResetError",
        ),
    ],
)
async def test_a_broken_promise_about_connections_is_found(
    name: str, saboteur: Callable[[], Transport], promise: str
) -> None:
    with pytest.raises(AssertionError, match=promise):
        await TRANSPORT_CHECKS[name](maker(saboteur, "ws://127.0.0.1:0"))
