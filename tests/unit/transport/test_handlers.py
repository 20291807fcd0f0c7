from __future__ import annotations

import asyncio

import pytest

from aioseed.errors import ChannelClosed
from aioseed.transport.channel import Channel, DialOptions, ListenOptions
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.memory import MemoryChannel


def channel_pair() -> tuple[Channel, Channel]:
    return MemoryChannel.pair("memory://here", 1, ListenOptions(), DialOptions())


async def closed(channel: Channel) -> ChannelClosed:
    with pytest.raises(ChannelClosed) as caught:
        await channel.receive()
    return caught.value


async def test_channel_is_closed_when_its_handler_returns() -> None:
    near, far = channel_pair()

    async def handler(channel: Channel) -> None:
        await channel.send(b"once")

    await HandlerSet(handler).start(far)
    assert await near.receive() == b"once"
    assert (await closed(near)).clean


async def test_peer_that_leaves_is_no_failure_of_the_handler() -> None:
    near, far = channel_pair()

    async def handler(channel: Channel) -> None:
        await channel.receive()

    asyncio.get_running_loop().set_exception_handler(lambda _, context: pytest.fail(str(context)))
    task = HandlerSet(handler).start(far)
    await near.close()
    await task


async def test_failure_is_reported_with_the_peer() -> None:
    near, far = channel_pair()
    reports: list[dict[str, object]] = []

    async def handler(channel: Channel) -> None:
        raise LookupError("on purpose")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    await HandlerSet(handler).start(far)
    assert [(report["message"], type(report["exception"])) for report in reports] == [
        ("the handler of memory:1 failed", LookupError)
    ]
    assert (await closed(near)).clean


async def test_closing_tells_peers_and_waits_for_handlers() -> None:
    near, far = channel_pair()
    said: list[str] = []

    async def handler(channel: Channel) -> None:
        said.append((await closed(channel)).reason)
        await asyncio.sleep(0)
        said.append("tidied up")

    handlers = HandlerSet(handler)
    handlers.start(far)
    await asyncio.sleep(0)
    await handlers.close(grace_s=5.0)
    assert said == ["the listener closed", "tidied up"]
    assert (await closed(near)).reason == "the listener closed"


@pytest.mark.virtual_time
async def test_handler_that_does_not_end_is_cancelled_after_the_grace() -> None:
    _, far = channel_pair()
    started_s = asyncio.get_running_loop().time()

    async def handler(channel: Channel) -> None:
        await asyncio.Event().wait()

    handlers = HandlerSet(handler)
    task = handlers.start(far)
    await asyncio.sleep(0)
    await handlers.close(grace_s=3.0)
    assert task.cancelled()
    assert asyncio.get_running_loop().time() - started_s == pytest.approx(3.0)


async def test_nothing_is_kept_of_a_channel_whose_handler_has_ended() -> None:
    _, far = channel_pair()

    async def handler(channel: Channel) -> None:
        await channel.send(b"once")

    handlers = HandlerSet(handler)
    task = handlers.start(far)
    assert len(handlers) == 1
    await task
    await asyncio.sleep(0)
    assert len(handlers) == 0


async def test_a_channel_that_fails_to_close_is_reported_and_keeps_no_other_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (near, far), (_, broken) = channel_pair(), channel_pair()
    reports: list[dict[str, object]] = []

    async def handler(channel: Channel) -> None:
        await asyncio.Event().wait()

    async def fails(reason: str = "") -> None:
        raise LookupError("on purpose")

    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    handlers = HandlerSet(handler)
    for channel in (broken, far):
        handlers.start(channel)
    await asyncio.sleep(0)
    monkeypatch.setattr(broken, "close", fails)
    await handlers.close(grace_s=0.0)
    assert (await closed(near)).reason == "the listener closed"
    found = [(report["message"], type(report["exception"])) for report in reports]
    assert found and set(found) == {("a channel failed to close", LookupError)}


async def test_handler_may_close_its_own_set() -> None:
    _, far = channel_pair()

    async def handler(channel: Channel) -> None:
        await handlers.close(grace_s=5.0)

    handlers = HandlerSet(handler)
    await handlers.start(far)


async def test_channel_that_comes_while_closing_is_closed_unhandled() -> None:
    near, far = channel_pair()

    async def handler(channel: Channel) -> None:
        pytest.fail("a closing listener runs no handler")

    handlers = HandlerSet(handler)
    await handlers.close(grace_s=1.0)
    await handlers.start(far)
    assert (await closed(near)).reason == "the listener closed"
