"""How often news of one kind is told, so that whoever causes it all the time fills neither a screen nor a disk."""

from __future__ import annotations


class Throttle:
    """Say of each kind of news whether it may be told now. Decisions only.

    Args:
        every_s: Seconds for one of a kind, on average.
        at_once: How many of a kind may come together where there were none for long.
    """

    def __init__(self, every_s: float = 1.0, at_once: int = 1) -> None:
        self._every_s = every_s
        self._ahead_s = (at_once - 1) * every_s
        self._due_s: dict[str, float] = {}  # when the next would come that keeps to the average
        self._untold: dict[str, int] = {}

    def ask(self, kind: str, now_s: float) -> int | None:
        """Return how many there were since the last that was told, this one with them; None to keep silent."""
        count = self._untold.get(kind, 0) + 1
        due_s = max(now_s, self._due_s.get(kind, now_s))
        if due_s - now_s > self._ahead_s:
            self._untold[kind] = count
            return None
        self._due_s[kind], self._untold[kind] = due_s + self._every_s, 0
        return count
