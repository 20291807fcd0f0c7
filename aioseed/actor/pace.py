"""What an actor says of itself now and then: how fast it is, and whether it waits for environments or for actions."""

from __future__ import annotations

FIRST_S = 10.0
EVERY_S = 60.0
"""A terminal that says nothing for an hour could be that of an actor that hangs; a line a minute fills no log."""


class Pace:
    """Sample what the groups do, and put it into words now and then. Decisions only. Thread: the event loop's.

    The time begins with the first tick and goes on from one session to the next. Samples cost the hot path no clock.
    """

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._every_s = FIRST_S
        self._before = 0
        self._samples = 0
        self._working = 0.0

    def tick(self, now_s: float, *, working_share: float, transitions: int) -> str | None:
        """Return a sentence when it is time for one.

        Args:
            now_s: Time.
            working_share: Share of the groups that step or reset at this moment.
            transitions: How many were answered so far, over all sessions.
        """
        if self._since_s is None:
            self._since_s = now_s
        self._samples += 1
        self._working += working_share
        passed_s = now_s - self._since_s
        if passed_s < self._every_s:
            return None
        rate, share = (transitions - self._before) / passed_s, self._working / self._samples
        self._since_s, self._every_s, self._before = now_s, EVERY_S, transitions
        self._samples, self._working = 0, 0.0
        return (
            f"{transitions:,} steps, {rate:,.0f} a second; the environments step for {share:.0%} of the time"
            " and wait for actions for the rest"
        ).replace("%", " %")
