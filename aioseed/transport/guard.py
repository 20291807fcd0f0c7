"""Bounds on what an open channel may do: how fast it may send, and how long it may leave our messages unread.

A listener looks at all of its channels four times a second, so the usual path pays one addition a message. What is
decided here is synchronous and has no clock of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

TICK_S = 0.25


class Bucket:
    """Allow `rate` events a second on average and `burst` at once (a token bucket)."""

    __slots__ = ("_at_s", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at_s = now_s

    def take(self, amount: float, now_s: float) -> bool:
        """Take `amount`, below zero if need be, and say whether that was allowed."""
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate) - amount
        self._at_s = now_s
        return self._left >= 0.0


class Traffic(Protocol):
    """Be a channel as its listener's guard sees it."""

    @property
    def received_bytes(self) -> int:
        """Return the payload that was received so far."""

    @property
    def peer(self) -> str:
        """Return the address of the other side."""

    @property
    def backlog_bytes(self) -> int:
        """Return what was given to the channel and is not yet on its way."""

    @property
    def finished_writes(self) -> int:
        """Return how many writes have ended; always 0 where the backlog alone tells whether the peer reads."""

    def hold(self, held: bool) -> None:
        """Stop reading, or go on; the network pushes the peer back meanwhile."""

    def cut(self, reason: str) -> None:
        """End the channel as broken, at once."""


class Verdict(NamedTuple):
    """Say what to do with a channel."""

    hold: bool
    cut: bool


class _Watched:
    """Remember what was seen of one channel."""

    __slots__ = ("_backlog", "_bucket", "_finished_writes", "_moved_at_s", "_received", "held")

    def __init__(self, bytes_per_s: float, now_s: float) -> None:
        self._bucket = Bucket(bytes_per_s, bytes_per_s, now_s)
        self._received = 0
        self._backlog = 0
        self._finished_writes = 0
        self._moved_at_s = now_s
        self.held = False

    def look(self, channel: Traffic, stall_timeout_s: float, now_s: float) -> Verdict:
        received, backlog, finished = channel.received_bytes, channel.backlog_bytes, channel.finished_writes
        within = self._bucket.take(received - self._received, now_s)
        if not backlog or backlog < self._backlog or finished != self._finished_writes:
            self._moved_at_s = now_s
        self._received, self._backlog, self._finished_writes = received, backlog, finished
        return Verdict(not within, now_s - self._moved_at_s >= stall_timeout_s)


class Guard:
    """Look after the channels of one listener. Thread: the event loop's.

    Args:
        bytes_per_s: Rate above which a channel is read no further until its average is back at it.
        stall_timeout_s: Time after which a channel is cut whose backlog has not once become smaller, nor a write ended.
    """

    def __init__(self, bytes_per_s: float, stall_timeout_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._stall_timeout_s = stall_timeout_s
        self._channels: dict[Traffic, _Watched] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def add(self, channel: Traffic, now_s: float) -> None:
        """Begin to look after `channel`."""
        self._channels[channel] = _Watched(self._bytes_per_s, now_s)

    def remove(self, channel: Traffic) -> None:
        """Let a channel go. Idempotent."""
        self._channels.pop(channel, None)

    def tick(self, now_s: float) -> list[tuple[Traffic, str]]:
        """Look at every channel; hold, release or cut it. Return those that were held or cut, and which."""
        found: list[tuple[Traffic, str]] = []
        for channel, watched in list(self._channels.items()):
            verdict = watched.look(channel, self._stall_timeout_s, now_s)
            if verdict.cut:
                self.remove(channel)
                channel.cut("the peer does not read")
                found.append((channel, "slow_reader"))
                continue
            if verdict.hold != watched.held:
                watched.held = verdict.hold
                channel.hold(verdict.hold)
            if verdict.hold:
                found.append((channel, "rate_limited"))
        return found


async def watch(guard: Guard, report: Callable[[str, str], None]) -> None:
    """Look after the channels of `guard` until cancelled, and report those that were held or cut."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(TICK_S)
        for channel, what in guard.tick(loop.time()):
            report(what, channel.peer)
