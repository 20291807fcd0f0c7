"""Move large messages over the serving road and over three echoes beside it, turn and turn about.

The echoes are the bare library with the allocator as the system leaves it, the same with the allocator as aioseed's
programs set it (so that the setting's own effect is seen), and a bare socket of the event loop, below which nothing can
go in Python. Each has a server and a load of its own, since the setting is one of the whole process.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Literal

import numpy as np

from aioseed.bench.processes import EchoProcesses
from aioseed.bench.serving import MIN_ROUNDS, ROUND_S, Contest
from aioseed.bench.traffic import Traffic, Turn

PEERS: dict[str, tuple[Literal["websocket", "socket"], bool]] = {
    "untuned_echo": ("websocket", False),
    "tuned_echo": ("websocket", True),
    "socket": ("socket", True),
}
"""What is echoed over, and whether the processes are set up as aioseed's are."""


async def measure_messages(traffic: Traffic, seconds: float) -> dict[str, object]:
    """Measure for `seconds` seconds of the road, and as long of each peer. Safe to cancel.

    Raises:
        AioseedError: A process failed, or a step was not accounted for.
    """
    rounds = max(MIN_ROUNDS, round(seconds / ROUND_S))
    rates: dict[str, list[float]] = {name: [] for name in ("road", *PEERS)}
    async with AsyncExitStack() as cleanup:
        peers = {
            name: await cleanup.enter_async_context(EchoProcesses.open(traffic, over, tuned=tuned))
            for name, (over, tuned) in PEERS.items()
        }
        contest = await cleanup.enter_async_context(Contest.open(traffic))
        await contest.warm_up()
        for _ in range(rounds):
            for name, peer in peers.items():
                rates[name].append(_bytes_per_s(traffic, (await peer.turn(seconds / rounds)).turn))
            rates["road"].append(_bytes_per_s(traffic, await contest.road_turn(seconds / rounds)))
    return {**traffic._asdict(), "message_bytes": traffic.step_bytes, "rounds": rounds, **figures(rates)}


def figures(rates: Mapping[str, list[float]]) -> dict[str, object]:
    """Return medians in bytes a second, and how many times each peer's the road's are, round by round.

    Args:
        rates: For ``road`` and each peer one rate a round, those of a round at the same place.
    """
    medians = {f"{name}_bytes_per_s": round(float(np.median(values))) for name, values in rates.items()}
    road = np.array(rates["road"])
    times = {f"times_{name}": round(float(np.median(road / np.array(rates[name]))), 4) for name in PEERS}
    allocator = np.median(np.array(rates["tuned_echo"]) / np.array(rates["untuned_echo"]))
    return {**medians, **times, "allocator_times": round(float(allocator), 4)}


def _bytes_per_s(traffic: Traffic, turn: Turn) -> float:
    return turn.messages_per_s * traffic.step_bytes
