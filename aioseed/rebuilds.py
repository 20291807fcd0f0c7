"""How often an environment that fails may be built anew."""

from __future__ import annotations

import logging

import numpy as np

from aioseed.errors import EnvironmentFailed
from aioseed.lookup import sentence_of

_log = logging.getLogger(__name__)


class Rebuilds:
    """Count the failures of one environment over its life.

    Args:
        label: Names the environment in messages.
        limit: How many failures are mended.
    """

    def __init__(self, label: str, limit: int) -> None:
        self._label = label
        self._limit = limit
        self._failures = 0

    def spend(self, error: Exception) -> None:
        """Count a failure and log it.

        Raises:
            EnvironmentFailed: The limit is exceeded.
        """
        self._failures += 1
        if self._failures > self._limit:
            times = "" if self._failures == 1 else f" {self._failures} times, the last time"
            raise EnvironmentFailed(f"{self._label} failed{times}: {sentence_of(error)}") from error
        _log.warning(
            "%s failed and is built anew (%d of %d): %s", self._label, self._failures, self._limit, sentence_of(error)
        )

    def seed_after(self, seed: int | None) -> int | None:
        """Return the seed of the rebuilt environment: with the same one it would fail at the same place again."""
        if seed is None:
            return None
        return int(np.random.SeedSequence([seed, self._failures]).generate_state(1, np.uint32)[0] >> 1)


def close_quietly(environment: object, label: str) -> None:
    """Close an environment; what it raises is logged, for nothing can be done about it any more."""
    try:
        environment.close()  # type: ignore[attr-defined]  # a gym.Env or a VectorEnv
    except Exception as error:
        _log.warning("%s could not be closed: %s", label, sentence_of(error))


class NotFiniteError(ValueError):
    """Stand for the failure of an environment that returned an infinite number or no number.

    Args:
        what: Where it stood, as far as that is known.
    """

    def __init__(self, what: str = "a number") -> None:
        super().__init__(f"it returned {what} that is not finite")
