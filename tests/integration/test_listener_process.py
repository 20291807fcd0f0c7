"""A listener in a process of its own: what bombs and a flood of connections cost it, as the system counts it."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import struct
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from aioseed_grpc.frame import encode
from aioseed_grpc.stream import METHOD

from aioseed.errors import ConnectError
from aioseed.plugins import transport_for
from aioseed.transport import Channel, DialOptions, Secret
from aioseed.transport.descriptors import KEPT

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets the limits of another process"),
    pytest.mark.may_block("the test itself reads /proc"),
]

SCRIPT = Path(__file__).with_name("echoing.py")
TOKEN = Secret("right")
PATIENCE_S = 50.0
MAX_MESSAGE_BYTES = 2**16
BOMB_BYTES = 32 * 2**20
BOMBS = 5


class Place:
    """A listener's process."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, said: asyncio.StreamReader) -> None:
        self.url = url
        self.port = int(url.rsplit(":", 1)[1])
        self._pid = process.pid
        self._said = said

    async def says(self, what: str) -> None:
        """Wait until the listener reports `what`."""
        async with asyncio.timeout(PATIENCE_S):
            while (line := await self._said.readline()) and line.decode().strip() != what:
                pass
        assert line, f"the listener ended without {what}"

    @property
    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * 1024

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def bound_descriptors(self, count: int) -> None:
        import resource

        self.bound = count
        _, hard = resource.prlimit(self._pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self._pid, resource.RLIMIT_NOFILE, (count, hard))

    async def dial(self) -> Channel:
        return await transport_for(self.url).dial(self.url, DialOptions(TOKEN, connect_timeout_s=5.0))


@asynccontextmanager
async def listening(scheme: str) -> AsyncIterator[Place]:
    words = (sys.executable, str(SCRIPT), f"{scheme}://127.0.0.1:0", str(MAX_MESSAGE_BYTES))
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            url = (await process.stdout.readline()).decode().strip()
        yield Place(process, url, process.stdout)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def echoes(channel: Channel) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await channel.send(b"hello")
        assert await channel.receive() == b"hello"


def deflated(wbits: int) -> bytes:
    packer = zlib.compressobj(9, wbits=wbits)
    return packer.compress(bytes(BOMB_BYTES)) + packer.flush(zlib.Z_SYNC_FLUSH)


RAW, GZIP = -15, 31


async def websocket_bomb(place: Place) -> bytes:
    """Offer compression, and send a compressed frame whatever the answer was; return everything that was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    key = base64.b64encode(os.urandom(16)).decode()
    head = (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{place.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: aioseed.v1\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer right\r\n\r\n"
    )
    writer.write(head.encode())
    said = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in said and b"permessage-deflate" not in said
    body = deflated(RAW)
    assert len(body) < MAX_MESSAGE_BYTES
    writer.write(struct.pack("!BBH4x", 0x80 | 0x40 | 0x2, 0x80 | 126, len(body)) + body)  # RSV1: compressed; mask 0
    return said + await rest(reader, writer)


async def request_bomb(place: Place) -> bytes:
    """Send a request with a compressed body, as far as it is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    body = deflated(GZIP)
    writer.write(
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    writer.write(body)
    return await rest(reader, writer)


async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    said = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            said = await reader.read()
    writer.transport.abort()
    return said


async def grpc_bomb(place: Place) -> bytes:
    """Send a frame that gRPC itself compresses; return what came back, which is nothing."""
    address = place.url.removeprefix("grpc://")
    async with grpc.aio.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        call = channel.stream_stream(METHOD)(metadata=(("authorization", "Bearer right"),))
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            async with asyncio.timeout(PATIENCE_S):
                await call.write(encode(bytes(BOMB_BYTES)))
                answer = await call.read()
                assert answer is grpc.aio.EOF
        async with asyncio.timeout(PATIENCE_S):
            assert await call.code() is not grpc.StatusCode.OK
    return b""


@pytest.mark.parametrize(
    ("scheme", "bomb"),
    [("ws", websocket_bomb), ("ws", request_bomb), ("grpc", grpc_bomb)],
    ids=["frame", "request", "grpc"],
)
async def test_what_is_compressed_is_refused_before_it_is_unpacked(
    scheme: str, bomb: Callable[[Place], Awaitable[bytes]]
) -> None:
    async with listening(scheme) as place, await place.dial() as honest:
        await echoes(honest)
        before = place.peak_bytes
        for _ in range(BOMBS):
            assert len(await bomb(place)) < MAX_MESSAGE_BYTES
        await echoes(honest)
        assert place.peak_bytes - before < BOMB_BYTES // 2


@pytest.mark.parametrize("scheme", ["ws", "grpc"])
async def test_a_listener_without_descriptors_serves_who_is_there_and_listens_again_when_it_has_some(
    scheme: str,
) -> None:
    async with listening(scheme) as place, await place.dial() as honest:
        await echoes(honest)
        place.bound_descriptors(place.descriptors + KEPT + 5)
        crowd = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(20)]
        await echoes(honest)
        if scheme == "ws":
            await place.says("no_descriptors")
            assert place.descriptors < place.bound - KEPT // 2
        await echoes(honest)
        for _, writer in crowd:
            writer.transport.abort()
        async with await dialled_again(place) as late:
            await echoes(late)
        await echoes(honest)


async def dialled_again(place: Place) -> Channel:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(ConnectError):
                return await place.dial()
            await asyncio.sleep(0.1)
