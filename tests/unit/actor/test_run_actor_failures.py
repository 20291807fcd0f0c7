from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from aioseed.errors import (
    AuthenticationError,
    ChannelClosed,
    ConnectError,
    EnvironmentFailed,
    ProtocolError,
    RefusedError,
    UsageError,
)
from aioseed.transport.channel import Channel, DialOptions
from aioseed.transport.client_tls import ClientTls
from aioseed.transport.memory import MemoryTransport
from aioseed.transport.token import Secret
from aioseed.wire.messages import Bye, Error, Ping, Refused, Starting


async def test_a_refusal_shows_the_differing_field_from_this_side(stage: Any) -> None:
    await stage.listen()
    task = stage.start(1)
    peer = await stage.peer()
    await peer.hello()
    refused = Refused(code="observation", message="shapes differ", field="observation.shape", ours="[4]", theirs="[2]")
    peer.say(refused)
    with pytest.raises(RefusedError, match="shapes differ") as caught:
        await task
    assert (caught.value.field, caught.value.ours, caught.value.theirs) == ("observation.shape", "[2]", "[4]")


async def test_a_full_learner_is_asked_again(stage: Any) -> None:
    await stage.listen()
    task = stage.start(1)
    for _ in range(2):
        peer = await stage.peer()
        await peer.hello()
        peer.say(Refused(code="capacity", message="full", retry=True))
    peer = await stage.peer()
    await peer.greet([0], [1])
    await peer.step()
    peer.end_run()
    assert (await task).sessions == 1
    assert stage.kinds() == ["refused", "welcomed", "over"]  # the same refusal is told once


async def test_a_learner_that_stays_full_is_a_refusal_in_the_end(stage: Any) -> None:
    await stage.listen()
    task = stage.start(1, wait_s=0.0)
    peer = await stage.peer()
    await peer.hello()
    peer.say(Refused(code="capacity", message="full", retry=True))
    with pytest.raises(RefusedError, match="full"):
        await task


async def test_an_answer_to_other_rows_is_a_protocol_error_and_the_learner_is_told(stage: Any) -> None:
    await stage.listen()
    task = stage.start(2)
    peer = await stage.peer()
    await peer.greet([0, 1], [1, 1])
    old = await peer.step()
    peer.act(old, [0, 0])
    await peer.step()
    peer.act(old, [0, 0])
    error, bye = await peer.hear(), await peer.hear()
    assert isinstance(error, Error) and error.code == "action_rows"
    assert isinstance(bye, Bye) and bye.code == "protocol"
    with pytest.raises(ProtocolError) as caught:
        await task
    assert caught.value.code == "action_rows"


async def test_an_unknown_message_is_answered_with_an_error_and_the_session_lives(stage: Any) -> None:
    await stage.listen()
    stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    step = await peer.step()
    peer.say(b'{"type":"sing"}')
    peer.say(b"\x09")
    for _ in range(2):
        error = await peer.hear()
        assert isinstance(error, Error) and error.code == "unknown_message"
    peer.act(step, [0])
    await peer.step()


async def test_a_silent_learner_is_asked_and_then_left(stage: Any) -> None:
    await stage.listen()
    stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1], ping_interval_s=0.05, ping_timeout_s=0.05)
    await peer.step()
    async with asyncio.timeout(5.0):
        assert isinstance(await peer.hear(), Ping)
        with pytest.raises(ChannelClosed):  # without a BYE, which would end the leases
            await peer.hear()
        peer = await stage.peer()
        assert (await peer.greet([0], [1])).resume_token == "next"
    assert any("silent" in event.message for event in stage.events)


async def test_a_learner_that_is_heard_and_hears_nothing_is_left_and_the_session_goes_on(stage: Any) -> None:
    await stage.listen()
    stage.start(1)
    deaf = await stage.peer()
    await deaf.greet([0], [1], ping_interval_s=0.05, ping_timeout_s=0.05)
    anew = asyncio.ensure_future(stage.peer())
    while not anew.done():
        with suppress(ChannelClosed):  # it is left while it speaks
            deaf.say(Ping(number=1))
        await asyncio.wait([anew], timeout=0.02)
    hello = await anew.result().greet([0], [1])
    assert hello.resume_token == "next"
    assert (await anew.result().step()).sequences == [0]
    assert "answers nothing" in next(event.message for event in stage.events if event.kind == "lost")


async def test_no_learner_is_one_sentence(stage: Any) -> None:
    with pytest.raises(ConnectError, match=r"the learner at memory://learner did not answer within 0\.05 s"):
        await stage.start(1, wait_s=0.05)
    [waiting] = [event.message for event in stage.events]
    # With the reason: who waits for an hour is to see at once that the name is a wrong one.
    assert waiting == (
        "waiting for up to 0.05 s for the learner at memory://learner (nobody listens at memory://learner)"
    )


@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "pinging"])
async def test_what_takes_the_connection_and_never_answers_is_left_when_the_wait_is_over(
    stage: Any, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    monkeypatch.setattr("aioseed.actor.run.ANSWER_S", 0.05)
    await stage.listen()
    task = stage.start(1, wait_s=0.05)
    peer = await stage.peer()
    await peer.hello()
    if speaks:
        peer.say(Ping(number=1))
    async with asyncio.timeout(5.0):  # half of the silence after which a channel counts as dead
        with pytest.raises(ConnectError, match=r"within 0\.05 s \(it took the connection, and did not answer"):
            await task


async def test_a_learner_that_is_starting_is_waited_for_beyond_the_wait(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed.actor.run.ANSWER_S", 0.05)
    await stage.listen()
    stage.start(1, wait_s=0.05)
    peer = await stage.peer()
    await peer.hello()
    peer.say(Starting(message="compiling"))
    await asyncio.sleep(0.2)
    peer.welcome([0], [1])
    await peer.step()


async def test_a_learner_that_does_not_come_back_is_one_sentence(stage: Any) -> None:
    listener = await stage.listen()
    task = stage.start(1, reconnect_s=0.05)
    peer = await stage.peer()
    await peer.greet([0], [1])
    await peer.step()
    closing = asyncio.ensure_future(listener.close(0.0))
    with pytest.raises(ConnectError, match=r"did not come back within 0\.05 s"):
        await task
    await closing


async def test_a_new_token_is_tried_and_a_wrong_one_is_not(stage: Any) -> None:
    await stage.listen(token="new")
    tokens = iter([Secret("old"), Secret("new"), Secret("new")])
    task = stage.start(1, token=lambda: next(tokens))
    peer = await stage.peer()
    await peer.hello()
    peer.say(Refused(code="run_over", message="over"))
    assert (await task).sessions == 0
    with pytest.raises(AuthenticationError, match="did not accept the token"):
        await stage.start(1, token="wrong")
    with pytest.raises(AuthenticationError, match="there is none to show: give --token-file, or set AIOSEED_TOKEN"):
        await stage.start(1, token=None)


async def test_a_token_that_cannot_be_read_ends_only_an_actor_that_was_never_welcomed(stage: Any) -> None:
    """Files are renewed in pieces: for a moment one is not there, is empty, or has the mode of its copy."""
    missing = UsageError("the token file cannot be read")
    tokens: Iterator[Secret | UsageError] = iter([Secret("good"), missing, Secret("good"), missing])

    def token() -> Secret:
        if isinstance(read := next(tokens), UsageError):
            raise read
        return read

    await stage.listen(token="good")
    task = stage.start(1, token=token)
    peer = await stage.peer()
    await peer.greet([0], [1])
    await peer.step()
    await peer.cut()
    peer = await stage.peer()
    assert (await peer.greet([0], [1])).resume_token == "next"  # the episode goes on
    assert any(event.kind == "lost" and str(missing) in event.message for event in stage.events)
    await peer.step()
    peer.end_run()
    assert (await task).sessions == 2
    with pytest.raises(UsageError, match="cannot be read"):
        await stage.start(1, token=token)


async def test_groups_larger_than_the_learner_takes_are_a_usage_error(stage: Any) -> None:
    await stage.listen()
    task = stage.start(4)
    peer = await stage.peer()
    await peer.greet([0, 1, 2, 3], [1] * 4, max_step_rows=3)
    assert (await peer.hear()).code == "leaving"
    with pytest.raises(UsageError, match="use more groups"):
        await task


@pytest.mark.parametrize(("environments", "groups"), [(0, None), (2, 3), (2, 0)])
async def test_impossible_groups_are_a_usage_error(stage: Any, environments: int, groups: int) -> None:
    with pytest.raises(UsageError, match="cannot be cut" if environments else "at least one environment"):
        await stage.start(environments, groups=groups)


@pytest.mark.parametrize(
    "tls",
    [
        ClientTls(fingerprint="ab" * 32),
        ClientTls(ca=Path("ca")),
        ClientTls(certificate=Path("mine")),
        ClientTls(key=Path("key")),
    ],
)
async def test_a_certificate_for_an_address_without_tls_is_a_usage_error_before_anything_is_made(
    stage: Any, tls: ClientTls
) -> None:
    await stage.listen()
    with pytest.raises(UsageError, match="memory://learner has no TLS"):
        await stage.start(1, tls=tls)
    assert stage.peers.empty() and not stage.environments


async def test_a_private_key_without_its_certificate_is_a_usage_error(stage: Any) -> None:
    class Secure(MemoryTransport):
        secure_schemes = frozenset({"memory"})

    stage.transport = Secure()
    with pytest.raises(UsageError, match="of no use without its certificate"):
        await stage.start(1, tls=ClientTls(key=Path("key")))


async def test_a_name_that_cannot_travel_is_a_usage_error(stage: Any) -> None:
    with pytest.raises(UsageError, match="actor_id"):
        await stage.start(1, actor_id="x" * 129)


class SlowEars(Channel):
    """Hand a BYE out only when sending has failed: the two crossed on the road."""

    def __init__(self, inner: Channel) -> None:
        self._inner = inner
        self._mute = asyncio.Event()

    @property
    def peer(self) -> str:
        return self._inner.peer

    def send_nowait(self, payload: bytes) -> None:
        try:
            self._inner.send_nowait(payload)
        except ChannelClosed:
            self._mute.set()
            raise

    async def send(self, payload: bytes) -> None:
        await self._inner.send(payload)

    async def receive(self) -> bytes:
        payload = await self._inner.receive()
        if b'"bye"' in payload:
            await self._mute.wait()
        return payload

    async def close(self, reason: str = "") -> None:
        await self._inner.close(reason)


class Breaking(SlowEars):
    """Send a HELLO and a STEP and nothing after, and do not say so to whoever receives."""

    sends = 0

    def send_nowait(self, payload: bytes) -> None:
        self.sends += 1
        if self.sends > 2:
            raise ChannelClosed("the connection broke", clean=False)
        super().send_nowait(payload)


class BreakingTransport(MemoryTransport):
    async def dial(self, url: str, options: DialOptions) -> Channel:
        return Breaking(await super().dial(url, options))


async def test_a_channel_that_only_sending_finds_broken_is_left_after_a_while(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed.actor.conversation.LAST_WORDS_S", 0.05)
    stage.transport = BreakingTransport()
    await stage.listen()
    stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    async with asyncio.timeout(5.0):
        peer = await stage.peer()
        assert (await peer.greet([0], [1])).resume_token == "next"
        assert (await peer.step()).sequences == [1]


async def test_environments_that_fail_are_told_though_no_word_reaches_the_learner(stage: Any) -> None:
    def fail() -> None:
        raise ValueError("the wheel came off")

    stage.before_step, stage.transport = fail, BreakingTransport()
    await stage.listen()
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    with pytest.raises(EnvironmentFailed, match="the wheel came off"):
        await task


async def test_a_bye_that_crossed_a_step_is_heard_though_nothing_can_be_sent_any_more(stage: Any) -> None:
    class SlowTransport(MemoryTransport):
        async def dial(self, url: str, options: DialOptions) -> Channel:
            return SlowEars(await super().dial(url, options))

    stage.transport = SlowTransport()
    await stage.listen()
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    peer.act(await peer.step(), [0])
    peer.end_run()
    await peer.cut()
    assert (await task).sessions == 1
    assert stage.kinds() == ["welcomed", "over"]


async def test_a_channel_that_does_not_close_is_not_waited_for(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lingering(SlowEars):
        async def close(self, reason: str = "") -> None:
            await asyncio.Event().wait()

    class LingeringTransport(MemoryTransport):
        async def dial(self, url: str, options: DialOptions) -> Channel:
            return Lingering(await super().dial(url, options))

    monkeypatch.setattr("aioseed.actor.conversation.CLOSE_S", 0.05)
    stage.transport = LingeringTransport()
    await stage.listen()
    task = stage.start(1)
    peer = await stage.peer()
    await peer.greet([0], [1])
    await peer.step()
    task.cancel()
    await asyncio.wait({task}, timeout=5.0)
    assert task.cancelled()
