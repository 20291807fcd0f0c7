"""Pictures over real sockets: what the network reads straight into batches is what comes out in unrolls."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import numpy as np
import pytest
from aioseed_websocket.transport import WebSocketTransport

from aioseed.bench import load
from aioseed.bench.load import Addresses, Load, LoadSession
from aioseed.bench.road import Drain, Road
from aioseed.bench.traffic import Traffic
from aioseed.serving.intake import Intake, PlacedStep
from aioseed.types import UnrollBatch

TRAFFIC = Traffic("websocket", sessions=3, envs_per_session=16, observation_bytes=84 * 84 * 4)
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
if sys.platform != "win32":
    import uvloop

    LOOPS.append(uvloop.new_event_loop)


class Painter(LoadSession):
    """A session whose pictures say whose and which they are, at both ends."""

    def _next(self) -> bytes:
        columns = self._message.columns
        marks = np.stack([columns.slot, columns.sequence], axis=1).view(np.uint8)
        columns.observation[0][:, :8] = columns.observation[0][:, -8:] = marks
        return super()._next()


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows of steps that were read to their places; sessions paint."""
    rows: list[int] = []
    take = Intake.take_placed

    def counted(intake: Intake, step: PlacedStep, now_s: float) -> None:
        rows.append(step.group.rows)
        take(intake, step, now_s)

    monkeypatch.setattr(Intake, "take_placed", counted)
    monkeypatch.setattr(load, "LoadSession", Painter)
    return rows


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect what is to be said about each batch of unrolls that training is given."""
    found: list[str] = []

    def run(drain: Drain) -> None:
        while not drain._over.is_set():
            batch = drain._assembler.take(0.1)
            if batch is not None:
                found.append(verdict(batch))
                drain._ledger.consume(int(batch.identity.transitions.sum()))
                drain._assembler.give_back(batch)

    monkeypatch.setattr(Drain, "_run", run)
    return found


def verdict(batch: UnrollBatch) -> str:
    (pictures,) = batch.columns.observation
    slots, sequence = batch.identity.slot, batch.identity.sequence + np.arange(len(pictures), dtype=np.uint32)[:, None]
    expected = np.stack([np.broadcast_to(slots, sequence.shape), sequence], axis=-1)
    for marks in (np.ascontiguousarray(end).view(np.uint32) for end in (pictures[..., :8], pictures[..., -8:])):
        if not np.array_equal(marks, expected):
            return f"other pictures at {np.argwhere(marks != expected)[:3].tolist()}"
    return "the pictures that were sent"


async def serve(enough: Callable[[], bool]) -> None:
    road, transport = Road(TRAFFIC), WebSocketTransport()
    url = await road.open(transport)
    sessions = await Load.open(TRAFFIC, Addresses(url, ""), transport)
    try:
        while not enough():
            await sessions.turn("road", 0.5)
    finally:
        await sessions.close()
        await road.close()


@pytest.mark.parametrize("make_loop", LOOPS, ids=["asyncio", "uvloop"][: len(LOOPS)])
def test_unrolls_hold_the_pictures_that_were_sent(
    make_loop: Callable[[], asyncio.AbstractEventLoop], placed: list[int], verdicts: list[str]
) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(serve(lambda: len(verdicts) > 2 and (len(placed) > 20 or sys.platform == "win32")))
    assert set(verdicts) == {"the pictures that were sent"} and set(placed) <= {16}
