"""Telling a hung environment from a dead channel and from a learner that has forgotten this actor, in ticks.

Elapsed time is added up tick by tick and a tick counts at most twice its length. So a process that was stopped for an
hour (SIGSTOP, a closed laptop) finds neither its environments hung nor its channel dead when it wakes, and the hot path
reads no clock: hearing something sets a number to zero.
"""

from __future__ import annotations

from typing import NamedTuple

OPENING_PING_INTERVAL_S = 3.0
OPENING_PING_TIMEOUT_S = 7.0


class Verdict(NamedTuple):
    """Say what a tick found."""

    ping: bool  # nothing was heard for a ping interval: ask
    dead: bool  # nor for the ping timeout after that
    forgotten: bool  # something was heard, but no environment was leased for as long
    hung: int | None  # a group whose work takes longer than the step deadline


class Watch:
    """Add up silence and work. Thread: the event loop's."""

    def __init__(self, groups: int, step_deadline_s: float, now_s: float) -> None:
        self.step_deadline_s = step_deadline_s
        self._working_s: list[float | None] = [None] * groups
        self._silent_s = 0.0
        self._idle_s = 0.0
        self._asked = False
        self._last_s = now_s
        self.limit_silence(OPENING_PING_INTERVAL_S, OPENING_PING_TIMEOUT_S)

    def limit_silence(self, ping_interval_s: float, ping_timeout_s: float) -> None:
        """Set when to ask and when to give up, as WELCOME says; before it, 3 s and 7 s."""
        self._ping_interval_s, self._ping_timeout_s = ping_interval_s, ping_timeout_s
        shortest = min(ping_interval_s, ping_timeout_s, self.step_deadline_s)
        self.tick_s = min(0.25, max(0.005, shortest / 4))

    def limit_step(self, step_deadline_s: float) -> None:
        """Tighten the step deadline to the learner's."""
        self.step_deadline_s = min(self.step_deadline_s, step_deadline_s)

    def heard(self) -> None:
        """Note that something was received."""
        self._silent_s = 0.0
        self._asked = False

    def started(self, group: int) -> None:
        """Note that `group` began to work."""
        self._working_s[group] = 0.0

    def finished(self, group: int) -> None:
        """Note that `group` has done its work."""
        self._working_s[group] = None

    def tick(self, now_s: float, *, idle: bool) -> Verdict:
        """Add the time since the last tick and say what it means; `idle` if no environment is leased."""
        passed_s = min(now_s - self._last_s, 2 * self.tick_s)
        self._last_s = now_s
        hung = None
        for group, working_s in enumerate(self._working_s):
            if working_s is not None:
                self._working_s[group] = working_s + passed_s
                hung = group if working_s + passed_s > self.step_deadline_s else hung
        self._silent_s += passed_s
        ping = not self._asked and self._silent_s >= self._ping_interval_s
        self._asked = self._asked or ping
        self._idle_s = self._idle_s + passed_s if idle else 0.0
        patience_s = self._ping_interval_s + self._ping_timeout_s
        return Verdict(ping, self._silent_s > patience_s, self._idle_s > patience_s, hung)
