"""A whole learner in one thread: the rooms of a run, carried by executors that are part of the event loop.

Everything between a message and an update is the real thing: sessions, leases, batches, inference (with the tracer
agent), unrolls, ledger, training loop. Only the threads are replaced, the update (by a check of what it would train on)
and the disk.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from aioseed.chaos.invariants import Applied, Expectation, Unrolls, check_borders, check_ledger, check_restored, require
from aioseed.experience.assembler import UnrollAssembler
from aioseed.host.acting import BuiltAgent, acting_of, layout_of
from aioseed.host.lost import LostSteps
from aioseed.host.sink import RunSink
from aioseed.serving.config import ServingConfig
from aioseed.serving.handshake import Contract
from aioseed.serving.inference import ActRows, EngineOptions, InferenceEngine, action_table
from aioseed.serving.intake import ActionTable, ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.server import RunFacts, Server, Serving
from aioseed.serving.slots import SlotTable
from aioseed.serving.thread import Leased, Released
from aioseed.specs import Json
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Ledger
from aioseed.telemetry.returns import EpisodeTracker
from aioseed.testing.counting import ACTIONS, COUNTING_SPEC
from aioseed.testing.tracer import TracerConfig, mix, tracer_agent
from aioseed.training.config import CheckpointConfig, TrainingConfig
from aioseed.training.device import Placement
from aioseed.training.executor import InlineExecutor
from aioseed.training.inspection import Inspection
from aioseed.training.loop import TrainingLoop, TrainingPorts
from aioseed.training.optimizer import make_optimizer
from aioseed.training.progress import Progress, TrainingSummary
from aioseed.training.publish import PolicyBoard
from aioseed.training.store import Snapshot
from aioseed.training.trees import flatten_arrays, restore_arrays
from aioseed.training.update import Figures, TrainState, UpdateOutput, init_state
from aioseed.transport.channel import ListenOptions, Transport
from aioseed.types import (
    FIRST,
    ActColumns,
    BeginsState,
    EnvironmentMetric,
    Loan,
    Settled,
    StepColumns,
    UnrollBatch,
    UnrollColumns,
    UnrollSink,
)
from aioseed.wire.columns import ActionLayout, StepLayout

Answer: TypeAlias = Callable[[ClosedBatch, bytes, int], None]

RUN_SEED = 11
CAPACITY = 24
UNROLL_STEPS = 5
BATCH_UNROLLS = 4
QUEUE_BATCHES = 8
CHECKPOINT_EVERY_S = 10.0
METRICS = (EnvironmentMetric("steps", "sum"),)
CONTRACT = Contract(COUNTING_SPEC, None, METRICS, frozenset({"train", "evaluate"}))


class Laboratory:
    """Hold what all simulations share: the agent and the program that acts.

    Args:
        compiled: Act with the compiled program of a real run; else with the same formula in NumPy, which is much
            faster for a handful of rows.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        agent = tracer_agent(TracerConfig(), COUNTING_SPEC, _no_network)
        built = BuiltAgent(agent, COUNTING_SPEC)
        self.layout = layout_of(built, UNROLL_STEPS)
        self.device = jax.devices("cpu")[0]
        self.training = TrainingConfig(
            batch_unrolls=BATCH_UNROLLS, checkpoint=CheckpointConfig(every_s=CHECKPOINT_EVERY_S)
        )
        optimizer = make_optimizer(self.training, UNROLL_STEPS)
        self.state = init_state(agent, optimizer, jax.random.key(RUN_SEED), Placement((self.device,)))
        self.steps = StepLayout(COUNTING_SPEC.observation, len(METRICS))
        self._acting = acting_of(built, greedy="evaluating")
        self._compiled = compiled

    def engine(
        self, intake: Intake, actions: ActionTable, board: PolicyBoard, sink: UnrollSink, answer: Answer
    ) -> InferenceEngine:
        """Return an engine of its own state."""
        engine = InferenceEngine(
            self._acting,
            COUNTING_SPEC.action.array,
            self.steps,
            board,
            actions,
            sink,
            lambda slots, epochs: None,  # counts are finite
            answer,
            EngineOptions(CAPACITY, (CAPACITY,), RUN_SEED),
            self.device,
        )
        if self._compiled:
            engine.compile()
        else:
            engine.use({CAPACITY: _act})
        return engine


def _act(params: object, key: object, state: Any, rows: ActRows[np.ndarray]) -> Any:
    """Do what the compiled program of `InferenceEngine` does for the tracer agent."""
    table = state[0] if isinstance(state[0], np.ndarray) else np.array(state[0])
    first = (rows.flags & FIRST) != 0
    entering = np.where(first[:, None], np.uint32(0), table[rows.slot])
    low, high = entering[:, 0], entering[:, 1]
    lease = np.stack([rows.slot, rows.epoch_low[:, 0] ^ rows.epoch_low[:, 1]], axis=1)
    for word in (*lease.T, *rows.observation[0].T):
        low, high = mix(low, high, word)
    table[rows.slot] = after = np.stack([low, high], axis=1)
    return [table], (low % ACTIONS).astype(np.int32), [after, lease], [entering]


class Saved(NamedTuple):
    """Hold a checkpoint as it would lie on the disk."""

    arrays: dict[str, np.ndarray]
    state: str  # JSON
    accepted: int


class InlineInference:
    """Serve batches one after the other, each after a while (what `InferenceThread` is to a real run)."""

    def __init__(self, may_serve: Callable[[], bool], duration_s: Callable[[], float]) -> None:
        self.engine: InferenceEngine | None = None
        self._may_serve = may_serve
        self._duration_s = duration_s
        self._loop = asyncio.get_running_loop()
        self._queue: deque[ClosedBatch | Leased | Released] = deque()
        self._busy = False

    def submit(self, item: ClosedBatch | Leased | Released) -> None:
        """Queue one item."""
        self._queue.append(item)
        if not self._busy:
            self._busy = True
            self._loop.call_later(self._duration_s(), self._serve)

    def die(self) -> None:
        """Serve nothing any more."""
        self._may_serve = lambda: False

    def finish(self) -> None:
        """Serve what is queued, now."""
        while self._queue:
            self._handle(self._queue.popleft())

    def _serve(self) -> None:
        # A full queue of unrolls blocks the inference thread of a real run, and so delays actions.
        if self._queue and self._may_serve():
            self._handle(self._queue.popleft())
        self._busy = bool(self._queue)
        if self._busy:
            self._loop.call_later(self._duration_s(), self._serve)

    def _handle(self, item: ClosedBatch | Leased | Released) -> None:
        assert self.engine is not None
        self.engine.handle(item)


class CheckedSink:
    """Check rows on their way into the unrolls (an `UnrollSink` around the run's own)."""

    def __init__(self, sink: RunSink, applied: Applied) -> None:
        self._sink = sink
        self._applied = applied

    def append(self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState, loan: Loan) -> None:
        """Check and pass on."""
        self._applied.check(steps.slot[:count], steps.epoch[:count], steps.sequence[:count], steps.flags[:count])
        self._sink.append(steps, acts, count, begins_state, loan)

    def begin(self, slots: np.ndarray, *, evaluation: bool) -> None:
        """Pass on."""
        self._sink.begin(slots, evaluation=evaluation)

    def drop(self, slots: np.ndarray, reason: str, arrived: int = 0) -> None:
        """Pass on."""
        self._sink.drop(slots, reason, arrived)

    def has_room(self, slots: np.ndarray) -> bool:
        """Pass on."""
        return self._sink.has_room(slots)

    @property
    def batches_finished(self) -> int:
        """Pass on."""
        return self._sink.batches_finished


class SimulatedLearner:
    """Run one life of a learner, from a checkpoint or from nothing.

    Args:
        generation: Of this start; the epochs follow from it.
        saved: What it goes on from.
        applied: The check of rows; one for all lives, since epochs are ordered across them.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        config: ServingConfig,
        rng: random.Random,
        generation: int,
        saved: Saved | None,
        expectation: Expectation,
        applied: Applied,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._laboratory = laboratory
        self._rng = rng
        self.metrics = Metrics()
        self.applied = applied
        self.saved = saved
        self.training_stalls = False
        self.submitted: Callable[[], None] = lambda: None
        """Called with each batch that closes."""
        self.answered: Callable[[], None] = lambda: None
        """Called with each batch whose actions are there."""
        progress, state, self.ledger = self._restored(saved)
        self.unrolls = Unrolls(expectation)
        self._taken: UnrollBatch | None = None
        self.assembler = UnrollAssembler(
            laboratory.layout,
            max_environments=CAPACITY,
            batch_unrolls=BATCH_UNROLLS,
            queue_batches=QUEUE_BATCHES,
            ledger=self.ledger,
            clock=self._loop.time,
        )
        self.episodes = EpisodeTracker(CAPACITY, METRICS, window_episodes=100)
        board = PolicyBoard(lambda params: params, state.learner.params, progress.version)
        self.table = SlotTable(CAPACITY, generation)
        actions = action_table(CAPACITY, COUNTING_SPEC.action.array)
        self._inference = InlineInference(lambda: self.assembler.ready <= 1, lambda: 0.001 + 0.02 * rng.random() ** 4)
        limits = Limits(CAPACITY, config.max_batches_in_flight, config.batch_deadline_s)
        self.intake = Intake(
            laboratory.steps, ActionLayout(COUNTING_SPEC.action), self.table, actions, limits, self._submit
        )
        facts = RunFacts("simulation", "aioseed simulation", RUN_SEED, 0, 2**20)
        self.server = Server(config, facts, self.metrics)
        sink = CheckedSink(RunSink(self.episodes, self.assembler, lambda ended: None), applied)
        self._inference.engine = laboratory.engine(self.intake, actions, board, sink, self._answer)
        ports = TrainingPorts(self, board, self.ledger, self.metrics, self._save)
        self.training = TrainingLoop(
            self._update, state, ports, laboratory.training, progress=progress, clock=self._loop.time
        )
        self._executor: InlineExecutor[TrainingSummary] = InlineExecutor()
        self._executor.start(self.training)

    async def listen(self, transport: Transport, url: str) -> str:
        """Listen, and return the address with its real port."""
        self._listener = await transport.listen(url, self.server.handle, ListenOptions())
        return self._listener.url

    async def run(self, compile_s: float = 0.0) -> None:
        """Compile for a while, then serve and train until cancelled."""
        await asyncio.sleep(compile_s)
        serving = Serving(CONTRACT, self.table, self.intake, self._inference.submit)
        if self.saved is not None:
            serving = serving._replace(greeted=LostSteps(self.ledger).greeted)
        self.server.open(serving)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.server.watch())
            tasks.create_task(self._train())

    def die(self) -> None:
        """Stand for a process that was killed: what still runs of it, at the end of the simulation, does nothing."""
        self._inference.die()
        self.training_stalls = True

    async def end(self) -> None:
        """End the run in the order of a real one, and check that everything is accounted for.

        Raises:
            Violation: Something is not.
        """
        await self.server.drain(run_over=True, reason="the run is over")
        await self._listener.close()
        self.assembler.stop()
        self._inference.finish()
        while self._executor.step():
            pass
        self.assembler.audit()
        self.assembler.close()
        check_ledger(self.ledger.snapshot(), rest=True)

    # -- the source of training is the assembler, with a look at what it hands out (an `UnrollSource`)

    def take(self, timeout_s: float) -> UnrollBatch | None:
        """Return the next batch."""
        self._taken = self.assembler.take(timeout_s)
        return self._taken

    def settle(self, batch: UnrollBatch, finite: np.ndarray | None, priorities: np.ndarray | None) -> Settled:
        """Close the books on a batch."""
        return self.assembler.settle(batch, finite, priorities)

    def give_back(self, batch: UnrollBatch) -> None:
        """Return a batch."""
        self.assembler.give_back(batch)

    @property
    def ready(self) -> int:
        """Return the number of batches that wait."""
        return self.assembler.ready

    def _submit(self, batch: ClosedBatch) -> None:
        self._inference.submit(batch)
        self.submitted()

    def _answer(self, batch: ClosedBatch, actions: bytes, row_bytes: int) -> None:
        self.server.answer_from(batch, actions, row_bytes)
        self.answered()

    def _update(self, state: TrainState, columns: UnrollColumns) -> tuple[TrainState, UpdateOutput]:
        """Check a batch in place of learning from it."""
        assert self._taken is not None
        self.unrolls.check(self._taken)
        check_borders(columns.flags)
        figures = Figures((), np.zeros(0, np.float32))  # type: ignore[arg-type]
        inspection = Inspection(("total", "count"), (), (), np.zeros((1, 2), np.uint8))  # type: ignore[arg-type]
        return state, UpdateOutput(figures, np.ones(1, bool), (), inspection)  # type: ignore[arg-type]

    async def _train(self) -> None:
        while True:
            await asyncio.sleep(0.05 + 0.1 * self._rng.random())
            if not self.training_stalls:
                self._executor.step()
            check_ledger(self.ledger.snapshot())
            if self._rng.random() < 0.1:
                self.assembler.audit()

    def _save(self, snapshot: Snapshot) -> None:
        state = json.dumps(snapshot.state)
        self.saved = Saved(snapshot.arrays, state, self.ledger.snapshot().accepted)

    def _restored(self, saved: Saved | None) -> tuple[Progress, TrainState, Ledger]:
        template = self._laboratory.state
        if saved is None:
            return Progress(), template, Ledger()
        form: dict[str, Any] = json.loads(saved.state)
        progress = Progress.from_json(form["training"])
        restored = restore_arrays(template, saved.arrays)
        check_restored(saved.arrays, flatten_arrays(restored), form["training"], _json(progress))
        ledger = Ledger.from_json(form["ledger"])
        check_ledger(ledger.snapshot())
        accepted = ledger.snapshot().accepted
        require(accepted == saved.accepted, f"{saved.accepted} transitions were saved, {accepted} restored")
        return progress, jax.device_put(restored, self._laboratory.device), ledger


def _json(progress: Progress) -> Json:
    return progress.to_json()


def _no_network(*_: object) -> Any:
    raise AssertionError("the tracer agent has no network")
