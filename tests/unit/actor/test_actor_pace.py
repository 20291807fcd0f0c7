"""How fast an actor is, and what it waits for, in one sentence now and then."""

from __future__ import annotations

from typing import Any

import pytest

from aioseed.actor import pace
from aioseed.actor.pace import EVERY_S, FIRST_S, Done, Pace

from .conftest import STEPS


def told(
    measured: Pace, began_s: float, seconds: float, *, shares: tuple[float, ...], rate: int, before: int
) -> list[str]:
    """Tick four times a second and return what was said."""
    said = []
    for tick in range(int(4 * seconds) + 1):
        transitions = before + int(rate * tick / 4)
        share = shares[tick % len(shares)]
        done = Done(transitions, 41 * transitions)
        said.append(measured.tick(began_s + tick / 4, done, stepping_share=share))
    return [sentence for sentence in said if sentence is not None]


def test_the_first_sentence_comes_soon_and_each_is_of_its_own_time() -> None:
    measured = Pace()
    [first] = told(measured, 500.0, FIRST_S, shares=(0.0, 0.5), rate=2000, before=0)
    assert first == (
        "20,000 steps, 2,000 a second of 41 bytes each; the environments step for 24 % of the time and wait for actions"
        " for the rest"
    )
    assert told(measured, 500.0 + FIRST_S, EVERY_S - 0.25, shares=(1.0,), rate=8, before=20_000) == []
    [second] = told(measured, 500.0 + FIRST_S + EVERY_S, 0.0, shares=(1.0,), rate=8, before=20_480)
    assert second.startswith("20,480 steps, 8 a second of 41 bytes each; the environments step for 100 % of the time")


async def test_an_actor_tells_its_pace_while_it_has_a_session(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_S", 0.01)
    await stage.listen()
    task = stage.start(2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1], ping_interval_s=0.1)
    peer.act(await peer.step(), [0, 0])
    peer.act(await peer.step(), [0, 0])
    await peer.step()
    while "pace" not in stage.kinds():
        await peer.barrier()
    peer.end_run()
    await task
    assert stage.kinds() == ["welcomed", "pace", "over"]
    size_bytes, told_bytes = STEPS.size_bytes(2), int(stage.events[1].message.split()[6].replace(",", ""))
    # Whether the answer to the second step, of two transitions, was there by then is chance.
    assert told_bytes in [messages * size_bytes // steps for messages in (1, 2, 3) for steps in (1, 2)]
