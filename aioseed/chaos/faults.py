"""Which faults a trial injects, and in which order: decided by the seed alone."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """Name what is done."""

    ACTOR_KILL = "actor_kill"
    """Actors die by SIGKILL; others are started in their place."""
    ACTOR_FREEZE = "actor_freeze"
    """Actors are stopped by SIGSTOP for some seconds, and go on."""
    CONNECTIONS_CUT = "connections_cut"
    """Every connection is reset."""
    LEARNER_KILL = "learner_kill"
    """The learner dies by SIGKILL and is started again with ``--resume auto``."""
    LEARNER_STOP = "learner_stop"
    """The learner gets SIGTERM, must save and end in order, and is started again."""
    DISK_FULL = "disk_full"
    """The learner cannot write any file for longer than a checkpoint's interval."""


SECONDS = {Kind.ACTOR_FREEZE: (1.0, 12.0)}
"""How long a fault lasts, where that is not said by the trial."""


class Fault(NamedTuple):
    """Describe one fault."""

    kind: Kind
    victims: tuple[int, ...]  # indices of actors, for those kinds that have any
    seconds: float


def possible_kinds() -> tuple[Kind, ...]:
    """Return what can be done on this system."""
    return tuple(kind for kind in Kind if kind is not Kind.DISK_FULL or sys.platform == "linux")


def schedule(seed: int, actors: int, kinds: Sequence[Kind]) -> Iterator[Fault]:
    """Yield faults without end: every round has each kind once, in an order of its own."""
    choose = random.Random(seed)  # noqa: S311 - repeatable, not secret
    while True:
        for kind in choose.sample(list(kinds), len(kinds)):
            yield fault(kind, actors, choose)


def repeated(seed: int, actors: int, kind: Kind, count: int) -> Iterator[Fault]:
    """Yield faults of one kind until there were `count` of them, each victim counted."""
    choose = random.Random(seed)  # noqa: S311 - repeatable, not secret
    left = count
    while left > 0:
        one = fault(kind, actors, choose)
        one = one._replace(victims=one.victims[:left])
        left -= len(one.victims) or 1
        yield one


def fault(kind: Kind, actors: int, choose: random.Random) -> Fault:
    """Return a fault of `kind`; at least one actor stays untouched where there are two."""
    victims: tuple[int, ...] = ()
    if kind in (Kind.ACTOR_KILL, Kind.ACTOR_FREEZE):
        victims = tuple(choose.sample(range(actors), choose.randint(1, max(1, actors - 1))))
    return Fault(kind, victims, round(choose.uniform(*SECONDS.get(kind, (0.0, 0.0))), 2))
