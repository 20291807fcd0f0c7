"""Measure replay beside cpprb, turn and turn about: inserts, samples with the copy of an unroll, priority updates.

Both hold the same unrolls (one entry an unroll, the same columns) and do the same: draw a batch by priority, copy it
out, change its priorities. What comes out of ours is time-major, as training takes it, and what comes out of cpprb
batch-major: its samples are measured as they are, and with turning them round. Both work in the calling thread alone,
and its processor time is what counts: other programs on the machine disturb it least. cpprb is no dependency; without
it only our own figures are measured.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple, Protocol, TypeVar

import numpy as np

from aioseed.experience.layout import UnrollBuffer, allocate_buffer, row_view
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.replay import Replay
from aioseed.specs import ArraySpec
from aioseed.types import UnrollLayout

ENTRIES = (10**4, 10**5, 10**6)
"""Numbers of unrolls at which priorities are changed."""
STEPS = 120
BATCH = 64
ROUNDS = 15
_CALLS = 50
Key = TypeVar("Key")
_OBSERVATION = ArraySpec("float32", (4,))


class Figures(NamedTuple):
    """Hold what one replay does in a second of processor time, each a median over rounds."""

    inserts_per_s: float  # unrolls of `STEPS` steps
    samples_per_s: float  # likewise, drawn and copied in the form that the replay has
    time_major_samples_per_s: float  # drawn and copied in the form that training takes
    updates_per_s: dict[int, float]  # priorities changed, by number of entries


class Subject(Protocol):
    """Be a replay that is measured; each call is about one batch."""

    def insert(self) -> object:
        """Insert a batch of unrolls."""

    def sample(self) -> object:
        """Draw a batch and copy it out."""

    def sample_time_major(self) -> object:
        """Draw a batch and copy it out with time as the first axis."""

    def update(self) -> object:
        """Change the priorities of a batch drawn beforehand."""


class Ours:
    """Measure `aioseed.experience.replay`."""

    def __init__(self, entries: int, steps: int) -> None:
        layout = UnrollLayout((_OBSERVATION,), ArraySpec("int32", ()), (), (), steps, 0)
        self._replay = Replay(layout, ReplayConfig(capacity_unrolls=entries), 0)
        self._source, self._target = allocate_buffer(layout, BATCH), allocate_buffer(layout, BATCH)
        self._priorities = _priorities(entries)
        _fill(self._replay, allocate_buffer(layout, 1000), self._priorities)
        newest = self._replay.blocks.next - 1
        self._numbers = _again([newest - places for places in _places(entries - entries // 16)])

    def insert(self) -> object:
        """Insert a batch of unrolls."""
        return self._replay.insert(self._source, next(self._priorities))

    def sample(self) -> object:
        """Draw a batch and copy it out."""
        drawn = self._replay.draw(BATCH)
        self._replay.blocks.copy_out(drawn.numbers, self._target)
        return drawn

    def sample_time_major(self) -> object:
        """Draw a batch and copy it out with time as the first axis."""
        return self.sample()

    def update(self) -> object:
        """Change the priorities of a batch drawn beforehand."""
        self._replay.update(next(self._numbers), next(self._priorities))
        return None


class Cpprb:
    """Measure cpprb's `PrioritizedReplayBuffer`."""

    def __init__(self, entries: int, steps: int) -> None:
        rows = steps + 1
        observation = np.zeros((BATCH, rows, *_OBSERVATION.shape), np.float32)
        number = np.zeros((BATCH, rows), np.int32)
        self._batch: dict[str, np.ndarray] = {
            "observation": observation,
            "reward": number.astype(np.float32),
            "flags": number.astype(np.uint8),
            "previous_action": number,
            "action": number,
            "policy_version": number,
        }
        self._time_major = {
            name: row_view(np.zeros_like(array.swapaxes(0, 1), order="C"), 2) for name, array in self._batch.items()
        }
        columns = {name: {"dtype": array.dtype, "shape": array.shape[1:]} for name, array in self._batch.items()}
        self._buffer = importlib.import_module("cpprb").PrioritizedReplayBuffer(entries, columns, alpha=0.9)
        self._priorities, self._places = _priorities(entries), _again(_places(entries))
        for _ in range(-(-entries // BATCH)):
            self._buffer.add(**self._batch, priorities=next(self._priorities))

    def insert(self) -> object:
        """Insert a batch of unrolls."""
        return self._buffer.add(**self._batch, priorities=next(self._priorities))

    def sample(self) -> object:
        """Draw a batch and copy it out."""
        return self._buffer.sample(BATCH, beta=0.6)

    def sample_time_major(self) -> object:
        """Draw a batch and copy it out with time as the first axis."""
        drawn = self._buffer.sample(BATCH, beta=0.6)
        for name, grid in self._time_major.items():
            grid[...] = row_view(drawn[name], 2).T
        return drawn

    def update(self) -> object:
        """Change the priorities of a batch drawn beforehand."""
        return self._buffer.update_priorities(next(self._places), next(self._priorities))


def measure(entries: tuple[int, ...] = ENTRIES, steps: int = STEPS, rounds: int = ROUNDS) -> dict[str, Figures]:
    """Return the figures of each replay by its name; `cpprb` is there if it is installed.

    Args:
        entries: Numbers of unrolls at which priorities are changed; inserts and samples are measured at the lowest.
        steps: Length of the unrolls that are inserted and sampled.
        rounds: Turns that each takes.
    """
    makers: dict[str, Callable[[int, int], Subject]] = {"aioseed": Ours}
    if find_spec("cpprb") is not None:
        makers["cpprb"] = Cpprb
    copied = {name: make(min(entries), steps) for name, make in makers.items()}
    inserts = _turns({name: subject.insert for name, subject in copied.items()}, rounds)
    samples = _turns({name: subject.sample for name, subject in copied.items()}, rounds)
    time_major = _turns({name: subject.sample_time_major for name, subject in copied.items()}, rounds)
    # All sizes take turns too: one after another, each would have met another moment of the machine.
    small = {(name, count): make(count, 1).update for count in entries for name, make in makers.items()}
    updates = _turns(small, rounds)
    return {
        name: Figures(
            inserts[name], samples[name], time_major[name], {count: updates[name, count] for count in entries}
        )
        for name in makers
    }


def measure_replay(entries: tuple[int, ...] = ENTRIES, rounds: int = ROUNDS) -> dict[str, object]:
    """Return the figures of `measure` and their ratios, as JSON."""
    found = measure(entries, rounds=rounds)
    ours, theirs = found["aioseed"], found.get("cpprb")
    return {
        "steps": STEPS,
        "batch": BATCH,
        "rounds": rounds,
        **{name: _rounded(figures) for name, figures in found.items()},
        "updates_lowest_to_highest": round(ours.updates_per_s[min(entries)] / ours.updates_per_s[max(entries)], 3),
        "share_of_cpprb": _shares(ours, theirs) if theirs is not None else "cpprb is not installed",
    }


def _rounded(figures: Figures) -> dict[str, object]:
    return {
        "inserts_per_s": round(figures.inserts_per_s),
        "samples_per_s": round(figures.samples_per_s),
        "time_major_samples_per_s": round(figures.time_major_samples_per_s),
        "updates_per_s": {str(count): round(rate) for count, rate in figures.updates_per_s.items()},
    }


def _shares(ours: Figures, theirs: Figures) -> dict[str, object]:
    return {
        "inserts": round(ours.inserts_per_s / theirs.inserts_per_s, 3),
        "samples": round(ours.samples_per_s / theirs.samples_per_s, 3),
        "time_major_samples": round(ours.time_major_samples_per_s / theirs.time_major_samples_per_s, 3),
        "updates": {
            str(count): round(rate / theirs.updates_per_s[count], 3) for count, rate in ours.updates_per_s.items()
        },
    }


def _turns(calls: dict[Key, Callable[[], object]], rounds: int) -> dict[Key, float]:
    """Return entries a second of each call, the median over rounds in which each has its turn."""
    rates: dict[Key, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began_s = time.thread_time()
            for _ in range(_CALLS):
                call()
            rates[name].append(BATCH * _CALLS / (time.thread_time() - began_s))
    return {name: median(found) for name, found in rates.items()}


def _fill(replay: Replay, source: UnrollBuffer, priorities: Iterator[np.ndarray]) -> None:
    many = np.resize(next(priorities), source.batch.count)
    while len(replay) < replay.blocks.places - replay.blocks.block_unrolls:
        replay.insert(source, many)


def _priorities(seed: int) -> Iterator[np.ndarray]:
    """Yield priorities of a batch for ever, from a few made beforehand: making them is not what is measured."""
    made = np.random.default_rng(seed).uniform(0.01, 2, (64, BATCH)).astype(np.float32)
    return _again(list(made))


def _places(entries: int) -> list[np.ndarray]:
    return list(np.random.default_rng(entries).integers(0, entries, (64, BATCH)))


def _again(arrays: list[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        yield from arrays
