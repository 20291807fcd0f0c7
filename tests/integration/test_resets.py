"""A connection that is reset in the moment in which bytes come, so that the kernel tells of both in one word."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aioseed.plugins import transport_for
from aioseed.transport import Channel, DialOptions, ListenOptions

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads in /proc whether a process is frozen"),
    pytest.mark.may_block("the test itself reads /proc"),
]

SCRIPT = Path(__file__).with_name("hearing.py")
START_S = 50.0
TOLD_WITHIN_S = 6.0

NOTHING_TO_ANSWER = {
    ("grpc", "dial"): struct.pack(">HBBBII", 0, 4, 8, 0, 0, 1),  # WINDOW_UPDATE, one byte more for all streams
    ("grpc", "listen"): struct.pack(">HBBBII", 0, 4, 8, 0, 0, 1),
    ("ws", "dial"): b"\x8a\x00",  # a pong
    ("ws", "listen"): b"\x8a\x80" + bytes(4),  # a pong, masked
}
"""Bytes that whoever reads them need not answer: a write would tell it that the connection is gone."""


class Relay:
    """Carry bytes between two connected sockets until it is stopped."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self._pumps = [asyncio.create_task(_pump(*ends)) for ends in ((near, far), (far, near))]

    async def stop(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)


async def _pump(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, 2**16):
        await loop.sock_sendall(sink, data)


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[tuple[str, asyncio.Future[Relay]]]:
    """Give the address of a relay in front of `url`, for one connection, and the relay once that is there."""
    loop = asyncio.get_running_loop()
    relay: asyncio.Future[Relay] = loop.create_future()
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)

        async def accept() -> None:
            near, _ = await loop.sock_accept(server)
            far = socket.create_connection((parts.hostname, parts.port))
            near.setblocking(False)
            far.setblocking(False)
            relay.set_result(Relay(near, far))

        accepting = asyncio.create_task(accept())
        try:
            yield f"{parts.scheme}://127.0.0.1:{server.getsockname()[1]}", relay
        finally:
            accepting.cancel()
            if relay.done():
                await relay.result().stop()
                relay.result().near.close()
                relay.result().far.close()


@asynccontextmanager
async def hearing(role: str, url: str) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SCRIPT, role, url, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield process.pid, process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(said: asyncio.StreamReader, within_s: float) -> str:
    async with asyncio.timeout(within_s):
        return (await said.readline()).decode().strip()


async def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    while any((thread / "stat").read_text().rsplit(")", 1)[1].split()[0] != "T" for thread in threads.iterdir()):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def reset_behind(pid: int, end: socket.socket, data: bytes) -> None:
    """Send bytes and a reset while the process that is to hear of them is frozen."""
    await freeze(pid)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.send(data)
    end.close()
    os.kill(pid, signal.SIGCONT)


async def _answer(channel: Channel) -> None:
    await channel.send(await channel.receive())
    await channel.receive()


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_dialler_is_told_of_a_reset_that_comes_with_bytes(scheme: str) -> None:
    listener = await transport_for(scheme + "://").listen(f"{scheme}://127.0.0.1:0", _answer, ListenOptions())
    try:
        async with relayed(listener.url) as (url, opened), hearing("dial", url) as (pid, said):
            assert await line(said, START_S) == "open"
            relay = await opened
            await asyncio.sleep(0.1)  # what the protocol says by itself is over
            await relay.stop()
            await reset_behind(pid, relay.near, NOTHING_TO_ANSWER[scheme, "dial"])
            assert await line(said, TOLD_WITHIN_S) == "broken"
    finally:
        await listener.close()


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_listener_is_told_of_a_reset_that_comes_with_bytes(scheme: str) -> None:
    async with hearing("listen", f"{scheme}://127.0.0.1:0") as (pid, said):
        async with relayed(await line(said, START_S)) as (url, opened):
            dialler = await transport_for(url).dial(url, DialOptions())
            await dialler.send(await dialler.receive())
            assert await line(said, START_S) == "open"
            relay = await opened
            await asyncio.sleep(0.1)
            await relay.stop()
            await reset_behind(pid, relay.far, NOTHING_TO_ANSWER[scheme, "listen"])
            assert await line(said, TOLD_WITHIN_S) == "broken"
        await dialler.close()
