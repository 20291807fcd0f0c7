"""Checks of `aioseed.testing.transport_kit` on who is let in: how many, over TLS, and what is told of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from aioseed.errors import AuthenticationError, CertificateError, ConnectError, ListenError
from aioseed.testing._certificate import loopback_tls
from aioseed.testing._transport_harness import MAX_MESSAGE_BYTES, TOKEN, check, ended, expect, open_pairs, refused
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.transport.client_tls import ClientTls
from aioseed.transport.keyring import Keyring
from aioseed.transport.server_tls import ServerTls
from aioseed.transport.token import Secret

_CHANNELS = 2
_DIALLERS = 32
_FREE_WITHIN_S = 2.0


@check
async def channels_are_bounded(transport: Transport, url: str) -> None:
    """No more than `max_connections` channels are open, also of those who come at once; the end of one makes room."""
    inside: set[Channel] = set()
    told: list[str] = []

    async def handler(channel: Channel) -> None:
        inside.add(channel)
        while True:
            await channel.send(await channel.receive())

    options = ListenOptions(Keyring.of(TOKEN), max_connections=_CHANNELS, report=lambda what, peer: told.append(what))
    listener = await transport.listen(url, handler, options)
    outcomes = await asyncio.gather(
        *(transport.dial(listener.url, DialOptions(TOKEN)) for _ in range(_DIALLERS)), return_exceptions=True
    )
    opened = [outcome for outcome in outcomes if isinstance(outcome, Channel)]
    try:
        expect(
            len(opened) == _CHANNELS,
            f"{_CHANNELS} channels are let in where max_connections is that, not {len(opened)}",
        )
        others = [outcome for outcome in outcomes if not isinstance(outcome, Channel)]
        expect(all(isinstance(other, ConnectError) for other in others), "one channel too many raises ConnectError")
        expect(len(inside) == _CHANNELS, "no handler runs for a channel that is one too many")
        expect(told == ["too_many_connections"] * len(others), "each is reported once, as too_many_connections")
        for channel in opened:
            await channel.send(b"inside")
            expect(await channel.receive() == b"inside", "those inside go on")
        await opened.pop().close()
        opened.append(await _when_free(transport, listener))
    finally:
        await asyncio.gather(*(channel.close() for channel in opened))
        await listener.close()


async def _when_free(transport: Transport, listener: Listener) -> Channel:
    try:
        async with asyncio.timeout(_FREE_WITHIN_S):
            while True:
                try:
                    return await transport.dial(listener.url, DialOptions(TOKEN))
                except ConnectError:
                    await asyncio.sleep(0.05)  # its listener may hear of the end later
    except TimeoutError:
        raise AssertionError("a channel that has ended makes room for another") from None


@check
async def refusals_are_reported(transport: Transport, url: str) -> None:
    """Each wrong token is reported once, as bad_token and with an address; who is let in is not reported."""
    told: list[tuple[str, str]] = []
    options = ListenOptions(Keyring.of(TOKEN), MAX_MESSAGE_BYTES, report=lambda what, peer: told.append((what, peer)))
    async with open_pairs(transport, url, options) as [(near, far, listener)]:
        for shown in (Secret("other"), None):
            await refused(transport, listener.url, DialOptions(shown), AuthenticationError)
        await near.send(b"let in")
        await far.receive()
    expect([what for what, _ in told] == ["bad_token"] * 2, f"a wrong token is reported as bad_token, once: {told}")
    expect(all(isinstance(peer, str) and peer for _, peer in told), "a report names the peer's address")


@check
async def tls_is_kept(transport: Transport, url: str) -> None:
    """At `secure_schemes`: no listening without a certificate, no channel without trust, nothing in the clear."""
    secure = sorted(transport.secure_schemes)
    if not secure:
        return
    expect(set(secure) <= set(transport.schemes), "secure_schemes are some of the schemes")
    tls = await asyncio.to_thread(loopback_tls)
    for scheme in secure:
        await _try_tls(transport, _with_scheme(url, scheme), url, tls)


async def _try_tls(transport: Transport, secure: str, plain: str, tls: ServerTls) -> None:
    fingerprint = tls.material.fingerprint
    trust = DialOptions(TOKEN, tls=ClientTls(fingerprint))

    async def handler(channel: Channel) -> None:
        await channel.send(await channel.receive())
        await ended(channel)

    try:
        careless = await transport.listen(secure, handler, ListenOptions(Keyring.of(TOKEN)))
    except ListenError as error:
        expect(error.url == secure, "ListenError names the address")
    else:
        await careless.close()
        raise AssertionError(f"listening at {secure} without a certificate raises ListenError")

    async with _listening(transport, secure, ListenOptions(Keyring.of(TOKEN), tls=tls), handler) as listener:
        async with await transport.dial(listener.url, trust) as channel:
            await channel.send(b"trusted")
            expect(await channel.receive() == b"trusted", "whoever knows the fingerprint of the certificate is let in")
        await refused(transport, listener.url, trust._replace(token=Secret("other")), AuthenticationError)
        other = ClientTls(fingerprint[::-1])
        for untrusting in (ClientTls(), other):
            await refused(transport, listener.url, DialOptions(TOKEN, tls=untrusting), CertificateError)
        if urlsplit(plain).scheme not in transport.secure_schemes:
            in_the_clear = _with_scheme(listener.url, urlsplit(plain).scheme)
            await refused(transport, in_the_clear, DialOptions(TOKEN, connect_timeout_s=2.0), ConnectError)
    if urlsplit(plain).scheme not in transport.secure_schemes:
        async with _listening(transport, plain, ListenOptions(), handler) as listener:
            address = _with_scheme(listener.url, urlsplit(secure).scheme)
            await refused(transport, address, trust._replace(connect_timeout_s=2.0), ConnectError)


@asynccontextmanager
async def _listening(
    transport: Transport, url: str, options: ListenOptions, handler: Handler
) -> AsyncIterator[Listener]:
    listener = await transport.listen(url, handler, options)
    try:
        yield listener
    finally:
        await listener.close()


def _with_scheme(url: str, scheme: str) -> str:
    return urlsplit(url)._replace(scheme=scheme).geturl()
