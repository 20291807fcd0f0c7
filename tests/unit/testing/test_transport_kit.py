"""The kit finds what is wrong with a transport: each saboteur breaks one promise of a transport that keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from types import ModuleType
from typing import ClassVar

import pytest
from aioseed_websocket import WebSocketTransport

from aioseed.errors import ChannelClosed
from aioseed.testing import _transport_doors, _transport_endings, _transport_messages
from aioseed.testing.transport_kit import TRANSPORT_CHECKS, check_transport
from aioseed.transport import (
    Channel,
    ClientTls,
    DialOptions,
    Handler,
    Listener,
    ListenOptions,
    MemoryTransport,
    Transport,
)
from aioseed.transport.keyring import Credential
from aioseed.transport.memory import MemoryChannel
from aioseed.types import Payload


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


class Doubling(Wrapped):
    async def send(self, payload: bytes) -> None:
        await self.inner.send(payload)
        if payload == b"399":
            await self.inner.send(payload)


class Wide(Wrapped):
    async def receive(self) -> bytes:
        return bytearray(await self.inner.receive())  # type: ignore[return-value]


class Forgetful(Wrapped):
    async def receive(self) -> bytes:
        payload = await self.inner.receive()
        await asyncio.sleep(0)  # a cancellation here loses the message
        return payload


class Sharing(Wrapped):
    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        self.turn = asyncio.Lock()

    async def receive(self) -> bytes:
        async with self.turn:
            return await self.inner.receive()


class Reopening(Wrapped):
    def send_nowait(self, payload: bytes) -> None:
        try:
            self.inner.send_nowait(payload)
        except ChannelClosed:
            return


class Unclean(Wrapped):
    async def receive(self) -> bytes:
        try:
            return await self.inner.receive()
        except ChannelClosed as closed:
            raise ChannelClosed(closed.reason, clean=False) from closed


class TooClean(Wrapped):
    async def receive(self) -> bytes:
        try:
            return await self.inner.receive()
        except ChannelClosed as closed:
            raise ChannelClosed(closed.reason, clean=True) from closed


class Leaking(Wrapped):
    async def close(self, reason: str = "") -> None:
        await self.inner.close(reason)
        left.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))


class Impatient(Wrapped):
    async def send(self, payload: bytes) -> None:
        self.inner.send_nowait(payload)
        await asyncio.sleep(0)


class Abrupt(Wrapped):
    async def receive_each(self, take: Callable[[Payload], bool]) -> None:
        assert isinstance(self.inner, MemoryChannel)
        await self.inner._inbox.take_each(take)  # from within the partner's send_nowait


class Mistaken(Wrapped):
    first: ClassVar[Credential | None] = None

    def __init__(self, inner: Channel) -> None:
        super().__init__(inner)
        Mistaken.first = Mistaken.first or inner.credential
        self.credential = Mistaken.first


class Nameless(Wrapped):
    @property
    def peer(self) -> str:
        return ""


class ForgetsItsPeer(Wrapped):
    over = False

    @property
    def peer(self) -> str:
        return "nobody" if self.over else self.inner.peer

    async def close(self, reason: str = "") -> None:
        self.over = True
        await self.inner.close(reason)


class NeverCloses(Wrapped):
    async def close(self, reason: str = "") -> None:
        await asyncio.Event().wait()


class LetsForeignErrorsOut(Wrapped):
    async def receive(self) -> bytes:
        try:
            return await self.inner.receive()
        except ChannelClosed as closed:
            if closed.clean:
                raise
            raise ConnectionResetError("foreign") from closed


left: list[asyncio.Task[bool]] = []


class Saboteur(Transport):
    """The memory transport with another channel on both ends, or another way in."""

    schemes = ("memory",)

    def __init__(
        self, wrap: Callable[[Channel], Channel] = Wrapped, *, open_house: bool = False, greedy: bool = False
    ) -> None:
        self._inner = MemoryTransport()
        self._wrap = wrap
        self._open_house = open_house
        self._greedy = greedy

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        async def wrapped(channel: Channel) -> None:
            await handler(self._wrap(channel))

        return await self._inner.listen(url, wrapped, options._replace(keys=None) if self._open_house else options)

    async def dial(self, url: str, options: DialOptions) -> Channel:
        taken = options._replace(max_message_bytes=2**30) if self._greedy else options
        return self._wrap(await self._inner.dial(url, taken))


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


class Overfull(WebSocketTransport):
    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        return await super().listen(url, handler, options._replace(max_connections=8192))


class Tells(WebSocketTransport):
    """Tell something else than what is refused."""

    def __init__(self, *told: tuple[str, str]) -> None:
        super().__init__()
        self._told = told

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        def report(what: str, peer: str) -> None:
            for words in self._told:
                options.report(*words)

        return await super().listen(url, handler, options._replace(report=report))


class TrustsAnybody(WebSocketTransport):
    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        if options.tls is not None:
            self._trust = ClientTls(options.tls.material.fingerprint)
        return await super().listen(url, handler, options)

    async def dial(self, url: str, options: DialOptions) -> Channel:
        return await super().dial(url, options._replace(tls=self._trust))


class InTheClear(Saboteur):
    """Be secure by name alone."""

    schemes = ("memory", "memorys")
    secure_schemes = frozenset({"memorys"})

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        return await super().listen(url.replace("memorys:", "memory:"), handler, options)


async def run(name: str, transport: Transport, url: str = "memory://here:0") -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, str]]:
        yield transport, url

    await TRANSPORT_CHECKS[name](make)


@pytest.mark.parametrize(
    ("name", "saboteur"),
    [
        ("keeps_order_and_delivers_once", Saboteur(Doubling)),
        ("carries_every_legal_size", Saboteur(Wide)),
        ("cancelled_receive_loses_nothing", Saboteur(Forgetful)),
        ("refuses_a_second_receiver", Saboteur(Sharing)),
        ("close_is_final_and_idempotent", Saboteur(Reopening)),
        ("close_delivers_what_was_sent", Saboteur(Unclean)),
        ("listener_close_ends_channels", Saboteur(Unclean)),
        ("refuses_larger_messages", Saboteur(TooClean)),
        ("keeps_order_and_delivers_once", Saboteur(Leaking)),
        ("send_waits_for_a_slow_reader", Saboteur(Impatient)),
        ("hands_every_message_over", Saboteur(Abrupt)),
        ("token_is_required", Saboteur(open_house=True)),
        ("credential_is_that_of_the_token", Saboteur(Mistaken)),
        ("refuses_larger_messages", Saboteur(greedy=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else value._wrap.__name__,
)
@pytest.mark.virtual_time
async def test_broken_promise_is_found(name: str, saboteur: Saboteur) -> None:
    try:
        with pytest.raises((AssertionError, ChannelClosed, TimeoutError)):
            await run(name, saboteur)
    finally:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        left.clear()


@pytest.mark.parametrize(
    ("name", "saboteur", "promise"),
    [
        ("dial_to_the_mute_fails", NeverGivesUp, "dial gives up after connect_timeout_s"),
        ("silence_is_cut", WaitsForTheSilent, "a connection that says nothing is cut"),
        ("channels_are_bounded", Overfull, "2 channels are let in where max_connections is that, not 32"),
        ("channels_are_bounded", Tells, "each is reported once, as too_many_connections"),
        ("slow_reader_is_cut", Tells, "a channel that is cut is reported once, as slow_reader"),
        ("refusals_are_reported", Tells, "a wrong token is reported as bad_token, once"),
        ("refusals_are_reported", lambda: Tells(*[("bad_token", "::1")] * 2), "a wrong token is reported as bad_token"),
        ("refusals_are_reported", lambda: Tells(("bad_token", "")), "a report names the peer's address"),
        ("tls_is_kept", TrustsAnybody, "raises CertificateError"),
        (
            "broken_connection_is_told",
            lambda: Wrapping(TooClean),
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
        await run(name, saboteur(), "ws://127.0.0.1:0")


@pytest.mark.parametrize(
    ("wrap", "promise"),
    [(Nameless, "peer is the address of the other side"), (ForgetsItsPeer, "peer is the same after the end")],
)
async def test_a_peer_without_a_name_is_found(wrap: Callable[[Channel], Channel], promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        await run("peers_have_addresses", Saboteur(wrap))


@pytest.mark.virtual_time
async def test_a_check_that_does_not_end_says_which_promise_is_broken() -> None:
    said = (
        r"not over after 15 s, where it waits in close_is_final_and_idempotent \(.*\)\. "
        "close_is_final_and_idempotent: Closing twice, together and later, is one close"
    )
    with pytest.raises(AssertionError, match=said):
        await run("close_is_final_and_idempotent", Saboteur(NeverCloses))


async def test_a_scheme_that_is_secure_by_name_alone_is_found() -> None:
    with pytest.raises(AssertionError, match="listening at memorys://here:0 without a certificate raises ListenError"):
        await run("tls_is_kept", InTheClear())


@pytest.mark.virtual_time
async def test_one_call_runs_every_check() -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, str]]:
        yield MemoryTransport(), "memory://here:0"

    await check_transport(make)


def test_every_check_says_what_it_holds_a_transport_to() -> None:
    assert len(TRANSPORT_CHECKS) >= 16
    for name, check in TRANSPORT_CHECKS.items():
        assert check.__name__ == name  # type: ignore[attr-defined]
        assert check.__doc__


@pytest.mark.parametrize("part", [_transport_doors, _transport_messages, _transport_endings])
def test_no_check_is_left_out(part: ModuleType) -> None:
    written = {
        name
        for name, value in vars(part).items()
        if iscoroutinefunction(value) and value.__module__ == part.__name__ and not name.startswith("_")
    }
    assert written and written <= set(TRANSPORT_CHECKS)
