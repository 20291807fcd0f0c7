"""An actor's process in a simulation: it steps counting environments, and can freeze, die and be started again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from aioseed.actor.run import ActorSummary, MakeEnvironments, run_actor
from aioseed.actor.session import ActorEvent
from aioseed.chaos.invariants import require
from aioseed.chaos.network import SimulatedNetwork, SimulatedTransport
from aioseed.errors import EnvironmentFailed
from aioseed.testing.counting import CountingEnvironment
from aioseed.testing.inline_worker import InlineWorker
from aioseed.testing.seeded_loop import SeededLoop, party

ENVIRONMENTS = 3
GROUPS = 2
STEP_S = 0.4


class SimulatedActor:
    """Run one life of an actor after the other.

    Args:
        index: Names it.
        url: Where its learner listens.
        network: The road there.
        rng: Of all that is drawn.
        fail: Called with an error that ends the simulation.
    """

    def __init__(
        self,
        index: int,
        url: str,
        network: SimulatedNetwork,
        rng: random.Random,
        fail: Callable[[BaseException], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SeededLoop)
        self.lives = False
        self.slow_s = 0.0  # what the next step takes beyond the usual
        self.comes_back = True
        """False from the moment on at which the learner ends for good: nobody starts an actor again."""
        self.over = asyncio.Event()
        self.answered_s: tuple[list[float], ...] = tuple([] for _ in range(GROUPS))
        """When each group was told what to do next, in this life and the former ones."""
        self._loop = loop
        self._index = index
        self._url = url
        self._network = network
        self._rng = rng
        self._fail = fail
        self._life = 0
        self._lives: list[asyncio.Task[None]] = []  # kept: a loop knows its tasks by weak references only
        self._start()

    @property
    def name(self) -> str:
        """Return the party of its present life."""
        return f"actor-{self._index}-{self._life}"

    def kill(self, vanish: bool) -> bool:
        """Die without a word, and come back after a while; with `vanish` not even the connection's end is told."""
        if not self.lives:
            return False
        self.lives = False
        self._loop.freeze(self.name)
        for connection in self._network.dialled_by(self.name):
            if vanish:
                connection.vanish()
            else:
                connection.end_of(process_of_dialler=True)
        self._loop.call_later(self._rng.uniform(0.1, 8.0), self._start)
        return True

    def _start(self) -> None:
        self._life += 1
        self.lives = True
        if self._rng.random() < 0.5:
            actor_id = f"actor-{self._index}"  # as a supervisor names it
        else:
            actor_id = self.name
        context = party(self.name)
        task = context.run(self._loop.create_task, self._run(actor_id), name=self.name, context=context)
        self._lives.append(task)

    async def _run(self, actor_id: str) -> None:
        jitter = random.Random(self._rng.random())  # noqa: S311
        try:
            while True:
                summary = await self._outlive(actor_id, jitter)
                if summary is not None or not self.comes_back:
                    break
                await asyncio.sleep(1.0)
            require(summary is None or summary.run_id == "simulation", "an actor ended in another run")
        except Exception as error:
            self._fail(error)
        else:
            self.over.set()

    async def _outlive(self, actor_id: str, jitter: random.Random) -> ActorSummary | None:
        """Act to the end of the run, or until an environment is too slow: then a supervisor starts the actor again."""
        try:
            return await self._act(actor_id, jitter)
        except EnvironmentFailed:
            return None

    def _act(self, actor_id: str, jitter: random.Random) -> asyncio.Future[ActorSummary]:
        def worker(index: int, count: int, make: MakeEnvironments) -> InlineWorker:
            return InlineWorker(index, count, make, lambda: self._step_s(index))

        acting = run_actor(
            self._url,
            CountingEnvironment,
            environments=ENVIRONMENTS,
            groups=GROUPS,
            actor_id=actor_id,
            transport=SimulatedTransport(self._network, self.name),
            wait_s=1e6,
            reconnect_s=1e6,
            step_deadline_s=20.0,
            compression="deflate" if self._index % 2 else "none",
            on_event=self._note,
            make_worker=worker,
            jitter=jitter.random,
        )
        return asyncio.ensure_future(acting)

    def _step_s(self, group: int) -> float:
        self.answered_s[group].append(self._loop.time())
        slow_s, self.slow_s = self.slow_s, 0.0
        return STEP_S * self._rng.uniform(0.5, 1.5) + slow_s

    def _note(self, event: ActorEvent) -> None:
        self._loop.note(self.name, event.kind)
