"""Compare the serving road with the bare echo: same messages, same library, same load, turn and turn about."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from aioseed.bench.echo import ChannelEcho
from aioseed.bench.load import WARM_UP_SHARE, Addresses, Kind, Load
from aioseed.bench.processes import EchoProcesses, LoadProcess, Measured
from aioseed.bench.road import Road
from aioseed.bench.traffic import Traffic, Turn
from aioseed.errors import PluginError
from aioseed.plugins import load, transport_for
from aioseed.transport.channel import Transport

ROUND_S = 1.0
"""About how long one turn lasts: short against the moods of a shared machine, long against a turn's beginning."""
MIN_ROUNDS = 3
WARM_UP_TURN_S = 0.2
MAX_WARM_UP_TURNS = 100


class Round(NamedTuple):
    """Hold one turn of each kind, one right after the other."""

    echo: Measured
    road: Measured
    tuned_echo: Measured | None = None

    @property
    def share(self) -> float:
        """Return the road's rate as a share of the echo's."""
        return self.road.turn.messages_per_s / self.echo.turn.messages_per_s

    @property
    def share_of_tuned(self) -> float:
        """Return the road's rate as a share of the tuned echo's, NaN without one."""
        if self.tuned_echo is None:
            return math.nan
        return self.road.turn.messages_per_s / self.tuned_echo.turn.messages_per_s


class ServingResult(NamedTuple):
    """Hold the rounds of a measurement."""

    traffic: Traffic
    rounds: tuple[Round, ...]
    batch_rows_p50: float

    def figures(self) -> dict[str, object]:
        """Return what is printed; every figure is a median over the rounds."""
        road, echo = [each.road for each in self.rounds], [each.echo for each in self.rounds]
        shares = [each.share for each in self.rounds]
        envs = self.traffic.envs_per_session
        return {
            **self.traffic._asdict(),
            "step_bytes": self.traffic.step_bytes,
            "action_bytes": self.traffic.action_bytes,
            "rounds": len(self.rounds),
            "steps_per_s": round(_median([each.turn.messages_per_s * envs for each in road]), 1),
            "echo_steps_per_s": round(_median([each.turn.messages_per_s * envs for each in echo]), 1),
            "share_of_echo": round(_median(shares), 4),
            "share_of_echo_range": [round(min(shares), 4), round(max(shares), 4)],
            "action_latency_ms": _latency(road),
            "echo_latency_ms": _latency(echo),
            "server_cpu_us_per_message": _cpu(road),
            "echo_cpu_us_per_message": _cpu(echo),
            "batch_rows_p50": round(self.batch_rows_p50, 1),
            **self._beside_tuned(),
        }

    def _beside_tuned(self) -> dict[str, object]:
        tuned = [each.tuned_echo for each in self.rounds if each.tuned_echo is not None]
        if not tuned:
            return {}
        envs, shares = self.traffic.envs_per_session, [each.share_of_tuned for each in self.rounds]
        return {
            "tuned_echo_steps_per_s": round(_median([each.turn.messages_per_s * envs for each in tuned]), 1),
            "share_of_tuned_echo": round(_median(shares), 4),
        }


class _Sessions(Protocol):
    async def turn(self, kind: Kind, seconds: float, messages_per_s: float | None = None) -> Turn: ...

    async def close(self) -> None: ...


class Contest:
    """Hold road, echo and load, all connected, and let them take turns. Thread: one event loop.

    Args:
        traffic: What goes to and fro.
        road: Served here.
        sessions: The load of the road, and of the echo where that is served here.
        echo: The bare library's; None where none is known, and the transport's own channels are echoed over.
        tuned_echo: The library's, set up as aioseed does it; None to leave it out.
    """

    def __init__(
        self,
        traffic: Traffic,
        road: Road,
        sessions: _Sessions,
        echo: EchoProcesses | None = None,
        tuned_echo: EchoProcesses | None = None,
    ) -> None:
        self.traffic = traffic
        self._road = road
        self._sessions = sessions
        self._echo = echo
        self._tuned_echo = tuned_echo

    @classmethod
    @asynccontextmanager
    async def open(cls, traffic: Traffic, *, tuned_echo: bool = False) -> AsyncIterator[Contest]:
        """Set everything up, and take it down on leaving; then every step must be accounted for.

        Args:
            traffic: What goes to and fro.
            tuned_echo: Have one, where there is a bare library.

        Raises:
            AioseedError: The transport is not there, a session failed, or a step was not accounted for.
        """
        transport = await asyncio.to_thread(transport_named, traffic.check().transport)
        async with AsyncExitStack() as cleanup:
            road = Road(traffic)
            cleanup.push_async_callback(road.close)
            url = await road.open(transport)
            if (library := _library(transport)) is not None:
                load = await LoadProcess.open(traffic, Addresses(url, ""))
                cleanup.push_async_callback(load.close)
                echo = await cleanup.enter_async_context(EchoProcesses.open(traffic, library, tuned=False))
                tuned = None
                if tuned_echo:
                    tuned = await cleanup.enter_async_context(EchoProcesses.open(traffic, library, tuned=True))
                yield cls(traffic, road, load, echo, tuned)
                return
            own = await ChannelEcho.open(transport, traffic.action_bytes)
            cleanup.push_async_callback(own.close)
            sessions: _Sessions
            if "memory" in transport.schemes:
                sessions = await Load.open(traffic, Addresses(url, own.url), transport)
            else:
                sessions = await LoadProcess.open(traffic, Addresses(url, own.url))
            cleanup.push_async_callback(sessions.close)
            yield cls(traffic, road, sessions)

    async def rounds(self, count: int, seconds: float, messages_per_s: float | None = None) -> ServingResult:
        """Let echoes and road take `count` turns of `seconds` each."""
        await self.warm_up()
        measured: list[Round] = []
        for _ in range(count):
            tuned = None if self._tuned_echo is None else await self._tuned_echo.turn(seconds, messages_per_s)
            if self._echo is None:
                echo = await self._turn("echo", seconds, messages_per_s)
            else:
                echo = await self._echo.turn(seconds, messages_per_s)
            measured.append(Round(echo, await self._turn("road", seconds, messages_per_s), tuned))
        batch_rows = self._road.metrics.quantiles("serving/batch_rows", low=1.0, high=1e5).p50
        return ServingResult(self.traffic, tuple(measured), batch_rows)

    async def warm_up(self) -> None:
        """Let the road take short turns, which nobody measures, until it has touched all its memory."""
        for _ in range(MAX_WARM_UP_TURNS):
            if not self._road.is_cold:
                return
            await self._turn("road", WARM_UP_TURN_S, None)

    async def road_turn(self, seconds: float) -> Turn:
        """Let the road take one turn."""
        return (await self._turn("road", seconds, None)).turn

    async def _turn(self, kind: Kind, seconds: float, messages_per_s: float | None) -> Measured:
        """Run one turn; inference that fails ends it."""
        running = asyncio.ensure_future(self._sessions.turn(kind, seconds, messages_per_s))
        cpu_s = time.process_time()
        try:
            either: set[asyncio.Future[Any]] = {running, self._road.failed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._road.failed.done():
                self._road.failed.result()
            return Measured(running.result(), (time.process_time() - cpu_s) * (1 - WARM_UP_SHARE))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def measure_serving(
    traffic: Traffic, seconds: float, rounds: int | None = None, *, tuned_echo: bool = False
) -> ServingResult:
    """Measure for `seconds` seconds of the road, and as long of each echo. Safe to cancel.

    Args:
        rounds: Turns of each; None takes one a second, at least 3.
        tuned_echo: Compare with the library set up as aioseed does it, too.

    Raises:
        AioseedError: The transport is not there, a session failed, or a step was not accounted for.
    """
    turns = rounds or max(MIN_ROUNDS, round(seconds / ROUND_S))
    async with Contest.open(traffic, tuned_echo=tuned_echo) as contest:
        return await contest.rounds(turns, seconds / turns)
    raise AssertionError("nothing is swallowed on leaving")


def transport_named(name: str) -> Transport:
    """Return an instance of the transport plugin `name`, or the memory transport.

    Raises:
        PluginError: There is none.
    """
    if name == "memory":
        return transport_for("memory://bench")
    made = load("aioseed.transports", name)
    transport = made() if callable(made) else made
    if not isinstance(transport, Transport):
        raise PluginError(f'"{name}" is not a Transport', group="aioseed.transports", name=name)
    return transport


def _library(transport: Transport) -> Literal["websocket", "grpc"] | None:
    """Return the library that `transport` is compared with, None where there is no echo over it."""
    if "ws" in transport.schemes:
        return "websocket"
    return "grpc" if "grpc" in transport.schemes else None


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _latency(measured: list[Measured]) -> dict[str, float]:
    return {
        "p50": round(_median([each.turn.p50_ms for each in measured]), 4),
        "p99": round(_median([each.turn.p99_ms for each in measured]), 4),
    }


def _cpu(measured: list[Measured]) -> float:
    """Return the processor time of the serving process for a message; of a whole turn, the warm-up included."""
    return round(_median([each.server_cpu_s * 1e6 / max(each.turn.messages, 1) for each in measured]), 2)
