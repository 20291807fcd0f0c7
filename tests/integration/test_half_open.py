"""A connection that a router forgot: nothing arrives any more, and neither end is told. New ones pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from aioseed.errors import ConnectError
from aioseed.plugins import transport_for
from aioseed.transport import Channel, DialOptions, ListenOptions

pytestmark = pytest.mark.may_block("plugins are looked for on the disk")

LATER = DialOptions(connect_timeout_s=10.0)


class Router:
    """Carry connections to `url` until they are forgotten."""

    def __init__(self, url: str) -> None:
        self._far = urlsplit(url)
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.connections = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        far_reader, far_writer = await asyncio.open_connection(self._far.hostname, self._far.port)
        self._writers.append(far_writer)
        self._pumps |= {asyncio.create_task(_pump(*ends)) for ends in ((reader, far_writer), (far_reader, writer))}

    def forget(self) -> None:
        for pump in self._pumps:
            pump.cancel()

    def close(self) -> None:
        self.forget()
        for writer in self._writers:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)


async def _echo(channel: Channel) -> None:
    while True:
        await channel.send(await channel.receive())


@asynccontextmanager
async def routed(scheme: str) -> AsyncIterator[tuple[str, Router]]:
    listener = await transport_for(scheme + "://").listen(f"{scheme}://127.0.0.1:0", _echo, ListenOptions())
    router = Router(listener.url)
    server = await asyncio.start_server(router.carry, "127.0.0.1", 0)
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", router
    finally:
        server.close()
        router.close()
        await listener.close()


async def answers(channel: Channel) -> bool:
    await channel.send(b"there?")
    async with asyncio.timeout(10.0):
        return await channel.receive() == b"there?"


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_who_leaves_a_forgotten_connection_dials_a_new_one_while_others_still_wait_on_it(scheme: str) -> None:
    async with routed(scheme) as (url, router):
        transport = transport_for(url)
        leaving, waiting = [await transport.dial(url, LATER) for _ in range(2)]
        assert await answers(leaving) and await answers(waiting)
        router.forget()
        await leaving.close()
        async with await transport.dial(url, LATER) as anew:
            assert await answers(anew)
        router.close()  # and who waited is told
        await waiting.close()


async def test_who_gets_no_answer_on_a_forgotten_connection_dials_a_new_one_next() -> None:
    soon = DialOptions(connect_timeout_s=2.0)
    async with routed("grpc") as (url, router):
        transport = transport_for(url)
        waiting = await transport.dial(url, soon)
        assert await answers(waiting)
        router.forget()
        with pytest.raises(ConnectError, match="did not answer within"):
            await transport.dial(url, soon)
        async with await transport.dial(url, soon) as anew:
            assert await answers(anew)
        router.close()  # and who waited is told
        await waiting.close()


async def test_channels_that_are_answered_share_a_connection_again() -> None:
    async with routed("grpc") as (url, router):
        transport = transport_for(url)
        left = [await transport.dial(url, LATER) for _ in range(2)]
        router.forget()
        await asyncio.gather(*(channel.close() for channel in left))
        anew = [await transport.dial(url, LATER) for _ in range(2)]
        assert [await answers(channel) for channel in anew] == [True, True]
        assert router.connections == 2
        await asyncio.gather(*(channel.close() for channel in anew))
