"""The learner's complete serving road with a policy that costs nothing.

Real are: the listener, sessions, leases, intake, the closing rule, the inference thread, the action table, unrolls, the
ledger and the bounded queue. Made up are: the actions, which are zeros, and training, which gives every batch back at
once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from aioseed import __version__
from aioseed.bench.traffic import MAX_MESSAGE_BYTES, Traffic
from aioseed.errors import AioseedError
from aioseed.experience.assembler import UnrollAssembler
from aioseed.serving.config import ServingConfig
from aioseed.serving.handshake import Contract
from aioseed.serving.inference import action_table
from aioseed.serving.intake import ActionTable, ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.server import RunFacts, Server, Serving
from aioseed.serving.slots import SlotTable
from aioseed.serving.thread import InferenceThread, Item, Leased
from aioseed.specs import spec_leaves
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Ledger
from aioseed.transport.channel import Listener, ListenOptions, Transport
from aioseed.types import ActColumns, UnrollLayout, UnrollSink

UNROLL_STEPS = 32
MAX_BATCH_UNROLLS = 256
QUEUE_BATCHES = 2
MAX_QUEUE_BYTES = 2**29
MAX_BATCH_ROWS = 4096
_STOP_S = 10.0
_REST_S = 3600.0
"""Sessions rest while it is the echo's turn, which no deadline may take for silence."""


class FreeEngine:
    """Serve closed batches with zeros: all that inference does but for the policy.

    Thread: the inference thread, or the event loop in its place.
    """

    def __init__(self, actions: ActionTable, sink: UnrollSink, server: Server) -> None:
        self.answering_s = 0.0
        self._actions = actions
        self._sink = sink
        self._answer = server.answer_from
        self._zeros = np.zeros_like(actions.action)
        self._row_bytes = actions.action[:1].nbytes

    def handle(self, item: Item, *, more: bool = False) -> None:
        """Do what one item of the queue asks for."""
        if isinstance(item, ClosedBatch):
            self._serve(item)
        elif isinstance(item, Leased):
            self._sink.begin(item.slots, evaluation=item.evaluation)
        else:
            self._sink.drop(item.slots, item.reason)

    def is_prompt(self, batch: ClosedBatch) -> bool:
        """Say whether the unrolls have room."""
        return self._sink.has_room(batch.slots)

    def settle(self) -> None:
        """Do nothing: nothing is ever left."""

    def _serve(self, batch: ClosedBatch) -> None:
        columns, count = batch.rows.columns, batch.count
        slot = columns.slot[:count].astype(np.intp)
        previous = self._actions.action[slot]
        action = self._zeros[:count]
        self._actions.action[slot] = action
        acted = perf_counter()
        self._answer(batch, action.tobytes(), self._row_bytes)
        self.answering_s += perf_counter() - acted
        self._sink.append(columns, ActColumns(action, previous, (), 0), count, _no_state, batch.rows)


class Drain:
    """Take every finished batch and give it back at once, in a thread of its own: training that costs nothing."""

    def __init__(self, assembler: UnrollAssembler, ledger: Ledger) -> None:
        self._assembler = assembler
        self._ledger = ledger
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aioseed-bench-drain", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the assembler must have been stopped."""
        self._over.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._over.is_set():
            batch = self._assembler.take(1.0)
            if batch is not None:
                self._ledger.consume(int(batch.identity.transitions.sum()))
                self._assembler.give_back(batch)


class Road:
    """Run the road inside the caller's event loop. Thread: that loop's."""

    def __init__(self, traffic: Traffic) -> None:
        self.metrics = Metrics()
        self.ledger = Ledger()
        loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = loop.create_future()
        rows = min(MAX_BATCH_ROWS, max(traffic.environments, traffic.envs_per_session))
        config = ServingConfig(
            max_environments=traffic.environments,
            max_batch_rows=rows,
            ping_interval_s=_REST_S,
            ping_timeout_s=_REST_S,
            step_deadline_s=_REST_S,
        )
        self.server = Server(config, RunFacts("bench", f"aioseed {__version__}", 0, 0, MAX_MESSAGE_BYTES), self.metrics)
        self._assembler = _assembler(traffic, self.ledger)
        self._drain = Drain(self._assembler, self.ledger)
        table = SlotTable(traffic.environments, 1)
        actions = action_table(traffic.environments, traffic.spec.action.array)
        limits = Limits(rows, config.max_batches_in_flight, config.batch_deadline_s)
        intake = Intake(traffic.steps, traffic.actions, table, actions, limits, self._submit)
        engine = FreeEngine(actions, self._assembler, self.server)
        self._loop = loop
        self._inference = InferenceThread(
            engine,
            self._inference_failed,
            follows=config.inference_follows_loop,
            in_loop_s=config.inference_in_loop_s,
        )
        contract = Contract(traffic.spec, None, (), frozenset({"train", "evaluate"}))
        self._serving = Serving(contract, table, intake, self._inference.submit)
        self._listener: Listener | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def is_cold(self) -> bool:
        """Say whether a buffer of the queue was never filled: the first touch of memory costs more than its use."""
        return self._assembler.batches_finished < QUEUE_BATCHES + 2

    async def open(self, transport: Transport) -> str:
        """Listen and serve; return the address."""
        self._inference.start()
        self._drain.start()
        self.server.open(self._serving)
        self._watch = asyncio.get_running_loop().create_task(self.server.watch(), name="aioseed-bench-watch")
        options = ListenOptions(max_message_bytes=MAX_MESSAGE_BYTES)
        self._listener = await transport.listen(f"{transport.schemes[0]}://127.0.0.1:0", self.server.handle, options)
        return self._listener.url

    async def close(self) -> None:
        """End in the order of a learner.

        Raises:
            AioseedError: A step is not accounted for, or inference failed.
        """
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self.server.drain(run_over=True, reason="the measurement is over")
        if self._listener is not None:
            await self._listener.close()
        self._assembler.stop()
        ended = await asyncio.to_thread(self._inference.stop, _STOP_S)
        await asyncio.to_thread(self._drain.stop)
        if self.failed.done():
            self.failed.result()
        self.failed.cancel()
        if not ended:
            raise AioseedError("inference did not end")
        self._assembler.close()
        self._assembler.audit()

    def _submit(self, batch: ClosedBatch) -> None:
        self._inference.submit(batch)

    def _inference_failed(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self._fail, error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)


def _assembler(traffic: Traffic, ledger: Ledger) -> UnrollAssembler:
    layout = UnrollLayout(
        spec_leaves(traffic.spec.observation), traffic.spec.action.array, (), (), unroll_steps=UNROLL_STEPS,
        overlap_steps=0,
    )  # fmt: skip
    unroll_bytes = layout.rows * (traffic.observation_bytes + 32)
    # What a learner with large observations would choose too: a queue that fits into memory.
    batch = max(
        1, min(MAX_BATCH_UNROLLS, traffic.environments, MAX_QUEUE_BYTES // ((QUEUE_BATCHES + 2) * unroll_bytes))
    )
    return UnrollAssembler(
        layout, max_environments=traffic.environments, batch_unrolls=batch, queue_batches=QUEUE_BATCHES, ledger=ledger
    )


def _no_state(rows: np.ndarray) -> Sequence[np.ndarray]:
    raise AioseedError("a layout without a recurrent state was asked for one")
