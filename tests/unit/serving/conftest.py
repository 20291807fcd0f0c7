"""A server whose inference is a few lines, over in-memory channels: no device, no network, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from aioseed.errors import ChannelClosed
from aioseed.serving.config import ServingConfig
from aioseed.serving.handshake import Contract, Role
from aioseed.serving.intake import ActionTable, ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.server import RunFacts, Server, Serving
from aioseed.serving.slots import NOBODY, SlotTable
from aioseed.serving.thread import Item, Leased, Released
from aioseed.specs import ArraySpec, discrete, observation_to_json
from aioseed.telemetry.counters import Metrics
from aioseed.transport.channel import Channel, DialOptions, ListenOptions
from aioseed.transport.memory import MemoryTransport
from aioseed.types import FIRST, EnvironmentSpec
from aioseed.wire import packing
from aioseed.wire.columns import ACTION_TYPE, ActionLayout, ActionRows, StepLayout, StepMessage
from aioseed.wire.messages import ControlMessage, Hello, Welcome, decode_control

SPEC = EnvironmentSpec(ArraySpec("float32", (2,)), discrete(1000))
STEPS = StepLayout(SPEC.observation, 0)
ACTIONS = ActionLayout(SPEC.action)


class Peer:
    """An actor that says what a test lets it say."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.welcome: Welcome | None = None

    def say(self, message: ControlMessage | bytes) -> None:
        self.channel.send_nowait(message if isinstance(message, bytes) else message.encode())

    async def hears(self) -> Any:
        """Return the next message, an ACTION as its rows."""
        payload = await self.channel.receive()
        return ACTIONS.decode(payload) if payload[0] == ACTION_TYPE else decode_control(payload)

    async def hears_a(self, kind: type) -> Any:
        """Return the next message that is a `kind`; PINGs and others before it are passed over."""
        while not isinstance(message := await self.hears(), kind):
            pass
        return message

    async def closed(self) -> ChannelClosed:
        """Return how the channel ends, whatever comes before."""
        with pytest.raises(ChannelClosed) as caught:
            while True:
                await self.hears()
        return caught.value

    def greet(self, environments: int = 2, **fields: Any) -> None:
        words = {"library": "test", "actor_id": f"actor of {environments}", "environments": environments}
        specs = {"observation": observation_to_json(SPEC.observation), "action": SPEC.action.to_json()}
        self.say(Hello(**(words | specs | fields)))

    async def join(self, environments: int = 2, **fields: Any) -> Welcome:
        self.greet(environments, **fields)
        self.welcome = await self.hears_a(Welcome)
        return self.welcome

    def step(
        self, sequence: int, slots: list[int] | None = None, epochs: list[int] | None = None, *, packed: bool = False
    ) -> None:
        """Say a STEP of all slots, under the epochs of the WELCOME unless others are given."""
        assert self.welcome is not None
        slots = slots or self.welcome.slots
        message = StepMessage(STEPS, len(slots))
        message.columns.slot[:] = slots
        message.columns.epoch[:] = epochs or self.welcome.epochs
        message.columns.sequence[:] = sequence
        message.columns.flags[:] = FIRST if sequence == 0 else 0
        payload = message.tobytes()
        self.say(packing.pack(STEPS, payload, len(slots)) if packed else payload)

    async def acts(self) -> tuple[list[int], list[int]]:
        """Return slots and actions of the next ACTION."""
        rows: ActionRows = await self.hears_a(ActionRows)
        return rows.slot.tolist(), rows.action.tolist()


class Desk:
    """A server, its network, and an inference whose action is a slot's number plus 100 times its sequence number."""

    def __init__(self, capacity: int = 8, *, roles: frozenset[Role], lockstep: int = 0, **config: Any) -> None:
        self.metrics = Metrics()
        self.config = ServingConfig(max_environments=capacity, max_batch_rows=capacity, **config)
        self.server = Server(self.config, RunFacts("run", "aioseed test", 7, lockstep, 2**20), self.metrics)
        self.table = SlotTable(capacity, 1)
        self.told: list[Leased | Released] = []
        self.greeted: list[Hello] = []
        self.items: list[type[Item]] = []  # the kinds of all that came to inference, in order
        self.expels: list[int] = []  # slots that the next batch is found to have sent nonsense of
        self.held: list[ClosedBatch] | None = None  # batches, while inference is held up
        self._actions = ActionTable(np.zeros(capacity + 1, np.int32))
        self._contract = Contract(SPEC, None, (), roles)
        limits = Limits(capacity, 2, self.config.batch_deadline_s, lockstep)
        self._intake = Intake(STEPS, ACTIONS, self.table, self._actions, limits, self._infer)
        self._network = MemoryTransport()

    async def listen(self) -> None:
        self.listener = await self._network.listen("memory://learner", self.server.handle, ListenOptions())

    async def dial(self) -> Peer:
        return Peer(await self._network.dial("memory://learner", DialOptions()))

    def open(self) -> None:
        self.server.open(Serving(self._contract, self.table, self._intake, self._hear, self.greeted.append))

    def count(self, name: str) -> int:
        return self.metrics.counter(name).value

    def serve_held(self) -> None:
        """Serve the batches that were held up, and all that come."""
        held, self.held = self.held or [], None
        for batch in held:
            self._infer(batch)

    def _hear(self, item: Leased | Released) -> None:
        self.told.append(item)
        self.items.append(type(item))

    def _infer(self, batch: ClosedBatch) -> None:
        self.items.append(ClosedBatch)
        if self.held is not None:
            self.held.append(batch)
            return
        if self.expels:
            slots, self.expels = np.array(self.expels), []
            self.server.expel_from(slots, self.table.epoch[slots])
        columns = batch.rows.columns
        slots = columns.slot[: batch.count]
        actions = (slots + 100 * columns.sequence[: batch.count]).astype(np.int32)
        self._actions.action[slots] = actions
        batch.rows.release()
        self.server.answer_from(batch, actions.tobytes(), 4)


@pytest.fixture
async def desk() -> AsyncIterator[Callable[..., Any]]:
    """Return a function that makes a server, listening, watching and (unless ``opened=False``) open."""
    desks: list[Desk] = []
    watches: list[asyncio.Task[None]] = []

    async def make(
        capacity: int = 8,
        *,
        opened: bool = True,
        roles: frozenset[Role] = frozenset({"train", "evaluate"}),
        **config: Any,
    ) -> Desk:
        made = Desk(capacity, roles=roles, **config)
        desks.append(made)
        await made.listen()
        watches.append(asyncio.create_task(made.server.watch()))
        if opened:
            made.open()
        return made

    yield make
    for watch in watches:
        watch.cancel()
        assert not watch.done()  # a failure of the watch would have gone unseen
    for made in desks:
        # What is counted on the way is what a count of all would give: who is expected rests on it.
        assert made.table.late_count == np.count_nonzero(made.table.late)
        assert made.table.leased == np.count_nonzero(made.table.owner != NOBODY)
        await made.listener.close(0.1)
