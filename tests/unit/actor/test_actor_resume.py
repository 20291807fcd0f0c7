"""An actor whose channel broke goes on with the same episodes, wherever the break found its groups."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import pytest

from aioseed.actor.seeds import environment_seed
from aioseed.errors import AuthenticationError, CertificateError, ConnectError, EnvironmentFailed, TransportError
from aioseed.transport.channel import Channel, DialOptions
from aioseed.transport.memory import MemoryTransport
from aioseed.types import FIRST
from aioseed.wire.messages import Refused


async def test_an_unanswered_step_is_sent_again_and_the_episode_goes_on(stage: Any) -> None:
    await stage.listen()
    task = stage.start(2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1], resume_token="one")
    for _ in range(3):
        peer.act(await peer.step(), [0, 0])
    lost = await peer.step()
    await peer.cut()
    peer = await stage.peer()
    hello = await peer.greet([0, 1], [1, 1], resume_token="two")
    assert hello.resume_token == "one"
    again = await peer.step()
    assert again.payload == lost.payload
    peer.act(again, [1, 2])
    step = await peer.step()
    assert (step.sequences, step.epochs) == ([4, 4], [1, 1])
    [environment] = stage.environments
    assert len(environment.resets) == 1 and environment.actions[-1] == [1, 2]
    await peer.cut()
    peer = await stage.peer()
    hello = await peer.greet([0, 1], [1, 1])
    assert (hello.resume_token, hello.acknowledged_rows) == ("two", 6)
    peer.end_run()
    assert (await task).transitions == 6


async def test_what_a_worker_did_during_the_break_is_sent_in_the_next_session(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps()
    stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [3])
    await held.under_way()
    await peer.cut()
    peer = await stage.peer()
    await peer.hello()
    held.let_go()
    peer.welcome([0], [1])
    step = await peer.step()
    assert (step.sequences, step.epochs) == ([1], [1])
    assert stage.environments[0].actions == [[3]]
    peer.act(step, [2])
    assert (await peer.step()).sequences == [2]


async def test_slots_that_were_lost_meanwhile_begin_anew_and_the_others_go_on(stage: Any) -> None:
    await stage.listen()
    stage.start(3)
    peer = await stage.peer()
    await peer.greet([0, 1, 2], [1, 1, 1])
    peer.act(await peer.step(), [0, 0, 0])
    await peer.step()
    await peer.cut()
    peer = await stage.peer()
    await peer.greet([0, 2, 7], [1, 1, 5])
    kept = await peer.step()
    assert (kept.slots, kept.sequences) == ([0, 2], [1, 1])
    peer.act(kept, [1, 1])
    step = await peer.step()
    assert (step.slots, step.epochs, step.sequences) == ([0, 7, 2], [1, 5, 1], [2, 0, 2])
    assert step.columns.flags.tolist() == [0, FIRST, 0]


@pytest.mark.parametrize(
    "error",
    [
        CertificateError("expired", "the certificate is not valid now", url="memory://learner"),
        AuthenticationError("the token was not accepted", url="memory://learner"),
        ConnectError("nobody answers", url="memory://learner"),
    ],
)
async def test_a_dial_that_fails_for_a_while_costs_no_session(stage: Any, error: TransportError) -> None:
    class Changing(MemoryTransport):
        dials = 0

        async def dial(self, url: str, options: DialOptions) -> Channel:
            self.dials += 1
            if self.dials == 2:
                raise error
            return await super().dial(url, options)

    stage.transport = Changing()
    await stage.listen()
    stage.start(1, token="the same all the time")
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    await peer.step()
    await peer.cut()
    peer = await stage.peer()
    assert stage.transport.dials == 3
    assert (await peer.greet([0], [1])).resume_token == "next"
    assert (await peer.step()).sequences == [1]


async def test_a_loss_is_told_also_where_it_is_like_the_last(stage: Any) -> None:
    await stage.listen()
    stage.start(1, jitter=lambda: 0.0)
    for _ in range(2):
        peer = await stage.peer()
        await peer.greet([0], [1])
        await peer.step()
        await peer.cut()
    await (await stage.peer()).greet([0], [1])
    assert [kind for kind in stage.kinds() if kind in ("welcomed", "lost")][:4] == ["welcomed", "lost"] * 2


async def test_failures_that_alternate_are_told_once_each_and_have_time_to_show(stage: Any) -> None:
    class Changing(MemoryTransport):
        patience_s: ClassVar[list[float]] = []

        async def dial(self, url: str, options: DialOptions) -> Channel:
            self.patience_s.append(options.connect_timeout_s)
            if len(self.patience_s) < 6:
                raise ConnectError(f"failure {len(self.patience_s) % 2}", url=url)
            return await super().dial(url, options)

    stage.transport = Changing()
    await stage.listen()
    stage.start(1, wait_s=0.5, jitter=lambda: 0.0)
    await (await stage.peer()).greet([0], [1])
    told = [event.message for event in stage.events if event.kind == "waiting"]
    assert [message.partition("(")[2] for message in told] == ["failure 1)", "failure 0)"]
    assert min(stage.transport.patience_s) >= 1.0


async def test_a_token_that_is_refused_is_left_out_at_once_and_environments_are_reset(stage: Any) -> None:
    await stage.listen()
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    await peer.step()
    await peer.cut()
    peer = await stage.peer()
    assert (await peer.hello()).resume_token == "next"
    peer.say(Refused(code="resume_token", message="it was used before", retry=True))
    peer = await stage.peer()
    assert (await peer.greet([0], [2], seed=8)).resume_token is None
    step = await peer.step()
    assert (step.epochs, step.sequences) == ([2], [0]) and step.columns.flags.tolist() == [FIRST]
    assert stage.environments[0].resets[-1] == ([0], [environment_seed(8, 0, 2)])
    peer.end_run()
    assert (await task).sessions == 2
    assert stage.kinds() == ["welcomed", "lost", "welcomed", "over"]


async def test_a_token_that_is_refused_though_none_was_shown_is_a_refusal_as_any_other(stage: Any) -> None:
    await stage.listen()
    stage.start(1)
    peer = await stage.peer()
    assert (await peer.hello()).resume_token is None
    peer.say(Refused(code="resume_token", message="it was used before", retry=True))
    await (await stage.peer()).hello()
    assert stage.kinds() == ["refused"]


async def test_environments_that_fail_after_their_session_was_given_up_fail_in_the_next(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps(ValueError("late"))
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    await held.under_way()
    await peer.cut()
    peer = await stage.peer()
    await peer.hello()
    peer.say(Refused(code="resume_token", message="it was used before", retry=True))
    peer = await stage.peer()
    await peer.greet([0], [2])
    assert await peer.barrier() == []
    held.let_go()
    with pytest.raises(EnvironmentFailed, match="late"):
        async with asyncio.timeout(5.0):
            await task


async def test_environments_that_fail_during_the_break_end_the_actor(stage: Any) -> None:
    await stage.listen()
    held = stage.hold_steps(ValueError("broken"))
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [3])
    await held.under_way()
    await peer.cut()
    held.let_go()
    with pytest.raises(EnvironmentFailed, match="broken"):
        await task


async def _until(event: threading.Event) -> None:
    await asyncio.to_thread(event.wait, 10)
