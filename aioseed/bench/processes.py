"""Loads and echoes in processes of their own, since event loop, allocator and settings of libraries are a process's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal, NamedTuple

from aioseed.bench.child import Child
from aioseed.bench.load import WARM_UP_SHARE, Addresses, Kind
from aioseed.bench.traffic import Traffic, Turn
from aioseed.transport.allocator import SWITCH

UNTUNED = {SWITCH: "system"}
"""Environment of a process that leaves the allocator as it is."""


class Measured(NamedTuple):
    """Hold one turn with what the process that served it spent."""

    turn: Turn
    server_cpu_s: float


class LoadProcess:
    """Run a load in a process of its own."""

    def __init__(self, process: Child) -> None:
        self._process = process

    @classmethod
    async def open(cls, traffic: Traffic, addresses: Addresses, *, tuned: bool = True) -> LoadProcess:
        """Start it and wait until every session is connected.

        Args:
            traffic: What to send.
            addresses: Where to.
            tuned: Set the process up as aioseed's programs are.
        """
        process = await Child.start("load", {} if tuned else UNTUNED)
        opening = {"traffic": traffic._asdict(), "road": addresses.road, "echo": addresses.echo, "tuned": tuned}
        try:
            await process.order(opening)
        except BaseException:
            await process.close()
            raise
        return cls(process)

    async def turn(self, kind: Kind, seconds: float, messages_per_s: float | None = None) -> Turn:
        """Run one turn."""
        order: dict[str, object] = {"kind": kind, "seconds": seconds, "messages_per_s": messages_per_s}
        return Turn.from_json(await self._process.order(order))

    async def close(self) -> None:
        """End the process. Idempotent."""
        await self._process.close()


class EchoProcesses:
    """Run an echo in one process and its load in another.

    Neither imports a transport of aioseed unless the two are tuned as aioseed's programs are: then the library is set
    up as the transport does it, and the rest is as bare.
    """

    def __init__(self, echo: Child, load: LoadProcess) -> None:
        self._echo = echo
        self._load = load

    @classmethod
    @asynccontextmanager
    async def open(
        cls, traffic: Traffic, over: Literal["websocket", "grpc", "socket"], *, tuned: bool
    ) -> AsyncIterator[EchoProcesses]:
        """Start both, and end them on leaving.

        Raises:
            AioseedError: One of them failed.
        """
        async with AsyncExitStack() as cleanup:
            echo = await Child.start("peer", {} if tuned else UNTUNED)
            cleanup.push_async_callback(echo.close)
            order = {
                "over": over,
                "message_bytes": traffic.step_bytes,
                "answer_bytes": traffic.action_bytes,
                "tuned": tuned,
            }
            url = str((await echo.order(order))["url"])
            load = await LoadProcess.open(traffic, Addresses("", url), tuned=tuned)
            cleanup.push_async_callback(load.close)
            yield cls(echo, load)

    async def turn(self, seconds: float, messages_per_s: float | None = None) -> Measured:
        """Run one turn."""
        before_s = await self._spent_s()
        turn = await self._load.turn("echo", seconds, messages_per_s)
        return Measured(turn, (await self._spent_s() - before_s) * (1 - WARM_UP_SHARE))

    async def _spent_s(self) -> float:
        spent: Mapping[str, object] = await self._echo.order({})
        return float(str(spent["cpu_s"]))
