"""What the checks of `aioseed.testing.transport_kit` stand on."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, TypeAlias

from aioseed.errors import AuthenticationError, ChannelClosed, ConnectError, UsageError
from aioseed.transport.channel import Channel, DialOptions, Listener, ListenOptions, Transport
from aioseed.transport.keyring import Keyring
from aioseed.transport.token import Secret

Make: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Transport, str]]]
"""Gives a fresh transport and a URL to listen at, with port 0 where the network has ports."""
Check: TypeAlias = Callable[[Make], Awaitable[None]]
"""Raises AssertionError with the promise that is broken."""

TOKEN = Secret("kit")
MAX_MESSAGE_BYTES = 2 * 2**20
CHECK_TIMEOUT_S = 15.0
SETTLE_TIMEOUT_S = 2.0


class Pair(NamedTuple):
    """Hold the two ends of one channel."""

    near: Channel  # dialled
    far: Channel  # accepted
    listener: Listener


def check(body: Callable[[Transport, str], Coroutine[None, None, None]]) -> Check:
    """Make a check of a body: bound it in time and hold it to leaving no task behind."""

    @functools.wraps(body)
    async def bounded(make: Make) -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            async with make() as (transport, url):
                await body(transport, url)
            left = asyncio.all_tasks() - before
            if left:
                await asyncio.wait(left, timeout=SETTLE_TIMEOUT_S)
        left = {task for task in left if not task.done()}
        expect(not left, f"no task is left behind, but {left} are")

    return bounded


def expect(holds: bool, promise: str) -> None:
    """Raise AssertionError with `promise` unless it `holds`; unlike `assert` also under ``python -O``."""
    if not holds:
        raise AssertionError(promise)


async def ended(channel: Channel) -> ChannelClosed:
    """Receive until the channel has ended and return how."""
    while True:
        try:
            await channel.receive()
        except ChannelClosed as closed:
            return closed


async def refuses_to_send(channel: Channel) -> bool:
    """Say whether both ways of sending raise ChannelClosed."""
    try:
        channel.send_nowait(b"too late")
    except ChannelClosed:
        pass
    else:
        return False
    try:
        await channel.send(b"too late")
    except ChannelClosed:
        return True
    return False


async def refused(
    transport: Transport,
    url: str,
    options: DialOptions,
    kind: type[ConnectError] | type[AuthenticationError] | type[UsageError],
) -> None:
    """Expect that dialling raises `kind`."""
    try:
        channel = await transport.dial(url, options)
    except kind:
        return
    await channel.close()
    raise AssertionError(f"dialling {url} raises {kind.__name__}")


@asynccontextmanager
async def open_pairs(
    transport: Transport, url: str, listen: ListenOptions | None = None, *, channels: int = 1
) -> AsyncIterator[list[Pair]]:
    """Listen, dial, and pair the ends by a first message, since nothing promises an order of acceptance."""
    listen = listen or ListenOptions(Keyring.of(TOKEN), MAX_MESSAGE_BYTES)
    accepted: dict[bytes, asyncio.Future[Channel]] = {}
    over = asyncio.Event()

    async def handler(channel: Channel) -> None:
        accepted[await channel.receive()].set_result(channel)
        await over.wait()

    listener = await transport.listen(url, handler, listen)
    dialled: list[Channel] = []
    try:
        pairs = []
        for number in range(channels):
            name = b"%d" % number
            accepted[name] = asyncio.get_running_loop().create_future()
            near = await transport.dial(listener.url, DialOptions(TOKEN, MAX_MESSAGE_BYTES))
            dialled.append(near)
            await near.send(name)
            pairs.append(Pair(near, await accepted[name], listener))
        yield pairs
    finally:
        over.set()
        await asyncio.gather(*(near.close() for near in dialled))
        await listener.close()
