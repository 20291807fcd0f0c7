"""Telling a hung environment from a dead channel and from a learner that has forgotten this actor, in ticks.

A channel may die in one direction alone. Then the learner's PINGs still arrive, and say nothing about ours: it is an
answer that is waited for. That may take longer than to hear anything, since the learner reads our PING only behind a
large STEP that is on a slow road.

Elapsed time is added up tick by tick and a tick counts at most twice its length. So a process that was stopped for an
hour (SIGSTOP, a closed laptop) finds neither its environments hung nor its channel dead when it wakes, and the hot path
reads no clock: hearing something sets a number to zero.
"""

from __future__ import annotations

from typing import NamedTuple

OPENING_PING_INTERVAL_S = 3.0
OPENING_PING_TIMEOUT_S = 7.0
ANSWER_PATIENCE = 3
"""How many times as long as for any message an actor waits for an answer. With the default times that is shorter than
a learner keeps the slots of an actor that it does not hear, so that the episodes go on."""


class Verdict(NamedTuple):
    """Say what a tick found."""

    ping: bool  # nothing was answered for a ping interval: ask
    dead: bool  # nothing at all was heard for that and the ping timeout
    unheard: bool  # something was, but no answer for a multiple of that
    forgotten: bool  # something was heard, but no environment was leased for as long
    hung: int | None  # a group whose work takes longer than the step deadline


class Watch:
    """Add up silence and work. Thread: the event loop's."""

    def __init__(self, groups: int, step_deadline_s: float, now_s: float) -> None:
        self.step_deadline_s = step_deadline_s
        self._working_s: list[float | None] = [None] * groups
        self._silent_s = 0.0
        self._unanswered_s = 0.0
        self._answers = 0
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

    def started(self, group: int) -> None:
        """Note that `group` began to work."""
        self._working_s[group] = 0.0

    def finished(self, group: int) -> None:
        """Note that `group` has done its work."""
        self._working_s[group] = None

    def tick(self, now_s: float, *, idle: bool, answers: int) -> Verdict:
        """Add the time since the last tick and say what it means.

        Args:
            now_s: Time.
            idle: Whether no environment is leased.
            answers: How many messages came so far that are no PING.
        """
        passed_s = min(now_s - self._last_s, 2 * self.tick_s)
        self._last_s = now_s
        hung = None
        for group, working_s in enumerate(self._working_s):
            if working_s is not None:
                self._working_s[group] = working_s + passed_s
                hung = group if working_s + passed_s > self.step_deadline_s else hung
        self._silent_s += passed_s
        self._unanswered_s += passed_s
        if answers != self._answers:
            self._answers, self._unanswered_s, self._asked = answers, 0.0, False
        ping = not self._asked and self._unanswered_s >= self._ping_interval_s
        self._asked = self._asked or ping
        self._idle_s = self._idle_s + passed_s if idle else 0.0
        patience_s = self._ping_interval_s + self._ping_timeout_s
        unheard = self._unanswered_s > ANSWER_PATIENCE * patience_s
        return Verdict(ping, self._silent_s > patience_s, unheard, self._idle_s > patience_s, hung)
