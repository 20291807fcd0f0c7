"""What the transport kit does not say of the memory transport."""

from __future__ import annotations

import asyncio

import pytest

from aioseed.errors import ChannelClosed, ConnectError, ListenError, UsageError
from aioseed.transport import Channel, DialOptions, ListenOptions, MemoryTransport
from aioseed.transport.queue import HIGH_WATER_BYTES


async def ignore(channel: Channel) -> None:
    await channel.receive()


async def echo(channel: Channel) -> None:
    while True:
        channel.send_nowait(await channel.receive())


async def test_port_0_becomes_a_free_number() -> None:
    transport = MemoryTransport()
    listeners = [await transport.listen("memory://here:0", ignore, ListenOptions()) for _ in range(2)]
    assert [listener.url for listener in listeners] == ["memory://here:1", "memory://here:2"]
    for listener in listeners:
        await listener.close()


async def test_an_instance_is_a_network_of_its_own() -> None:
    one, other = MemoryTransport(), MemoryTransport()
    listeners = [await network.listen("memory://here", ignore, ListenOptions()) for network in (one, other)]
    await listeners[0].close()
    with pytest.raises(ConnectError):
        await one.dial("memory://here", DialOptions())
    channel = await other.dial("memory://here", DialOptions())
    await channel.close()
    await listeners[1].close()


async def test_address_is_free_again_after_close_and_an_old_listener_does_not_free_it_twice() -> None:
    transport = MemoryTransport()
    first = await transport.listen("memory://here", ignore, ListenOptions())
    await first.close()
    second = await transport.listen("memory://here", ignore, ListenOptions())
    await first.close()
    with pytest.raises(ListenError):
        await transport.listen("memory://here", ignore, ListenOptions())
    await second.close()


@pytest.mark.virtual_time
async def test_a_round_trip_takes_no_time() -> None:
    transport = MemoryTransport()
    listener = await transport.listen("memory://here", echo, ListenOptions())
    async with await transport.dial(listener.url, DialOptions()) as channel:
        await channel.send(b"question")
        assert await channel.receive() == b"question"
    await listener.close()
    assert asyncio.get_running_loop().time() == 0.0


async def test_memory_of_a_slow_reader_is_bounded_for_a_patient_sender() -> None:
    transport = MemoryTransport()
    held = asyncio.Event()

    async def slow(channel: Channel) -> None:
        await held.wait()

    listener = await transport.listen("memory://here", slow, ListenOptions())
    channel = await transport.dial(listener.url, DialOptions())
    for _ in range(HIGH_WATER_BYTES // 2**16 - 1):
        await channel.send(bytes(2**16))
    sending = asyncio.create_task(channel.send(bytes(2**16)))
    await asyncio.sleep(0)
    assert not sending.done()
    held.set()
    await sending
    await channel.close()
    await listener.close()


async def test_who_sends_more_than_a_slow_reader_may_leave_is_told_at_once_and_both_ends_are_cut() -> None:
    transport = MemoryTransport()
    told: list[str] = []

    async def talk(channel: Channel) -> None:
        try:
            channel.send_nowait(bytes(2000))
        except ChannelClosed as closed:
            told.append(closed.reason)

    listener = await transport.listen("memory://here", talk, ListenOptions(send_buffer_bytes=1000))
    channel = await transport.dial(listener.url, DialOptions())
    assert len(await channel.receive()) == 2000
    with pytest.raises(ChannelClosed, match="reads too slowly") as caught:
        await channel.receive()
    assert not caught.value.clean and told == ["the peer reads too slowly"]
    await listener.close()


@pytest.mark.parametrize("url", ["websocket://here", "memory://", "memory:here", "memory://here/there"])
async def test_an_address_of_another_kind_is_refused(url: str) -> None:
    transport = MemoryTransport()
    with pytest.raises(ListenError, match="a URL like memory://name is needed"):
        await transport.listen(url, ignore, ListenOptions())
    with pytest.raises(UsageError, match="a URL like memory://name is needed"):
        await transport.dial(url, DialOptions())
    listener = await transport.listen("memory://here/", ignore, ListenOptions())
    assert listener.url == "memory://here"
    await listener.close()


async def test_own_close_forgets_what_was_not_received() -> None:
    transport = MemoryTransport()

    async def greet(channel: Channel) -> None:
        await channel.send(b"hello")
        await channel.receive()

    listener = await transport.listen("memory://here", greet, ListenOptions())
    channel = await transport.dial(listener.url, DialOptions())
    await asyncio.sleep(0)
    await channel.close("enough")
    with pytest.raises(ChannelClosed, match="enough"):
        await channel.receive()
    await listener.close()
