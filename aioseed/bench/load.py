"""The load: sessions that keep one STEP under way each, over the road or over the echo, turn by turn.

Runs as ``python -m aioseed.bench.load``, a process of its own that reads JSON lines from standard input: first where
and what to send, then one line a turn, which it answers with one line. It ends when its standard input does. Over the
memory transport, which has one process, the benchmark runs a `Load` itself.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np

from aioseed import __version__
from aioseed.bench.echo import GRPC_METHOD
from aioseed.bench.links import AiohttpLink, ChannelLink, GrpcLink, Link, RoadLink, SocketLink, read_welcome
from aioseed.bench.traffic import MAX_MESSAGE_BYTES, Traffic, Turn
from aioseed.errors import AioseedError, ProtocolError
from aioseed.plugins import transport_for
from aioseed.specs import observation_to_json
from aioseed.transport.allocator import keep_large_blocks
from aioseed.transport.channel import DialOptions, Transport
from aioseed.types import FIRST
from aioseed.wire.columns import HEADER, StepMessage
from aioseed.wire.messages import Hello

Kind = Literal["road", "echo"]
STEP_DEADLINE_S = 3600.0
WARM_UP_SHARE = 0.15
"""Share of a turn that is not measured: the other road's memory has to leave the caches."""


class Addresses(NamedTuple):
    """Say where road and echo listen; empty where there is none."""

    road: str
    echo: str


class Tally:
    """Collect what the sessions of one turn see, tell them when it is over, and let them go on at a pace if one is set.

    Args:
        messages_per_s: Pace of all sessions together; None lets each go on at once.
    """

    def __init__(self, messages_per_s: float | None = None) -> None:
        self.over = False
        self.latencies_s: list[float] = []
        self._messages_per_s = messages_per_s
        self._resting: deque[asyncio.Future[None]] = deque()

    @property
    def is_paced(self) -> bool:
        """Say whether a session has to ask before each STEP."""
        return self._messages_per_s is not None

    async def go_on(self) -> None:
        """Return when this session may send its next STEP."""
        if self._messages_per_s is not None and not self.over:
            rest: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._resting.append(rest)
            await rest

    async def set_pace(self) -> None:
        """Let the sessions go on evenly until the turn is over; whoever rests longest goes first.

        Looks at the clock at every turn of the loop: timers are too coarse for tens of thousands of messages a second.
        """
        began_s, gone = perf_counter(), 0
        while not self.over:
            due = int((perf_counter() - began_s) * (self._messages_per_s or 0.0))
            for _ in range(min(due - gone, len(self._resting))):
                self._resting.popleft().set_result(None)
            gone = due  # what nobody was free for is not made up for
            await asyncio.sleep(0)
        while self._resting:
            self._resting.popleft().set_result(None)


class LoadSession:
    """Be one session: send a STEP, check the answer, build the next STEP in place.

    Args:
        answer_bytes: Size that every answer must have.
    """

    def __init__(self, link: Link, message: StepMessage, answer_bytes: int) -> None:
        self._link = link
        self._message = message
        self._identity = slice(HEADER.size, message.layout.identity_bytes(message.rows))
        self._answer_bytes = answer_bytes
        self._payload = b""
        self._began_s = 0.0

    async def run(self, tally: Tally) -> None:
        """Go round until the turn is over; no STEP is left unanswered.

        Raises:
            ProtocolError: An answer is not that of the STEP.
        """
        while not tally.over:
            await self._link.converse(self._next(), partial(self._answered, tally))
            await tally.go_on()

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()

    def _next(self) -> bytes:
        self._payload = self._message.tobytes()
        self._began_s = perf_counter()
        return self._payload

    def _answered(self, tally: Tally, answer: bytes) -> bytes | None:
        """Check the answer of a STEP and return the next one, None if that has to wait."""
        tally.latencies_s.append(perf_counter() - self._began_s)
        if len(answer) != self._answer_bytes or answer[self._identity] != self._payload[self._identity]:
            raise ProtocolError("action_rows", "an answer does not repeat the identity of its STEP")
        columns = self._message.columns
        columns.sequence[:] += np.uint32(1)
        columns.flags.fill(0)
        return None if tally.over or tally.is_paced else self._next()


class Load:
    """Hold the sessions of road and echo and run turns. Thread: one event loop."""

    def __init__(self, sessions: dict[Kind, list[LoadSession]]) -> None:
        self._sessions = sessions

    @classmethod
    async def open(cls, traffic: Traffic, addresses: Addresses, transport: Transport | None = None) -> Load:
        """Connect all sessions.

        Args:
            transport: The instance to dial with; None loads the one for an address.

        Raises:
            TransportError, RefusedError: Road or echo cannot be reached.
        """
        sessions: dict[Kind, list[LoadSession]] = {"road": [], "echo": []}
        for index in range(traffic.sessions):
            if addresses.road:
                chosen = transport or transport_for(addresses.road)
                sessions["road"].append(await _join(traffic, addresses.road, chosen, index))
        for index in range(traffic.sessions):
            if addresses.echo:
                sessions["echo"].append(await _echo(traffic, addresses.echo, transport, index))
        return cls(sessions)

    async def turn(self, kind: Kind, seconds: float, messages_per_s: float | None = None) -> Turn:
        """Run all sessions of a kind for so long and return what they saw, the warm-up left out.

        Args:
            messages_per_s: Pace of all of them together; None sends as fast as answers come.
        """
        tally = Tally(messages_per_s)
        running = [asyncio.ensure_future(session.run(tally)) for session in self._sessions[kind]]
        if messages_per_s is not None:
            running.append(asyncio.ensure_future(tally.set_pace()))
        try:
            await _unless_failed(running, seconds * WARM_UP_SHARE)
            first, began_s, cpu_s = len(tally.latencies_s), perf_counter(), time.process_time()
            await _unless_failed(running, seconds * (1 - WARM_UP_SHARE))
            last, ended_s, spent_s = len(tally.latencies_s), perf_counter(), time.process_time() - cpu_s
            tally.over = True
            await asyncio.gather(*running)
        finally:
            tally.over = True
            for task in running:
                task.cancel()
        latencies_ms = np.array(tally.latencies_s[first:last] or [np.nan]) * 1e3
        p50, p99 = np.percentile(latencies_ms, (50, 99)).tolist()
        return Turn(last - first, ended_s - began_s, p50, p99, spent_s)

    async def close(self) -> None:
        """Close every connection."""
        for sessions in self._sessions.values():
            await asyncio.gather(*(session.close() for session in sessions))


async def _unless_failed(running: Sequence[asyncio.Future[None]], seconds: float) -> None:
    """Wait; a session that fails ends the wait with its exception."""
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def _step(traffic: Traffic, slots: Sequence[int], epochs: Sequence[int]) -> StepMessage:
    message = StepMessage(traffic.steps, traffic.envs_per_session)
    columns = message.columns
    columns.slot[:], columns.epoch[:], columns.flags[:] = slots, epochs, FIRST
    for leaf in columns.observation:
        leaf[...] = np.arange(leaf.size).reshape(leaf.shape) % 251
    return message


async def _join(traffic: Traffic, url: str, transport: Transport, index: int) -> LoadSession:
    channel = await transport.dial(url, DialOptions(max_message_bytes=MAX_MESSAGE_BYTES))
    hello = Hello(
        library=f"aioseed {__version__}",
        actor_id=f"load-{index}",
        environments=traffic.envs_per_session,
        observation=observation_to_json(traffic.spec.observation),
        action=traffic.spec.action.to_json(),
        step_deadline_s=STEP_DEADLINE_S,
    )
    channel.send_nowait(hello.encode())
    welcome = await read_welcome(channel)
    message = _step(traffic, welcome.slots, welcome.epochs)
    return LoadSession(RoadLink(channel), message, traffic.action_bytes)


async def _echo(traffic: Traffic, url: str, transport: Transport | None, index: int) -> LoadSession:
    link: Link
    if url.startswith("ws:"):
        link = await AiohttpLink.open(url, MAX_MESSAGE_BYTES)
    elif url.startswith("grpc:"):
        link = await GrpcLink.open(url, GRPC_METHOD, MAX_MESSAGE_BYTES)
    elif url.startswith("tcp:"):
        link = await SocketLink.open(url, traffic.action_bytes)
    else:
        dialler = transport or transport_for(url)
        link = ChannelLink(await dialler.dial(url, DialOptions(max_message_bytes=MAX_MESSAGE_BYTES)))
    first = index * traffic.envs_per_session
    slots = range(first, first + traffic.envs_per_session)
    message = _step(traffic, slots, [1] * traffic.envs_per_session)
    return LoadSession(link, message, traffic.action_bytes)


async def _serve_standard_input() -> None:
    lines = asyncio.get_running_loop().run_in_executor
    opening = json.loads(await lines(None, sys.stdin.readline))
    if opening["tuned"] and opening["echo"].startswith("grpc:"):
        transport_for(opening["echo"])  # which sets the library up
    load = await Load.open(Traffic.from_json(opening["traffic"]), Addresses(opening["road"], opening["echo"]))
    try:
        say({"ready": True})
        while line := await lines(None, sys.stdin.readline):
            order = json.loads(line)
            turn = await load.turn(order["kind"], order["seconds"], order["messages_per_s"])
            say(turn._asdict())
    finally:
        await load.close()


def say(form: Mapping[str, object]) -> None:
    """Print one JSON object in a line of its own."""
    sys.stdout.write(json.dumps(form) + "\n")
    sys.stdout.flush()


def run_on_fast_loop(serving: Coroutine[object, object, None]) -> int:
    """Run a child's work on the loop that actors run on and return the exit code; what fails is said in its line."""
    try:
        uvloop = None if importlib.util.find_spec("uvloop") is None else importlib.import_module("uvloop")
        with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
            runner.run(serving)
    except AioseedError as error:
        say({"error": str(error)})
        return error.exit_code
    return 0


def main() -> int:
    """Serve standard input until it closes and return the exit code."""
    keep_large_blocks()  # as an actor does
    return run_on_fast_loop(_serve_standard_input())


if __name__ == "__main__":
    sys.exit(main())
