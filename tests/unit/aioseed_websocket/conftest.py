from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Protocol

import aiohttp
import pytest
from aioseed_websocket import WebSocketTransport

from aioseed.errors import ChannelClosed
from aioseed.transport import Channel, DialOptions, Listener, ListenOptions


class Ends(NamedTuple):
    """A plain aiohttp client, or a channel, and the accepted channel."""

    client: aiohttp.ClientWebSocketResponse
    channel: Channel


class Accepting(NamedTuple):
    listener: Listener
    accepted: asyncio.Queue[Channel]


class Accept(Protocol):
    def __call__(self, options: ListenOptions = ...) -> AbstractAsyncContextManager[Accepting]: ...


async def closed(channel: Channel) -> ChannelClosed:
    """Return how a channel ended that brings nothing more."""
    with pytest.raises(ChannelClosed) as caught:
        await channel.receive()
    return caught.value


@asynccontextmanager
async def _accept(options: ListenOptions = ListenOptions()) -> AsyncIterator[Accepting]:  # noqa: B008
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    over = asyncio.Event()

    async def handler(channel: Channel) -> None:
        accepted.put_nowait(channel)
        await over.wait()

    listener = await WebSocketTransport().listen("ws://127.0.0.1:0", handler, options)
    try:
        yield Accepting(listener, accepted)
    finally:
        over.set()
        await listener.close()


@pytest.fixture
def accept() -> Accept:
    return _accept


@pytest.fixture
async def plain() -> AsyncIterator[Ends]:
    """A client without anything of ours, and the channel that serves it."""
    async with _accept() as (listener, accepted), aiohttp.ClientSession() as session:
        async with session.ws_connect(listener.url, autoclose=False, autoping=False) as client:
            channel = await accepted.get()
            yield Ends(client, channel)
            await asyncio.gather(client.close(), channel.close())


@pytest.fixture
async def channels() -> AsyncIterator[tuple[Channel, Channel]]:
    async with _accept() as (listener, accepted):
        async with await WebSocketTransport().dial(listener.url, DialOptions()) as near:
            yield near, await accepted.get()
