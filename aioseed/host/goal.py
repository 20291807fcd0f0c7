"""The end that a run reaches by itself: a mean return."""

from __future__ import annotations

from aioseed.host.config import StopConfig
from aioseed.telemetry.returns import EpisodeTracker


class Goal:
    """Watch the returns for the goal of a run.

    Training looks after each update, before it publishes: in lockstep mode inference rests at that moment, so that a
    run ends after the same update and the same step whatever the transport.

    Thread: training; `solved` may be read by any.
    """

    def __init__(self, episodes: EpisodeTracker, config: StopConfig) -> None:
        self._episodes = episodes
        self._config = config
        self.solved = False

    def reached(self) -> bool:
        """Return True from the moment on at which the goal was seen to be reached."""
        goal = self._config.return_mean
        if goal is not None and not self.solved:
            enough = self._episodes.window_count >= self._config.episodes
            self.solved = enough and self._episodes.return_mean >= goal
        return self.solved
