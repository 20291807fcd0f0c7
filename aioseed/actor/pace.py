"""What an actor says of itself now and then: how fast it is, and whether it waits for environments or for actions."""

from __future__ import annotations

from typing import NamedTuple

FIRST_S = 10.0
EVERY_S = 60.0
"""A terminal that says nothing for an hour could be that of an actor that hangs; a line a minute fills no log."""


class Done(NamedTuple):
    """Count what an actor did so far, over all sessions."""

    transitions: int = 0  # that were answered
    step_bytes: int = 0  # of the STEPs that were sent


class Pace:
    """Sample what the groups do, and put it into words now and then. Decisions only. Thread: the event loop's.

    The time begins with the first tick and goes on from one session to the next. Samples cost the hot path no clock.
    """

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._every_s = FIRST_S
        self._before = Done()
        self._samples = 0
        self._stepping = 0.0

    def tick(self, now_s: float, done: Done, *, stepping_share: float) -> str | None:
        """Return a sentence when it is time for one.

        Args:
            now_s: Time.
            done: So far.
            stepping_share: Share of the groups that step or reset at this moment.
        """
        if self._since_s is None:
            self._since_s = now_s
        self._samples += 1
        self._stepping += stepping_share
        passed_s = now_s - self._since_s
        if passed_s < self._every_s:
            return None
        steps, share = done.transitions - self._before.transitions, self._stepping / self._samples
        bytes_a_step = (done.step_bytes - self._before.step_bytes) / max(1, steps)
        self._since_s, self._every_s, self._before = now_s, EVERY_S, done
        self._samples, self._stepping = 0, 0.0
        return (
            f"{done.transitions:,} steps, {steps / passed_s:,.0f} a second of {bytes_a_step:,.0f} bytes each; the"
            f" environments step for {share:.0%} of the time and wait for actions for the rest"
        ).replace("%", " %")
