"""What is wrong with an update, in a sentence: numbers that are not finite, and learning that nobody means so.

An update finds out on the way what this needs. It is read of the first updates, and of those that are skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.agents.agent import PyTree
from aioseed.types import FIRST, UnrollColumns

FIRST_UPDATES = 10
"""Optimiser steps that are looked at for what nobody means so."""

_NONFINITE, _ZERO = 1, 2
_SHOWN = 3


@partial(jax.tree_util.register_dataclass, data_fields=["codes"], meta_fields=["numbers", "parameters", "state"])
@dataclass(frozen=True, slots=True)
class Inspection:
    """Say of each part of optimiser steps whether it is not finite (1), and of count and gradient whether zero (2)."""

    numbers: tuple[str, ...]  # that loss returned: the total, its metrics, the count
    parameters: tuple[str, ...]  # that the total was differentiated by
    state: tuple[str, ...]  # what a step would leave
    codes: jax.Array  # uint8[N], in this order; uint8[U, N] of several steps

    @classmethod
    def of(
        cls,
        total: jax.Array,
        metrics: Mapping[str, jax.Array],
        count: jax.Array,
        squares: Mapping[str, jax.Array],
        after: PyTree,
    ) -> Inspection:
        """Look at one step.

        Args:
            total: That loss returned.
            metrics: That loss returned.
            count: That loss returned.
            squares: Sums of the squares of the gradient, float32[] each, by the names of the parameters.
            after: All that the step would leave.
        """
        state = [(name, leaf) for name, leaf in named_leaves(after) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        before = [total, *metrics.values()]
        either = [count, *squares.values()]
        nonfinite = [~jnp.isfinite(leaf).all() for leaf in (*before, *either, *(leaf for _, leaf in state))]
        no = jnp.zeros((), bool)
        zero = [no] * len(before) + [leaf == 0 for leaf in either] + [no] * len(state)
        codes = _NONFINITE * jnp.stack(nonfinite) + _ZERO * jnp.stack(zero)
        names = ("total", *metrics, "count"), tuple(squares), tuple(name for name, _ in state)
        return cls(*names, codes.astype(jnp.uint8))

    def is_state_finite(self) -> jax.Array:
        """Say whether all that the one step would leave is finite, bool[]."""
        return ((self.codes[len(self.numbers) + len(self.parameters) :] & _NONFINITE) == 0).all()

    def said(self, step: int) -> str:
        """Say what was not finite in one of several steps, which was skipped."""
        bad = (np.asarray(self.codes)[step] & _NONFINITE) != 0
        numbers, gradient, state = np.split(bad, np.cumsum([len(self.numbers), len(self.parameters)]))
        if numbers[0]:
            metrics = _chosen(self.numbers[1:-1], numbers[1:-1])
            return "the loss is not finite" + (f", nor is {_listed(metrics)}" if metrics else "")
        if gradient.any():
            which = "" if gradient.all() else f" by {_listed(_chosen(self.parameters, gradient))}"
            return f"the loss is finite, but not its gradient{which}"
        if state.any():
            return f"the gradient is finite, but not what the step makes of {_listed(_chosen(self.state, state))}"
        return "the norm of the gradient is not finite"

    def zeros(self, steps: np.ndarray) -> np.ndarray:
        """Return bool[1 + G]: whether count and gradients were zero in all of some steps, bool[U]."""
        begin = len(self.numbers) - 1
        zero = np.asarray(self.codes)[steps, begin : begin + 1 + len(self.parameters)] & _ZERO
        return np.asarray(zero.all(axis=0))


class FirstUpdates:
    """Look at the first updates of a process for what no author of an agent means, and say it once.

    Thread: training.
    """

    def __init__(self) -> None:
        self._left = FIRST_UPDATES
        self._zero: np.ndarray | None = None  # bool[1 + G], count and gradients that were zero in all steps so far
        self._entered: list[np.ndarray] = []  # a state that entered an unroll within an episode
        self._compared = False  # with that of another unroll
        self._remembers = False

    @property
    def are_over(self) -> bool:
        """Say whether nothing is looked at any more."""
        return self._left <= 0

    def observe(self, columns: UnrollColumns, inspection: Inspection, finite: np.ndarray) -> list[str]:
        """Take what a call of the update learned from and what came of it; return sentences for the user."""
        if self.are_over or not finite.any():
            return []
        zero = inspection.zeros(finite)
        self._zero = zero if self._zero is None else self._zero & zero
        self._look_at_states(columns)
        self._left -= int(np.count_nonzero(finite))
        return _said(self._zero, inspection.parameters, self._compared and not self._remembers) if self.are_over else []

    def _look_at_states(self, columns: UnrollColumns) -> None:
        within = np.flatnonzero((columns.flags[0] & FIRST) == 0)
        if self._remembers or not within.size:
            return
        states = [leaf[within] for leaf in columns.initial_state]
        self._compared |= bool(states) and (within.size > 1 or bool(self._entered))
        self._entered = self._entered or [leaf[0].copy() for leaf in states]
        self._remembers = any((leaf != one).any() for leaf, one in zip(states, self._entered, strict=True))


def named_leaves(tree: PyTree) -> list[tuple[str, jax.Array]]:
    """Return the leaves of a tree with their paths, parts joined by ``/``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _said(zero: np.ndarray, parameters: Sequence[str], forgets: bool) -> list[str]:
    when = f"in each of the first {FIRST_UPDATES} updates"
    gradient, said = zero[1:], []
    if zero[0]:
        said.append(f"the count that loss returned was 0 {when}: nothing is averaged")
    if gradient.size and gradient.all():
        said.append(
            f"the gradient of the loss was zero {when}, and nothing is learned: does the total that loss returns "
            "depend on the parameters that it is given?"
        )
    elif gradient.any():
        said.append(
            f"the gradient of the loss by {_listed(_chosen(parameters, gradient))} was zero {when}, and nothing is "
            "learned there"
        )
    if forgets:
        said.append(
            f"the recurrent state was the same within all episodes {when}, and nothing is remembered: does act return "
            "the state after the rows?"
        )
    return said


def _chosen(names: Sequence[str], which: np.ndarray) -> list[str]:
    return [name for name, chosen in zip(names, which, strict=True) if chosen]


def _listed(names: Sequence[str]) -> str:
    if len(names) > _SHOWN + 1:
        return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
