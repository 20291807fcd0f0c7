"""What the checks of `aioseed.testing.transport_kit` stand on."""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

from aioseed.errors import AioseedError, ChannelClosed, ConnectError
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
_CANCELS = 8
_PYTHONS_OWN = frozenset({"asyncio", "contextlib.py"})


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
        await _in_time(_with_transport(body, make), f"{body.__name__}: {(body.__doc__ or '').strip()}")
        left = asyncio.all_tasks() - before
        if left:
            await asyncio.wait(left, timeout=SETTLE_TIMEOUT_S)
        left = {task for task in left if not task.done()}
        expect(not left, f"no task is left behind, but {left} are")

    return bounded


async def _with_transport(body: Callable[[Transport, str], Coroutine[None, None, None]], make: Make) -> None:
    async with make() as (transport, url):
        await body(transport, url)


async def _in_time(running: Coroutine[None, None, None], promise: str) -> None:
    """Wait for a check, which fails after `CHECK_TIMEOUT_S` with its promise and the place where it hangs."""
    task = asyncio.get_running_loop().create_task(running)
    try:
        await asyncio.wait({task}, timeout=CHECK_TIMEOUT_S)
        if task.done():
            return task.result()
        place = _place_of(running)
    finally:
        for _ in range(_CANCELS):  # what is tidied up after the first may hang as well
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=SETTLE_TIMEOUT_S / _CANCELS)
    raise AssertionError(f"not over after {CHECK_TIMEOUT_S:g} s, where it waits in {place}. {promise}")


def _place_of(running: object) -> str:
    """Return the innermost line at which a coroutine waits that is no part of asyncio or contextlib."""
    place = "nothing"
    while running is not None:
        frame = getattr(running, "cr_frame", None) or getattr(running, "ag_frame", None)
        if frame is not None and not _PYTHONS_OWN.intersection(Path(frame.f_code.co_filename).parts):
            place = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        running = getattr(running, "cr_await", None) or getattr(running, "ag_await", None)
    return place


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
    kind: type[AioseedError],
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
    transport: Transport,
    url: str,
    listen: ListenOptions | None = None,
    *,
    channels: int = 1,
    tokens: Sequence[Secret] = (TOKEN,),
) -> AsyncIterator[list[Pair]]:
    """Listen, dial, and pair the ends by a first message, since nothing promises an order of acceptance.

    The diallers show `tokens` in turn.
    """
    listen = listen or ListenOptions(Keyring.of(*tokens), MAX_MESSAGE_BYTES)
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
            near = await transport.dial(listener.url, DialOptions(tokens[number % len(tokens)], MAX_MESSAGE_BYTES))
            dialled.append(near)
            await near.send(name)
            pairs.append(Pair(near, await accepted[name], listener))
        yield pairs
    finally:
        over.set()
        await asyncio.gather(*(near.close() for near in dialled))
        await listener.close()


def loopback_of(url: str) -> tuple[str, int] | None:
    """Return host and port of a URL on loopback; None for networks without, where sockets can try nothing."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "::1", "localhost") or parts.port is None:
        return None
    return parts.hostname, parts.port


async def ends_of_a_cut_channel(transport: Transport, url: str, *, resets: bool) -> Sequence[bytes | BaseException]:
    """Return what both sides heard of a connection that was cut; nothing where there is no TCP to cut."""
    far: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handler(channel: Channel) -> None:
        await channel.send(await channel.receive())
        (outcome,) = await asyncio.gather(channel.receive(), return_exceptions=True)
        if isinstance(outcome, BaseException):
            far.set_exception(outcome)
        else:
            far.set_result(outcome)

    listener = await transport.listen(url, handler, ListenOptions())
    address = loopback_of(listener.url)
    try:
        if address is None:
            return []
        async with _cable(*address, resets=resets) as (port, cut):
            try:
                near = await transport.dial(f"{urlsplit(url).scheme}://127.0.0.1:{port}", DialOptions())
            except ConnectError:
                return []  # its ports are not those of TCP
            async with near:
                await near.send(b"there")
                await near.receive()
                waiting = asyncio.create_task(near.receive())
                await asyncio.sleep(0)
                cut()
                return await asyncio.gather(waiting, far, return_exceptions=True)
    finally:
        await listener.close()


@asynccontextmanager
async def _cable(host: str, port: int, *, resets: bool) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """Give a port on 127.0.0.1 that leads to another, and what cuts all that goes through it: by a reset or an end."""
    ends: list[asyncio.StreamWriter] = []

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)  # before anything is awaited: gRPC dials anew by itself, even while the cable is taken away
        far_reader, far_writer = await asyncio.open_connection(host, port)
        ends.append(far_writer)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    def cut() -> None:
        for end in ends:
            if resets and not end.is_closing():  # to linger for 0 seconds is to send a reset
                linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            end.transport.abort()

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        cut()
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
    writer.close()
