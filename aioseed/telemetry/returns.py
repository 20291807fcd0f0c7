"""Episodes as the learner sees them: returns, lengths and folded metrics, from the rows that arrive.

Actors report no episode results; the learner adds raw rewards up itself, so that the figures are of the very steps that
were accepted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

from aioseed.types import FINAL, FIRST, EnvironmentMetric, Episodes, StepColumns

_ONE_STEP = np.array(1, np.int32)  # to NumPy, arrays without axes are cheaper than numbers, which it makes some of


class EpisodeTracker:
    """Follow the running episode of every slot.

    An episode ends at a final row, or at a first row that follows a row which was not final: it counts as truncated
    there. An episode without a transition is none. Metrics are folded from the first row on, whose value counts too.

    Thread: one writer; the properties may be read by any.
    """

    def __init__(
        self, max_environments: int, metrics: Sequence[EnvironmentMetric] = (), *, window_episodes: int = 100
    ) -> None:
        slots = max_environments + 1
        self._numbers = np.arange(slots, dtype=np.intp)
        self._return = np.zeros(slots, np.float64)
        self._length_steps = np.zeros(slots, np.int32)  # 0: no transition since the last episode ended
        self._metrics = np.zeros((len(metrics), slots), np.float64)
        self._folds = tuple(metric.fold for metric in metrics)
        self._metric_names = tuple(metric.name for metric in metrics)
        self._evaluation = np.zeros(slots, np.bool_)
        self._window: deque[float] = deque(maxlen=window_episodes)
        self._metric_window: deque[list[float]] = deque(maxlen=window_episodes)
        self._metric_means: dict[str, float] = {}
        self._return_mean = math.nan
        self._evaluation_window: deque[float] = deque(maxlen=window_episodes)
        self._evaluation_return_mean = math.nan
        self._episodes = 0
        self._none = self._report(np.zeros(0, np.intp))

    @property
    def return_mean(self) -> float:
        """Return the mean return of the last `window_episodes` training episodes (fewer at first, NaN before any)."""
        return self._return_mean

    @property
    def metric_means(self) -> dict[str, float]:
        """Return the mean of each metric, by name, over the same episodes; empty before the first."""
        return self._metric_means

    @property
    def evaluation_return_mean(self) -> float:
        """Return the same of episodes of the role evaluate."""
        return self._evaluation_return_mean

    @property
    def window_count(self) -> int:
        """Return how many episodes `return_mean` is over."""
        return len(self._window)

    @property
    def episodes(self) -> int:
        """Return the number of training episodes that ended."""
        return self._episodes

    def longest_steps(self, slots: np.ndarray) -> int:
        """Return the steps so far of the longest episode that goes on in `slots`, a mask of them; 0 without any."""
        return int(self._length_steps[slots].max(initial=0))

    def begin(self, slots: np.ndarray, *, evaluation: bool) -> None:
        """Note that `slots` are leased anew: an episode that the old lease left unfinished is none.

        Episodes of evaluation slots stay out of `return_mean`; they have a mean of their own.
        """
        self._length_steps[slots] = 0
        self._evaluation[slots] = evaluation

    def append(self, steps: StepColumns, count: int) -> Episodes:
        """Take the first `count` rows, each slot at most once, and return the episodes that ended with them."""
        slots = steps.slot[:count].astype(np.intp)
        marked = np.flatnonzero(steps.flags[:count])
        if not marked.size:  # the rule: what begins or ends is a few rows of a batch, if any
            self._add(slots, steps, count)
            return self._none
        flags, of_marked = steps.flags[marked], slots[marked]
        first = (flags & FIRST) != 0
        begun = of_marked[first]
        cut = begun[self._length_steps[begun] > 0]
        ended = [self._report(cut)] if cut.size else []
        self._add(slots, steps, count)
        self._begin(begun, steps.metrics[marked[first]])
        final = of_marked[((flags & FINAL) != 0) & ~first]
        if final.size:
            ended.append(self._report(final))
            self._length_steps[final] = 0
        if not ended:
            return self._none
        episodes = _concatenate(ended)
        self._account(episodes)
        return episodes

    def _add(self, slots: np.ndarray, steps: StepColumns, count: int) -> None:
        index = self._index(slots)
        self._return[index] += steps.reward[:count]
        self._length_steps[index] += _ONE_STEP
        for fold, running, value in zip(self._folds, self._metrics, steps.metrics[:count].T, strict=True):
            if fold == "last":
                running[index] = value
            else:
                before = running[index]
                running[index] = before + value if fold == "sum" else np.maximum(before, value)

    def _index(self, slots: np.ndarray) -> slice | np.ndarray:
        """Return slots as a slice where they are neighbours in ascending order: NumPy adds to one ten times as fast."""
        if not slots.size:
            return slots
        first, last = int(slots[0]), int(slots[-1])
        if last - first != slots.size - 1 or slots.tobytes() != self._numbers[first : last + 1].tobytes():
            return slots
        return slice(first, last + 1)

    def _begin(self, slots: np.ndarray, metrics: np.ndarray) -> None:
        """Begin episodes: a first row's reward belongs to none, and its metrics are the first to be folded."""
        self._return[slots] = 0.0
        self._length_steps[slots] = 0
        self._metrics[:, slots] = metrics.T

    def _report(self, slots: np.ndarray) -> Episodes:
        return Episodes(
            slot=slots.astype(np.uint32),
            episode_return=self._return[slots].astype(np.float32),
            length_steps=self._length_steps[slots],
            metrics=self._metrics[:, slots].T.astype(np.float32),
            evaluation=self._evaluation[slots],
        )

    def _account(self, episodes: Episodes) -> None:
        training = episodes.episode_return[~episodes.evaluation]
        if training.size:
            self._episodes += training.size
            self._window.extend(training.tolist())
            self._return_mean = math.fsum(self._window) / len(self._window)
            self._account_metrics(episodes.metrics[~episodes.evaluation])
        if training.size < episodes.episode_return.size:
            self._evaluation_window.extend(episodes.episode_return[episodes.evaluation].tolist())
            self._evaluation_return_mean = math.fsum(self._evaluation_window) / len(self._evaluation_window)

    def _account_metrics(self, metrics: np.ndarray) -> None:
        if self._metric_names:
            self._metric_window.extend(metrics.tolist())
            means = np.mean(self._metric_window, axis=0).tolist()
            # One assignment: another thread sees the means before or after, never half of them.
            self._metric_means = dict(zip(self._metric_names, means, strict=True))


def _concatenate(parts: Sequence[Episodes]) -> Episodes:
    if len(parts) == 1:
        return parts[0]
    return Episodes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
