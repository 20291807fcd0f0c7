"""Whether to dial again, and when: full jitter, a short patience before the first welcome and a long one after it.

Full jitter spreads the actors that a restarting learner lost: M. Brooker, "Exponential Backoff And Jitter", AWS, 2015.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
HEALTHY_S = 30.0


class Backoff:
    """Draw the delays between attempts: the n-th is uniform in ``[0, min(5 s, 0.1 s * 2^n)]``.

    Pure given `random`, a source of uniform numbers in [0, 1).
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._attempt = 0

    def next_delay_s(self) -> float:
        """Return the next delay and count the attempt."""
        bound = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._attempt, 16))
        self._attempt += 1
        return self._random() * bound

    def session_lasted(self, duration_s: float) -> None:
        """Begin anew after a session that lasted at least 30 s."""
        if duration_s >= HEALTHY_S:
            self._attempt = 0


class Contact:
    """Decide how long an actor keeps asking: `wait_s` for its first welcome, `reconnect_s` after each session."""

    def __init__(self, wait_s: float, reconnect_s: float, backoff: Backoff, now_s: float) -> None:
        self._backoff = backoff
        self._reconnect_s = reconnect_s
        self._welcomed_at_s: float | None = None
        self.welcomed_once = False
        self.patience_s = wait_s
        self._give_up_at_s = now_s + wait_s

    def welcomed(self, now_s: float) -> None:
        """Note a WELCOME."""
        self.welcomed_once = True
        self._welcomed_at_s = now_s

    def lost(self, now_s: float) -> None:
        """Note that a channel has ended; the long patience begins if there was a session on it."""
        if self._welcomed_at_s is None:
            return
        self._backoff.session_lasted(now_s - self._welcomed_at_s)
        self._welcomed_at_s = None
        self.patience_s = self._reconnect_s
        self._give_up_at_s = now_s + self._reconnect_s

    def remaining_s(self, now_s: float) -> float:
        """Return the time that is left for asking, at least 0."""
        return max(0.0, self._give_up_at_s - now_s)

    def retry_delay_s(self, now_s: float) -> float | None:
        """Return how long to wait before the next attempt, or None to give up; the last is made at the very end."""
        remaining = self.remaining_s(now_s)
        return min(self._backoff.next_delay_s(), remaining) if remaining > 0 else None
