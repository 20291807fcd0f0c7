"""Simulate a run with faults: one learner and some actors in one thread and virtual time, all of it decided by a seed.

`simulate(seed)` plays one run: actors join, step and are disturbed at random moments by at least `faults` faults; then
all is made well again, everybody must step on, the run ends, and every transition must be accounted for. The checks of
`aioseed.chaos.invariants` run all along. Whatever goes wrong is raised with the seed, and the same seed does the same
again: the trace of a run is a hash of every turn and every fault.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from aioseed.chaos.actor import ENVIRONMENTS, SimulatedActor
from aioseed.chaos.invariants import Applied, Expectation, Violation, require
from aioseed.chaos.learner import Laboratory, SimulatedLearner
from aioseed.chaos.network import Connection, SimulatedNetwork, SimulatedTransport
from aioseed.errors import AioseedError
from aioseed.serving.config import ServingConfig
from aioseed.testing.seeded_loop import SeededLoop, party, run_seeded

URL = "simulated://learner"
ACTORS = 3
SETTLE_S = 150.0
"""Longest time after the last fault until everybody steps again: patience, grace and pauses of the actors."""


class SimulationFailed(Violation):
    """Report the seed of a run in which something did not hold."""

    def __init__(self, seed: int, message: str) -> None:
        super().__init__(f"seed {seed}: {message}")
        self.seed = seed


class Simulated(NamedTuple):
    """Report a run in which everything held."""

    seed: int
    trace: str
    faults: dict[str, int]
    sessions_resumed: int
    rows: int
    unrolls: int
    virtual_s: float


def simulate(laboratory: Laboratory, seed: int, *, faults: int = 20) -> Simulated:
    """Play the run of a seed.

    Raises:
        SimulationFailed: Something that must always hold did not.
    """
    try:
        world, trace = run_seeded(seed, _play(laboratory, seed, faults))
    except Exception as error:
        raise SimulationFailed(seed, _first(error)) from error
    return Simulated(seed, trace, dict(world.injected), world.resumed, world.applied.rows, world.unrolls, world.now_s)


async def _play(laboratory: Laboratory, seed: int, faults: int) -> World:
    world = World(laboratory, seed)
    await world.play(faults)
    return world


class World:
    """Hold one learner after the other, the actors and the network between them."""

    def __init__(self, laboratory: Laboratory, seed: int) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SeededLoop)
        self.loop = loop
        self.rng = random.Random(seed)  # noqa: S311 - a simulation, not a secret
        self.network = SimulatedNetwork(self.rng)
        self.injected: Counter[str] = Counter()
        self.applied = Applied()
        self.dead: list[asyncio.Task[None]] = []  # kept: a loop knows its tasks by weak references only
        self.resumed = self.unrolls = 0
        self.now_s = 0.0
        self._laboratory = laboratory
        self._expectation = Expectation(11)
        self._config = ServingConfig(
            max_environments=24, max_batch_rows=24, step_deadline_s=self.rng.choice([10.0, 30.0]), suspended_s=20.0,
            resume_grace_s=self.rng.choice([0.0, 5.0, 30.0]), ping_interval_s=2.0, ping_timeout_s=3.0,
        )  # fmt: skip
        self._generation = 0
        self._lost = 0  # transitions that dead learners had accepted after their last checkpoint
        self._failure: asyncio.Future[None] = loop.create_future()
        loop.set_exception_handler(self._on_exception)
        self._start_learner(None)
        self.actors = [SimulatedActor(index, URL, self.network, self.rng, self.fail) for index in range(ACTORS)]

    @property
    def learner_party(self) -> str:
        """Return the party of the learner's present life."""
        return f"learner-{self._generation}"

    def fail(self, error: BaseException) -> None:
        """End the simulation with an error."""
        if not self._failure.done():
            self._failure.set_exception(error)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.fail(context.get("exception") or RuntimeError(context["message"]))

    async def play(self, faults: int) -> None:
        """Disturb, make well, end, account."""
        try:
            while sum(self.injected.values()) < faults:
                await self._pass(self.rng.expovariate(1 / 2.5))
                self._disturb()
            await self._settle()
            await self._finish()
        finally:
            self.now_s = self.loop.time()
            self.loop.thaw_all()

    def _disturb(self) -> None:
        kinds: list[tuple[str, Callable[[], bool], int]] = [
            ("cut", self._cut, 4),
            ("lose_message", self._lose_message, 6),
            ("stall", self._stall, 4),
            ("slow_network", self._slow_network, 1),
            ("freeze_actor", self._freeze_actor, 3),
            ("kill_actor", self._kill_actor, 3),
            ("slow_step", self._slow_step, 2),
            ("freeze_learner", self._freeze_learner, 1),
            ("stall_training", self._stall_training, 1),
            ("restart_learner", self._restart_learner, 1),
        ]
        name, inject, _ = self.rng.choices(kinds, [weight for *_, weight in kinds])[0]
        if inject():
            self.injected[name] += 1
            self.loop.note("fault", name)

    # -- faults; each returns False where it found nothing to disturb

    def _a_connection(self) -> Connection | None:
        living = self.network.living
        return self.rng.choice(living) if living else None

    def _cut(self) -> bool:
        connection = self._a_connection()
        if connection is not None:
            connection.cut()
        return connection is not None

    def _lose_message(self) -> bool:
        """Break a connection at its n-th message from now: before it is delivered, or right behind it."""
        connection = self._a_connection()
        if connection is None:
            return False
        road = self.rng.choice([connection.there, connection.back])
        last, delivered = road.sent + self.rng.randint(1, 6), self.rng.random() < 0.5

        def at(number: int) -> bool:
            if number == last:
                pause_s = self.rng.random() * 0.1 if delivered else 0.0
                self.loop.call_later(pause_s, connection.cut)
            return number < last or (delivered and number == last)

        road.on_message = at
        return True

    def _stall(self) -> bool:
        """Let nothing arrive any more, in one direction or both; all of it arrives later, or never."""
        connection = self._a_connection()
        if connection is None:
            return False
        roads = self.rng.choice([[connection.there], [connection.back], [connection.there, connection.back]])
        for road in roads:
            road.stall()
            if self.rng.random() < 0.7:
                self.loop.call_later(self.rng.uniform(0.5, 25.0), road.release)
        return True

    def _slow_network(self) -> bool:
        self.network.slow_s = self.rng.uniform(0.2, 2.0)
        self.loop.call_later(self.rng.uniform(1.0, 8.0), setattr, self.network, "slow_s", 0.0)
        return True

    def _freeze_actor(self) -> bool:
        name = self.rng.choice(self.actors).name
        self.loop.freeze(name)
        self.loop.call_later(self.rng.choice([0.5, 4.0, 12.0, 50.0]), self._thaw, name)
        return True

    def _kill_actor(self) -> bool:
        return self.rng.choice(self.actors).kill(vanish=self.rng.random() < 0.4)

    def _slow_step(self) -> bool:
        self.rng.choice(self.actors).slow_s = self.rng.choice([3.0, 12.0, 40.0])
        return True

    def _freeze_learner(self) -> bool:
        name = self.learner_party
        self.loop.freeze(name)
        self.loop.call_later(self.rng.choice([1.0, 3.0, 7.0]), self._thaw, name)
        return True

    def _stall_training(self) -> bool:
        learner = self.learner
        learner.training_stalls = True
        self.loop.call_later(self.rng.uniform(1.0, 10.0), setattr, learner, "training_stalls", False)
        return True

    def _restart_learner(self) -> bool:
        """Kill the learner and start it from its last checkpoint."""
        learner = self.learner
        self.loop.freeze(self.learner_party)
        self.network.unplug(URL)
        vanish = self.rng.random() < 0.3
        for connection in self.network.living:
            if vanish:
                connection.vanish()
            else:
                connection.end_of(process_of_dialler=False)
        learner.die()
        self.dead.append(self._learning)
        kept = learner.saved.accepted if learner.saved is not None else 0
        self._lost += learner.ledger.snapshot().accepted - kept
        self._collect(learner)
        self._start_learner(learner)
        return True

    def _thaw(self, name: str) -> None:
        if name == self.learner_party or any(name == actor.name and actor.lives for actor in self.actors):
            self.loop.thaw(name)

    # -- the run around them

    def _start_learner(self, former: SimulatedLearner | None) -> None:
        self._generation += 1
        context = party(self.learner_party)
        saved = former.saved if former is not None else None
        self.learner = context.run(
            SimulatedLearner, self._laboratory, self._config, self.rng, self._generation, saved, self._expectation,
            self.applied,
        )  # fmt: skip
        transport = SimulatedTransport(self.network, self.learner_party)
        self._learning = context.run(
            self.loop.create_task, self._learn(self.learner, transport), name=self.learner_party, context=context
        )

    async def _learn(self, learner: SimulatedLearner, transport: SimulatedTransport) -> None:
        try:
            await learner.listen(transport, URL)
            await learner.run(self.rng.uniform(0.0, 5.0))
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self.fail(error)
            raise

    async def _pass(self, duration_s: float) -> None:
        """Let time pass; raise what goes wrong meanwhile."""
        await asyncio.wait([self._failure], timeout=duration_s)
        if self._failure.done():
            self._failure.result()

    async def _settle(self) -> None:
        """Make all well, and wait until every environment of every actor steps again."""
        self.network.slow_s = 0.0
        for name in [self.learner_party, *(actor.name for actor in self.actors)]:
            self._thaw(name)
        until_s = self.loop.time() + SETTLE_S
        began = self.applied.transitions
        wanted = ACTORS * ENVIRONMENTS
        while True:
            before = self._fresh()
            await self._pass(10.0)
            stepping = sum(_stepped(before.get(slot), after) for slot, after in self._fresh().items())
            leased = self.learner.table.leased
            if stepping >= wanted == leased and self.applied.transitions > began:
                return
            words = f"{stepping} of {wanted} environments step, {leased} slots are leased"
            require(self.loop.time() < until_s, f"{words} {SETTLE_S:g} s after all was made well")

    def _fresh(self) -> dict[int, tuple[int, int]]:
        """Return how far each slot that is leased has come: its epoch and the last sequence number."""
        table = self.learner.table
        return {
            slot: (int(table.epoch[slot]), int(table.last_sequence[slot]))
            for slot in (table.owner >= 0).nonzero()[0].tolist()
        }

    async def _finish(self) -> None:
        learner = self.learner
        for actor in self.actors:
            actor.comes_back = False
        ending = self.loop.create_task(learner.end(), context=party(self.learner_party))
        await ending
        self._learning.cancel()
        for actor in self.actors:
            async with asyncio.timeout(60.0):
                await actor.over.wait()
        self._collect(learner)
        lost = learner.ledger.snapshot().lost_after_checkpoint
        require(lost <= self._lost, f"{lost} transitions are said to be lost, {self._lost} were")

    def _collect(self, learner: SimulatedLearner) -> None:
        self.resumed += learner.metrics.counter("serving/resumed").value
        self.unrolls += learner.unrolls.unrolls


def _stepped(before: tuple[int, int] | None, after: tuple[int, int]) -> bool:
    """Say whether a slot stepped in one and the same lease; whoever only joined anew may have fallen silent since."""
    return before is not None and before[0] == after[0] and before[1] < after[1]


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AioseedError) and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
