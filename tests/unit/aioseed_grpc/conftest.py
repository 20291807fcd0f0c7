from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Protocol

import grpc
import pytest
from aioseed_grpc import GrpcTransport
from aioseed_grpc.stream import METHOD

from aioseed.transport import Channel, DialOptions, Listener, ListenOptions


class Accepting(NamedTuple):
    listener: Listener
    accepted: asyncio.Queue[Channel]


class Ends(NamedTuple):
    """A call made with grpcio alone, and the accepted channel."""

    call: grpc.aio.StreamStreamCall
    channel: Channel


class Accept(Protocol):
    def __call__(self, options: ListenOptions = ...) -> AbstractAsyncContextManager[Accepting]: ...


@asynccontextmanager
async def _accept(options: ListenOptions = ListenOptions()) -> AsyncIterator[Accepting]:  # noqa: B008
    accepted: asyncio.Queue[Channel] = asyncio.Queue()
    over = asyncio.Event()

    async def handler(channel: Channel) -> None:
        accepted.put_nowait(channel)
        await over.wait()

    listener = await GrpcTransport().listen("grpc://127.0.0.1:0", handler, options)
    try:
        yield Accepting(listener, accepted)
    finally:
        over.set()
        await listener.close()


@pytest.fixture
def accept() -> Accept:
    return _accept


@asynccontextmanager
async def plain_channel(url: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(url.removeprefix("grpc://")) as channel:
        yield channel


@pytest.fixture
async def plain() -> AsyncIterator[Ends]:
    async with _accept() as (listener, accepted), plain_channel(listener.url) as channel:
        call = channel.stream_stream(METHOD)()
        await call.initial_metadata()
        yield Ends(call, await accepted.get())
        call.cancel()


@pytest.fixture
async def channels() -> AsyncIterator[tuple[Channel, Channel]]:
    async with _accept() as (listener, accepted):
        async with await GrpcTransport().dial(listener.url, DialOptions()) as near:
            yield near, await accepted.get()
