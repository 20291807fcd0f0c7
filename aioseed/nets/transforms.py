"""Observation transforms: pure functions between the rows of an environment and the network, on the learner.

A *transform factory* is named by an entry point of the group ``aioseed.transforms`` and has the signature
``factory(observation, **options) -> Transform``. What a transform remembers of the rows before (a frame stack) is part
of the recurrent state; what it has learned of all rows (the statistics of a normaliser) is training state, which
`observe` alone changes, once an optimiser step. `aioseed.agents.transformed` puts transforms in front of an agent.

Letters: B rows of a batch or unrolls, T transitions of an unroll (it has T+1 rows).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, cast

import jax

from aioseed.lookup import did_you_mean
from aioseed.nets.network import PyTree
from aioseed.specs import ArraySpec, ObservationSpec, Tree, flatten, leaf_paths, unflatten

Observation: TypeAlias = "Tree[jax.Array]"
"""Arrays as an observation spec says; leaves [B, ...] or [T+1, B, ...]."""


class Transform(NamedTuple):
    """Bundle the pure functions of an observation transform.

    State obeys the rule of recurrent states: what enters a row is `initial_state` exactly where the row is first, else
    what the row before put out. `step` and `unroll` both apply it themselves, so that stepping through an unroll gives
    the same.
    """

    observation: ObservationSpec
    """What comes out."""
    init: Callable[[], PyTree]
    """() -> params, a tree of arrays; () for a transform that learns nothing."""
    initial_state: Callable[[], PyTree]
    """() -> state of one slot, without batch axis; () for a transform without memory."""
    step: Callable[[PyTree, PyTree, Observation, jax.Array], tuple[Observation, PyTree]]
    """(params, state [B, ...], observation [B, ...], first bool[B]) -> (observation, state)."""
    unroll: Callable[[PyTree, PyTree, Observation, jax.Array], tuple[Observation, PyTree]]
    """(params, state [B, ...] that entered row 0, observation [T+1, B, ...], first) -> (observation, last state)."""
    observe: Callable[[PyTree, PyTree, Observation, jax.Array, jax.Array], PyTree]
    """(params, state, observation, first, as for `unroll`, and fresh bool[T+1, B]) -> params.

    Rows that are not fresh were, or will be, seen as fresh in another unroll.
    """


TransformFactory: TypeAlias = Callable[[ObservationSpec], Transform]
"""Make a transform; with the options of the preset already bound."""


def stateless(observation: ObservationSpec, apply: Callable[[Observation], Observation]) -> Transform:
    """Return a transform without memory that learns nothing.

    Args:
        observation: What comes out.
        apply: observation with any leading axes -> observation.
    """

    def transform(
        params: PyTree, state: PyTree, observation: Observation, first: jax.Array
    ) -> tuple[Observation, PyTree]:
        return apply(observation), state

    return Transform(observation, lambda: (), lambda: (), transform, transform, learns_nothing)


def learns_nothing(
    params: PyTree, state: PyTree, observation: Observation, first: jax.Array, fresh: jax.Array
) -> PyTree:
    """Return `params` as they are; `Transform.observe` of a transform that has none."""
    del state, observation, first, fresh
    return params


def chain(observation: ObservationSpec, factories: Sequence[TransformFactory]) -> Transform:
    """Return transforms one after the other as one; params and state are tuples of theirs, in order.

    Args:
        observation: What goes into the first one.
        factories: Each makes a transform for what comes out of the one before.
    """
    made: list[Transform] = []
    for factory in factories:
        made.append(factory(made[-1].observation if made else observation))
    links = tuple(made)

    def through(
        name: str, params: PyTree, state: PyTree, observation: Observation, first: jax.Array
    ) -> tuple[Observation, PyTree]:
        left = []
        for link, own, entered in zip(links, params, state, strict=True):
            observation, after = getattr(link, name)(own, entered, observation, first)
            left.append(after)
        return observation, tuple(left)

    def observe(params: PyTree, state: PyTree, observation: Observation, first: jax.Array, fresh: jax.Array) -> PyTree:
        learned = []
        for link, own, entered in zip(links, params, state, strict=True):
            learned.append(link.observe(own, entered, observation, first, fresh))
            observation, _ = link.unroll(own, entered, observation, first)
        return tuple(learned)

    return Transform(
        links[-1].observation if links else observation,
        lambda: tuple(link.init() for link in links),
        lambda: tuple(link.initial_state() for link in links),
        partial(through, "step"),
        partial(through, "unroll"),
        observe,
    )


def transform_leaves(
    observation: ObservationSpec, only: Sequence[str], make: Callable[[ArraySpec], Transform]
) -> Transform:
    """Return a transform that treats leaves one by one; params and state are tuples of theirs, in the order of leaves.

    Args:
        observation: What goes in.
        only: Dotted paths of the leaves to treat, without the word ``observation``; empty for all of them.
        make: Makes the transform of one leaf.

    Raises:
        ValueError: `only` names a leaf that is not there.
    """
    names = [path.removeprefix("observation").removeprefix(".") for path in leaf_paths(observation)]
    for name in only:
        if name not in names:
            raise ValueError(f'only: there is no "{name}" in the observation{did_you_mean(name, names)}')
    specs: list[ArraySpec] = flatten(observation)
    chosen = [i for i, name in enumerate(names) if not only or name in only]
    made = {i: make(specs[i]) for i in chosen}

    def through(
        name: str, params: PyTree, state: PyTree, seen: Observation, first: jax.Array
    ) -> tuple[Observation, PyTree]:
        leaves: list[jax.Array] = flatten(seen)
        left = []
        for own, entered, (i, transform) in zip(params, state, made.items(), strict=True):
            leaves[i], after = getattr(transform, name)(own, entered, leaves[i], first)
            left.append(after)
        return unflatten(observation, leaves), tuple(left)

    def observe(params: PyTree, state: PyTree, seen: Observation, first: jax.Array, fresh: jax.Array) -> PyTree:
        leaves: list[jax.Array] = flatten(seen)
        each = zip(params, state, made.items(), strict=True)
        return tuple(transform.observe(own, entered, leaves[i], first, fresh) for own, entered, (i, transform) in each)

    specs_after: list[ObservationSpec] = [made[i].observation if i in made else spec for i, spec in enumerate(specs)]
    return Transform(
        _with_leaves(observation, specs_after),
        lambda: tuple(transform.init() for transform in made.values()),
        lambda: tuple(transform.initial_state() for transform in made.values()),
        partial(through, "step"),
        partial(through, "unroll"),
        observe,
    )


def _with_leaves(observation: ObservationSpec, leaves: list[ObservationSpec]) -> ObservationSpec:
    return cast("ObservationSpec", unflatten(observation, leaves))
