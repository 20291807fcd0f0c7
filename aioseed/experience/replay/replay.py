"""Replay: insert finished unrolls, draw them by priority or evenly, and change priorities. Thread: training alone.

Whoever was drawn is named by an insertion number, so a new priority for an unroll that has gone meanwhile finds nobody:
numbers are never used again, and the oldest one held says which have gone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from aioseed.experience.copies import Copier
from aioseed.experience.layout import UnrollBuffer
from aioseed.experience.replay.blocks import BLOCKS, Blocks
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.saving import Pins
from aioseed.experience.replay.sum_tree import SumTree
from aioseed.specs import Json
from aioseed.types import UnrollLayout

MIN_PRIORITY = 1e-6
"""What a smaller priority is taken for: no unroll may become impossible to draw."""
MAX_PRIORITY = 1e18
"""What no error is above whose square is a float32, with room for sums: what is, nothing can be learned from."""
_LOWEST = np.array(MIN_PRIORITY)
_FIRST_WEIGHT = 1.0  # p_1 of Schaul et al. 2016, algorithm 1: beside the errors that follow, not far below them
SPARE_BLOCKS = 3
"""Blocks beyond the capacity, where blocks that have gone may still be read."""
SPARE_SHARE = SPARE_BLOCKS / BLOCKS
"""The same, as a share of the capacity."""


class Drawn(NamedTuple):
    """Name drawn unrolls and say how likely they were."""

    numbers: np.ndarray  # int64[B]
    importance: np.ndarray  # float32[B], at most 1
    weights: np.ndarray  # float64[B], priorities raised to the exponent; 1 where drawing is even


class Replay:
    """Hold the newest unrolls of a run."""

    def __init__(
        self,
        layout: UnrollLayout,
        config: ReplayConfig,
        seed: int,
        copier: Copier | None = None,
        *,
        is_saved: bool = False,
    ) -> None:
        """Begin empty.

        Args:
            layout: Shape of the unrolls.
            config: The section `replay`.
            seed: Of the drawing.
            copier: Shares large copies out.
            is_saved: Have memory for blocks that go while a checkpoint still needs them.
        """
        self.blocks = Blocks(layout, config.capacity_unrolls, SPARE_BLOCKS if is_saved else 0, copier)
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.evicted = 0
        self.evicted_unseen = 0  # of these, never drawn
        self._prioritized = config.sampling == "prioritized"
        self._priority_exponent = np.array(config.priority_exponent, np.float64)
        self._importance_exponent = np.array(config.importance_exponent, np.float64)
        self._all_places = np.array(self.blocks.places)
        self._tree = SumTree(self.blocks.places)
        self._tree.highest = _FIRST_WEIGHT
        self._draws = np.zeros(self.blocks.places, np.int64)
        self._gone: list[int] = []  # physical blocks that may not be used again yet
        self.pins = Pins()

    def __len__(self) -> int:
        return self.blocks.size

    def insert(self, source: UnrollBuffer, priorities: np.ndarray | None) -> int:
        """Insert all unrolls of `source`; return how many environment transitions went with the oldest ones.

        Args:
            source: Finished unrolls.
            priorities: float32[B]; None gives each the highest that was ever seen, and at least 1. One that is not
                finite or above `MAX_PRIORITY` counts as the lowest.
        """
        done, gone = 0, 0
        while done < source.batch.count:
            room = self.blocks.room()
            if not room:
                gone += self._open_block()
                room = self.blocks.block_unrolls
            count = min(room, source.batch.count - done)
            numbers = self.blocks.write(source, done, count)
            places = numbers % self.blocks.places
            self._draws[places] = 0
            weights = (
                np.full(count, self._tree.highest)
                if priorities is None
                else self._weight(_sound(priorities[done:][:count]))
            )
            self._tree.set(places, weights)
            done += count
        return gone

    def draw(self, count: int, batches: int = 1) -> Drawn:
        """Draw `count` unrolls with replacement, independent of one another.

        Args:
            count: How many.
            batches: Optimiser steps that share them evenly, in order: the highest importance of each one's is 1.
        """
        blocks = self.blocks
        if not self._prioritized:
            numbers = self.generator.integers(blocks.oldest, blocks.next, count)
            self._draws[numbers % blocks.places] += 1
            return Drawn(numbers, np.ones(count, np.float32), np.ones(count))
        places = self._tree.find(self.generator.random(count))
        newest = blocks.next - 1
        numbers = newest - (newest - places) % self._all_places
        weights = self._tree.get(places)
        self._draws[places] += 1
        # (1 / (N p))^beta over the highest of the batch (Schaul et al. 2016, arXiv:1511.05952, section 3.4): the sum of
        # all weights and N cancel out.
        shared = weights.reshape(batches, -1)
        lowest = np.minimum.reduce(shared, axis=1, keepdims=True)
        importance = (lowest / shared).reshape(-1) ** self._importance_exponent
        return Drawn(numbers, importance.astype(np.float32), weights)

    def priorities_of(self, drawn: Drawn) -> np.ndarray:
        """Return float64[B], the priorities with which unrolls were drawn; 1 where drawing is even."""
        return drawn.weights ** (1 / self._priority_exponent) if self._priority_exponent else drawn.weights

    def update(self, numbers: np.ndarray, priorities: np.ndarray) -> None:
        """Give unrolls new priorities; those that have gone and values that are not finite are passed over."""
        if not len(numbers):
            return
        # Nearly always all are kept, which two calls tell: one that is not finite makes the product so.
        if numbers[numbers.argmin()] < self.blocks.oldest or not math.isfinite(priorities.dot(priorities)):
            kept = (numbers >= self.blocks.oldest) & np.isfinite(priorities)
            numbers, priorities = numbers[kept], priorities[kept]
        self._tree.set(numbers % self._all_places, self._weight(priorities))

    def demote(self, numbers: np.ndarray) -> None:
        """Give unrolls the lowest priority; those that have gone are passed over."""
        self.update(numbers, np.zeros(len(numbers)))

    def priorities(self) -> np.ndarray:
        """Return the weights of all unrolls held, oldest first: priorities raised to the exponent."""
        return self._tree.get(self._places())

    def transitions(self) -> int:
        """Return how many environment transitions belong to what is held (for the audit of the ledger)."""
        return self.blocks.transitions(np.arange(self.blocks.oldest, self.blocks.next))

    @property
    def unseen_share(self) -> float:
        """Return the share of unrolls that went without ever being drawn."""
        return self.evicted_unseen / self.evicted if self.evicted else 0.0

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of what changes: weights and numbers of draws, oldest unroll first."""
        places = self._places()
        highest = np.array([self._tree.highest])
        return {"weights": self._tree.get(places), "draws": self._draws[places], "highest": highest}

    @property
    def priority_exponent(self) -> float:
        """Return the power of a priority that makes its weight."""
        return float(self._priority_exponent)

    def restore_state(
        self, weights: np.ndarray, draws: np.ndarray, highest: np.ndarray, exponent: float | None
    ) -> None:
        """Take over what `state` returned, once the same unrolls are held again.

        Args:
            weights, draws, highest: From `state`.
            exponent: The power that made these weights; None where that is not known, and taken to be the same. Of 0
                nothing of the priorities is left: those weights stay 1.

        Raises:
            ValueError: They are of another number, or no weights.
        """
        places = self._places()
        if weights.shape != places.shape or draws.shape != places.shape:
            raise ValueError(f"{len(weights)} weights were saved for {len(places)} unrolls")
        if exponent:
            power = self.priority_exponent / exponent
            weights, highest = weights**power, highest**power
        self._tree.set(places, weights)
        self._tree.highest = float(highest[0])
        self._draws[places] = draws

    def generator_state(self) -> dict[str, Json]:
        """Return the state of the random generator, as JSON."""
        state: dict[str, Json] = dict(self.generator.bit_generator.state)
        return state

    def restore_generator(self, state: Json) -> None:
        """Take over what `generator_state` returned.

        Raises:
            ValueError, TypeError, KeyError: It is of another form.
        """
        if not isinstance(state, dict):
            raise TypeError("the state of the generator is no object")
        self.generator.bit_generator.state = state

    def _open_block(self) -> int:
        transitions = 0
        if self.blocks.must_evict():
            numbers, physical = self.blocks.evict()
            named = np.arange(numbers.start, numbers.stop)
            places = named % self.blocks.places
            transitions = self.blocks.transitions(named)
            self._tree.set(places, np.zeros(len(named)))
            self.evicted += len(named)
            self.evicted_unseen += int(np.count_nonzero(self._draws[places] == 0))
            self._gone.append(physical)
        self._free_gone()
        if not self.blocks.can_open:
            self.pins.cut_short()
            self._free_gone()
        self.blocks.open()
        return transitions

    def _free_gone(self) -> None:
        for physical in [block for block in self._gone if self.pins.may_reuse(block)]:
            self._gone.remove(physical)
            self.blocks.free(physical)

    def _weight(self, priorities: np.ndarray) -> np.ndarray:
        weights: np.ndarray = np.maximum(priorities, _LOWEST) ** self._priority_exponent
        return weights

    def _places(self) -> np.ndarray:
        return np.arange(self.blocks.oldest, self.blocks.next) % self.blocks.places


def _sound(priorities: np.ndarray) -> np.ndarray:
    return np.where(priorities <= MAX_PRIORITY, priorities, 0.0)
