"""Checks of `aioseed.testing.transport_kit` on beginnings and ends: dialling, tokens, closing, failures."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from aioseed.errors import AuthenticationError, ChannelClosed, ConnectError, ListenError, UsageError
from aioseed.testing._transport_harness import (
    MAX_MESSAGE_BYTES,
    TOKEN,
    check,
    ended,
    ends_of_a_cut_channel,
    expect,
    loopback_of,
    open_pairs,
    refused,
    refuses_to_send,
)
from aioseed.transport.channel import Channel, DialOptions, ListenOptions, Transport
from aioseed.transport.keyring import Keyring
from aioseed.transport.token import Secret


@check
async def close_delivers_what_was_sent(transport: Transport, url: str) -> None:
    """Everything before the close arrives, also when the closing side has unread messages and a waiting receiver."""
    # More than the networks below hold, so that a side which stops reading too early makes the kernel reset them.
    messages = [bytes([number]) * 2**16 for number in range(64)]
    async with open_pairs(transport, url, channels=2) as pairs:
        for (near, far, _), dialler_closes in zip(pairs, (True, False), strict=True):
            closer, other = (near, far) if dialler_closes else (far, near)
            waiting = asyncio.create_task(ended(closer))
            await asyncio.sleep(0)
            for message in messages:
                other.send_nowait(message)
                closer.send_nowait(message)
            closing = asyncio.create_task(closer.close("done"))
            received = [await other.receive() for _ in messages]
            closed = await ended(other)
            await closing
            expect(received == messages, "what was sent before the close arrives")
            expect(closed.clean, "the peer sees a clean close")
            expect(closed.reason in ("done", ""), "the reason of the close travels or is left out")
            expect((await waiting).clean, "the closing side's own receiver wakes with ChannelClosed")


@check
async def close_is_final_and_idempotent(transport: Transport, url: str) -> None:
    """Closing twice, together and later, is one close; afterwards sending and receiving raise."""
    async with open_pairs(transport, url) as [(near, far, _)]:
        _, closed = await asyncio.gather(asyncio.gather(near.close("once"), near.close("twice")), ended(far))
        await near.close()
        expect(closed.clean, "the peer sees a clean close")
        for channel in (near, far):
            expect(await refuses_to_send(channel), "send on an ended channel raises ChannelClosed")
            expect(await ended(channel) is not None, "receive on an ended channel raises ChannelClosed")
        await far.close()


@check
async def peers_have_addresses(transport: Transport, url: str) -> None:
    """Both ends name their peer, for logs, and go on to do so once the channel has ended."""
    async with open_pairs(transport, url) as [(near, far, _)]:
        named = [(channel, channel.peer) for channel in (near, far)]
        expect(all(isinstance(peer, str) and peer for _, peer in named), "peer is the address of the other side, a str")
        await asyncio.gather(near.close(), ended(far))
        await far.close()
        expect(all(channel.peer == peer for channel, peer in named), "peer is the same after the end")


@check
async def cancelled_close_still_ends(transport: Transport, url: str) -> None:
    """A close that is cancelled at any point cuts the channel: no side waits for ever."""
    async with open_pairs(transport, url, channels=4) as pairs:
        for steps, (near, far, _) in enumerate(pairs):
            near.send_nowait(b"last words")
            closing = asyncio.create_task(near.close())
            for _ in range(steps):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait({closing})
            # A task that is cancelled before its first step never called close: then this does.
            await asyncio.gather(near.close(), ended(far))
            expect(await refuses_to_send(near), "a cancelled close ends the channel")


@check
async def listener_close_ends_channels(transport: Transport, url: str) -> None:
    """Channels of a listener that closes end cleanly on both sides, and nobody is let in any more."""
    async with open_pairs(transport, url, channels=3) as pairs:
        receivers = [asyncio.create_task(ended(end)) for pair in pairs for end in pair[:2]]
        await asyncio.sleep(0)
        listener = pairs[0].listener
        await asyncio.gather(listener.close(1.0), listener.close(1.0))
        for closed in await asyncio.gather(*receivers):
            expect(closed.clean, "a closing listener closes its channels cleanly")
        await listener.close()
        await refused(transport, listener.url, DialOptions(TOKEN, connect_timeout_s=2.0), ConnectError)


@check
async def dial_to_nobody_fails(transport: Transport, url: str) -> None:
    """An address at which nobody listens (any more) raises ConnectError in time, what is no address UsageError."""

    async def handler(channel: Channel) -> None:
        await channel.receive()

    listener = await transport.listen(url, handler, ListenOptions())
    await listener.close()
    async with asyncio.timeout(3.0):
        await refused(transport, listener.url, DialOptions(connect_timeout_s=2.0), ConnectError)
    await refused(transport, "nonsense", DialOptions(), UsageError)


@check
async def dial_to_the_mute_fails(transport: Transport, url: str) -> None:
    """A socket that accepts and says nothing raises ConnectError after `connect_timeout_s`; tried on loopback URLs."""
    if loopback_of(url) is None:
        return
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"{urlsplit(url).scheme}://127.0.0.1:{mute.getsockname()[1]}"
        try:
            async with asyncio.timeout(2.0):
                await refused(transport, address, DialOptions(TOKEN, connect_timeout_s=0.2), ConnectError)
        except TimeoutError:
            raise AssertionError("dial gives up after connect_timeout_s") from None


@check
async def address_in_use_is_refused(transport: Transport, url: str) -> None:
    """Two listeners cannot share an address, neither loudly nor silently."""
    async with open_pairs(transport, url) as [(_, _, listener)]:

        async def handler(channel: Channel) -> None:
            await channel.receive()

        for address in (listener.url, "nonsense"):
            try:
                await transport.listen(address, handler, ListenOptions())
            except ListenError as error:
                expect(error.url == address, "ListenError names the address")
            else:
                raise AssertionError(f"listening at {address} raises ListenError")


@check
async def token_is_required(transport: Transport, url: str) -> None:
    """Without the token, or with another, nobody gets in and no handler runs."""
    async with open_pairs(transport, url) as [(near, far, listener)]:
        for token in (None, "", "kit2", "ki", "kít"):
            shown = None if token is None else Secret(token)
            await refused(transport, listener.url, DialOptions(shown), AuthenticationError)
        expect(far.credential is not None, "a channel knows whose token opened it")
        await near.send(b"right token")
        expect(await far.receive() == b"right token", "others are not disturbed")


@check
async def credential_is_that_of_the_token(transport: Transport, url: str) -> None:
    """Of two tokens, each channel has the credential of the one that opened it."""
    tokens = (Secret("kit-one"), Secret("kit-two"))
    async with open_pairs(transport, url, channels=4, tokens=tokens) as pairs:
        for number, pair in enumerate(pairs):
            credential = pair.far.credential
            right = credential is not None and credential.digest == tokens[number % 2].digest()
            expect(right, "a channel has the credential of the token that opened it, also where others have another")


@check
async def silence_is_cut(transport: Transport, url: str) -> None:
    """Who connects and says nothing is cut after `handshake_timeout_s`, and nobody else; tried on TCP of loopback."""
    options = ListenOptions(Keyring.of(TOKEN), MAX_MESSAGE_BYTES, handshake_timeout_s=0.3)
    async with open_pairs(transport, url, options) as [(near, far, listener)]:
        address = loopback_of(listener.url)
        if address is None:
            return
        try:
            reader, writer = await asyncio.open_connection(*address)
        except OSError:
            return  # its ports are not those of TCP
        try:
            async with asyncio.timeout(2.0):
                with suppress(OSError):
                    await reader.read()
        except TimeoutError:
            raise AssertionError("a connection that says nothing is cut after handshake_timeout_s") from None
        finally:
            writer.transport.abort()
        await near.send(b"said enough")
        expect(await far.receive() == b"said enough", "an open channel may be silent for longer")


@check
async def broken_connection_is_told(transport: Transport, url: str) -> None:
    """A connection that ends or is reset in the middle is ChannelClosed and unclean; tried on TCP of loopback."""
    for resets in (False, True):
        for told in await ends_of_a_cut_channel(transport, url, resets=resets):
            expect(
                isinstance(told, ChannelClosed), f"a broken connection raises ChannelClosed, not {type(told).__name__}"
            )
            expect(isinstance(told, ChannelClosed) and not told.clean, "a connection that broke was not closed cleanly")


@check
async def handler_failure_stays_alone(transport: Transport, url: str) -> None:
    """An exception in a handler closes its channel, is reported, and hurts nobody else."""
    reported: list[object] = []

    async def handler(channel: Channel) -> None:
        if await channel.receive() == b"fail":
            raise LookupError("on purpose")
        await channel.send(b"alive")
        await ended(channel)

    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context.get("exception")))
    try:
        listener = await transport.listen(url, handler, ListenOptions())
        good, bad = [await transport.dial(listener.url, DialOptions()) for _ in range(2)]
        await bad.send(b"fail")
        await ended(bad)
        await good.send(b"go on")
        expect(await good.receive() == b"alive", "other channels go on when a handler fails")
        await asyncio.gather(good.close(), bad.close())
        await listener.close()
    finally:
        loop.set_exception_handler(previous)
    expect([type(error) for error in reported] == [LookupError], "the failure goes to the loop's exception handler")
