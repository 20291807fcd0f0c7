from __future__ import annotations

import asyncio
import contextlib
import gc
import socket

import pytest

from aioseed.testing.proxy import Faults, Proxy

pytestmark = pytest.mark.every_loop


@contextlib.asynccontextmanager
async def echoing():
    """A server that sends back what it gets, and its port."""

    async def echo(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionResetError):
        await writer.wait_closed()


async def test_bytes_pass_both_ways_and_an_end_is_passed_on():
    async with echoing() as port, Proxy("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x" * 300_000)
        writer.write_eof()
        assert await reader.read(-1) == b"x" * 300_000
        await close(writer)


async def test_a_cut_resets_every_connection_and_later_ones_work():
    async with echoing() as port, Proxy("127.0.0.1", port) as proxy:
        ends = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
        for reader, writer in ends:
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"
        assert proxy.connections == 3
        assert proxy.cut() == 3
        for reader, writer in ends:
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            await close(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        await close(writer)


async def test_a_cut_may_leave_the_younger_ones_alone():
    async with echoing() as port, Proxy("127.0.0.1", port) as proxy:
        ends = []
        for _ in range(3):
            ends.append(await asyncio.open_connection("127.0.0.1", proxy.port))
            ends[-1][1].write(b"a")
            assert await ends[-1][0].readexactly(1) == b"a"
        assert proxy.cut(2) == 2
        for reader, writer in ends[:2]:
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            await close(writer)
        reader, writer = ends[2]
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        await close(writer)


async def test_a_target_that_is_not_there_is_a_connection_that_ends():
    async with echoing() as port:
        pass
    async with Proxy("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        await close(writer)
        assert proxy.cut() == 0


async def test_a_stall_tells_nobody_and_what_was_held_back_arrives_in_the_end():
    async with echoing() as port, Proxy("127.0.0.1", port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.stall("back")
        writer.write(b"b")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.readexactly(1)
        proxy.release()
        assert await reader.readexactly(1) == b"b"
        await close(writer)


async def test_connections_may_be_slow_arrive_in_slices_and_break_after_so_many_bytes():
    faults = Faults(delay_s=0.001, jitter_s=0.001, slice_bytes=3, cut_after_bytes=10)
    async with echoing() as port, Proxy("127.0.0.1", port, faults) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"0123456789")
        assert await reader.readexactly(10) == b"0123456789"
        writer.write(b"a")
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await close(writer)


async def test_later_connections_may_lead_elsewhere():
    async with echoing() as port, Proxy("127.0.0.1", 1) as proxy:
        proxy.lead_to("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        await close(writer)


@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_comes_while_it_ends_is_closed(turns, caplog):
    async with echoing() as port:
        async with Proxy("127.0.0.1", port) as proxy:
            ours = socket.create_connection(("127.0.0.1", proxy.port))
            for _ in range(turns):
                await asyncio.sleep(0)
        ours.settimeout(5.0)
        with ours, contextlib.suppress(ConnectionResetError):
            assert ours.recv(1) == b""
    gc.collect()  # an unclosed socket would be an error
    assert not caplog.records
