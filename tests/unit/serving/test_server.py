"""Sessions from HELLO to BYE, in virtual time: an hour of silence takes no time, and a deadlock is an error."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from aioseed.serving.intake import PlacedStep
from aioseed.wire.columns import End
from aioseed.wire.messages import (
    Bye,
    Drain,
    Error,
    Ping,
    Refused,
    Starting,
    Welcome,
)

pytestmark = pytest.mark.virtual_time

EVERYBODY_ELSE_FIRST_S = 1e-6


async def test_actors_get_their_own_actions_by_slot(desk):
    table = await desk()
    one, two = await table.dial(), await table.dial()
    assert (await one.join(2)).slots == [0, 1]
    assert (await two.join(3)).slots == [2, 3, 4]
    for sequence in range(3):
        two.step(sequence)
        one.step(sequence)
        assert await one.acts() == ([0, 1], [100 * sequence, 100 * sequence + 1])
        assert await two.acts() == ([2, 3, 4], [100 * sequence + slot for slot in (2, 3, 4)])
    assert (table.server.sessions, table.server.environments) == (2, 5)


async def test_only_steps_of_active_sessions_are_given_places(desk, monkeypatch):
    table = await desk()
    peer = await table.dial()
    await peer.join(2)
    opened, (session,) = table.server._opened, table.server._sessions.values()
    step, placed = memoryview(b"\x01..."), PlacedStep(End(4, (), ()), None, b"")
    monkeypatch.setattr(opened.intake, "place", lambda session, size_bytes, beginning: placed)

    def has_place(beginning: memoryview = step) -> bool:
        return table.server._place(session, opened, 1000, beginning) is not None

    assert has_place()
    assert not has_place(memoryview(b"")) and not has_place(memoryview(b"{"))
    session.suspended = True
    assert not has_place()
    session.suspended = False
    session.tell(Drain(reason="going down"))
    assert not has_place()


async def test_a_step_that_was_read_to_its_place_is_heard_and_looked_at(desk, monkeypatch):
    table = await desk()
    peer = await table.dial()
    await peer.join(2)
    opened, (session,) = table.server._opened, table.server._sessions.values()
    looks = []
    monkeypatch.setattr(opened.intake, "take_placed", lambda step, now_s: looks.append(now_s))
    monkeypatch.setattr(opened.batching, "poll_soon", lambda: looks.append("poll"))
    await asyncio.sleep(3.0)
    now_s = asyncio.get_running_loop().time()
    assert table.server._hear_placed(session, opened, PlacedStep(End(4, (), ()), None, b""))
    assert looks == [now_s, "poll"] and session.last_heard_s == now_s


async def test_the_welcome_tells_the_rules(desk):
    table = await desk(step_deadline_s=30.0, ping_interval_s=3.0, ping_timeout_s=4.0)
    peer = await table.dial()
    welcome = await peer.join(2, step_deadline_s=10.0)
    assert welcome.run_id == "run" and welcome.seed == 7
    assert (welcome.max_step_rows, welcome.step_deadline_s) == (8, 10.0)
    assert (welcome.ping_interval_s, welcome.ping_timeout_s) == (3.0, 4.0)
    assert (await (await table.dial()).join(1, step_deadline_s=100.0)).step_deadline_s == 30.0


async def test_actors_wait_with_starting_messages_until_the_server_opens(desk):
    table = await desk(opened=False)
    peer = await table.dial()
    peer.greet()
    for _ in range(3):
        assert isinstance(await peer.hears(), Starting)
    assert asyncio.get_running_loop().time() == pytest.approx(4.0)
    table.open()
    assert isinstance(await peer.hears(), Welcome)


async def test_an_actor_that_waited_for_the_server_to_open_is_not_silent(desk):
    table = await desk(opened=False)
    peer = await table.dial()
    joining = asyncio.create_task(peer.join(2))
    await asyncio.sleep(20.0)  # it has nothing to say meanwhile
    table.open()
    await joining
    await asyncio.sleep(2.0)
    assert table.count("serving/silent") == 0


async def test_the_first_hello_is_kept_for_a_learner_that_knows_no_specs(desk):
    table = await desk(opened=False)
    one, two = await table.dial(), await table.dial()
    one.greet(metrics=[{"name": "score", "fold": "max"}])
    contract = await table.server.first_hello
    assert [metric.name for metric in contract.metrics] == ["score"]
    two.greet()
    await two.hears()
    assert table.server.first_hello.result() is contract


async def test_a_lease_beyond_the_capacity_is_refused_and_can_be_had_later(desk):
    table = await desk(capacity=4)
    one, two = await table.dial(), await table.dial()
    await one.join(3)
    two.greet(2)
    refused = await two.hears()
    assert (refused.code, refused.retry, refused.field, refused.ours, refused.theirs) == (
        "capacity", True, "environments", "1", "2",
    )  # fmt: skip
    await two.closed()
    await one.channel.close()
    again = await table.dial()
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert (await again.join(4)).slots == [0, 1, 2, 3]
    assert table.count("serving/refused_capacity") == 1


async def test_an_actor_whose_welcome_would_be_too_large_is_told_so(desk, monkeypatch):
    monkeypatch.setattr("aioseed.wire.messages.MAX_CONTROL_BYTES", 1000)
    table = await desk(capacity=200)
    one, two = await table.dial(), await table.dial()
    one.greet(200)
    refused = await one.hears()
    assert (refused.code, refused.retry, refused.field) == ("size", False, "environments")
    assert "200 environments are too many for one actor" in refused.message and "start several" in refused.message
    await one.closed()
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert (await two.join(2)).slots == [0, 1]  # its leases are free again


async def test_slots_of_the_role_evaluate_come_from_the_top_and_inference_is_told(desk):
    table = await desk()
    await (await table.dial()).join(2)
    assert (await (await table.dial()).join(2, role="evaluate")).slots == [6, 7]
    assert [(item.slots.tolist(), item.evaluation) for item in table.told] == [([0, 1], False), ([6, 7], True)]


async def test_those_who_come_at_once_are_welcomed_one_a_turn(desk):
    table = await desk()
    peers = [await table.dial() for _ in range(4)]
    for peer in peers:
        peer.greet(1)
    welcomed = [0]
    async with asyncio.timeout(1.0):
        while welcomed[-1] < len(peers):
            await asyncio.sleep(0)
            welcomed.append(len(table.told))
    assert set(np.diff(welcomed).tolist()) <= {0, 1}


async def test_the_host_is_told_of_every_hello_that_may_join_and_of_no_other(desk):
    table = await desk(roles=frozenset({"train"}))
    for role in ("evaluate", "train"):
        peer = await table.dial()
        peer.greet(1, role=role, acknowledged_rows=7)
        await peer.hears()
    assert [(hello.role, hello.acknowledged_rows) for hello in table.greeted] == [("train", 7)]


async def test_a_refusal_carries_the_field_and_ends_the_channel(desk):
    table = await desk(roles=frozenset({"evaluate"}))
    peer = await table.dial()
    peer.greet()
    refused = await peer.hears()
    assert isinstance(refused, Refused)
    assert (refused.code, refused.field, refused.ours, refused.theirs) == ("role", "role", '["evaluate"]', '"train"')
    assert (await peer.closed()).clean
    assert table.server.sessions == 0


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"\x01\x01\0\0\0\0\0\0", "must be a HELLO"),
        (b"", "must be a HELLO"),
        (b'{"type": "hello"}', "library"),
        (b'{"type": "hello", ', "control message"),
        (Ping(number=1).encode(), "must be a HELLO"),
        (b'{"type": "dance"}', "not known"),
    ],
)
async def test_a_channel_that_does_not_begin_with_a_sound_hello_is_refused(desk, first, said):
    peer = await (await desk()).dial()
    peer.say(first)
    refused = await peer.hears()
    assert isinstance(refused, Refused) and refused.code == "hello" and said in refused.message
    assert not refused.retry
    await peer.closed()


async def test_a_channel_that_says_nothing_is_refused_after_a_while(desk):
    peer = await (await desk(hello_timeout_s=7.0)).dial()
    refused = await peer.hears()
    assert (refused.code, refused.retry) == ("hello", True)
    assert asyncio.get_running_loop().time() == pytest.approx(7.0)


async def test_unknown_messages_are_answered_with_an_error_and_the_session_goes_on(desk):
    table = await desk()
    peer = await table.dial()
    await peer.join(2)
    peer.say(b"\x07 something new")
    error = await peer.hears()
    assert isinstance(error, Error) and (error.code, error.message) == (
        "unknown_message", "message type 7 is not known here",
    )  # fmt: skip
    peer.say(b"")
    assert (await peer.hears()).code == "unknown_message"
    peer.say(b'{"type": "dance", "to": "the music"}')
    assert (await peer.hears()).code == "unknown_message"
    peer.step(0)
    assert await peer.acts() == ([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (b"\x01\x01\0\0\x02\0\0\0too short", "size_mismatch"),
        (b"\x01\x09\0\0\x02\0\0\0", "version"),
        (b"\x01", "truncated"),
        (b'{"type": "ping"}', "malformed"),
        (Welcome(library="", run_id="", slots=[], epochs=[], max_step_rows=1, max_message_bytes=1, step_deadline_s=1,
                 ping_interval_s=1, ping_timeout_s=1, resume_token="").encode(), "unexpected_message"),
    ],
)  # fmt: skip
async def test_what_breaks_the_rules_is_named_and_ends_that_session_alone(desk, wrong, code):
    table = await desk()
    bad, good = await table.dial(), await table.dial()
    await bad.join(2)
    await good.join(2)
    bad.say(wrong)
    error, bye = await bad.hears(), await bad.hears()
    assert isinstance(error, Error) and error.code == code
    assert isinstance(bye, Bye) and (bye.code, bye.reason) == ("protocol", error.message)
    await bad.closed()
    good.step(0)
    assert await good.acts() == ([2, 3], [2, 3])
    assert table.server.environments == 2


async def test_a_refused_row_refuses_the_message_and_the_rest_may_be_sent_again(desk):
    table = await desk()
    peer = await table.dial()
    welcome = await peer.join(2)
    peer.step(0, epochs=[welcome.epochs[0], welcome.epochs[1] - 1])
    error = await peer.hears()
    assert (error.code, [(row.slot, row.code) for row in error.rows]) == ("stale_epoch", [(1, "stale_epoch")])
    assert table.count("serving/refused_rows_stale_epoch") == table.count("serving/refused_steps") == 1
    peer.step(0)
    assert await peer.acts() == ([0, 1], [0, 1])


async def test_without_a_grace_the_end_of_a_channel_ends_its_leases(desk):
    table = await desk(resume_grace_s=0.0)
    peer = await table.dial()
    await peer.join(2)
    await peer.channel.close()
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert table.server.environments == table.server.sessions == 0
    assert table.told[-1].reason == "lease_ended"


async def test_a_bye_ends_the_session(desk):
    table = await desk()
    peer = await table.dial()
    await peer.join(2)
    peer.say(Bye(code="leaving", reason="supper"))
    await peer.closed()
    assert table.server.environments == 0


@pytest.mark.parametrize(
    ("run_over", "code", "refusal"), [(True, "run_over", "run_over"), (False, "shutdown", "draining")]
)
async def test_drain_takes_leave_of_everybody_and_refuses_whoever_comes_later(desk, run_over, code, refusal):
    table = await desk()
    peer = await table.dial()
    await peer.join(2)
    await table.server.drain(run_over=run_over, reason="enough")
    drain, bye = await peer.hears(), await peer.hears()
    assert isinstance(drain, Drain) and drain.reason == "enough"
    assert isinstance(bye, Bye) and (bye.code, bye.reason) == (code, "enough")
    assert (await peer.closed()).clean
    assert table.told[-1].reason == "shutdown"
    late = await table.dial()
    late.greet()
    refused = await late.hears()
    assert (refused.code, refused.retry) == (refusal, not run_over)


async def test_drain_before_the_server_opened_does_not_leave_actors_waiting(desk):
    table = await desk(opened=False)
    peer = await table.dial()
    peer.greet()
    await peer.hears()
    await table.server.drain(run_over=False, reason="it does not compile")
    assert (await peer.hears_a(Bye)).code == "shutdown"
    await peer.closed()
    assert table.server.first_hello.done()
    late = await table.dial()
    late.greet()
    refused = await late.hears()
    assert (refused.code, refused.retry) == ("draining", True)


async def test_a_hello_that_crosses_the_end_is_no_fault_of_its_actor(desk, caplog):
    table = await desk(opened=False)
    peer = await table.dial()
    await asyncio.sleep(0.1)  # it is waited for
    draining = asyncio.ensure_future(table.server.drain(run_over=False, reason="it does not compile"))
    await asyncio.sleep(0)
    peer.greet()
    assert (await peer.hears_a(Bye)).code == "shutdown"
    await peer.closed()
    await draining
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_last_word_is_given_time_to_be_heard_and_meanwhile_the_slots_are_free(desk):
    """What the actor still sends is read and dropped: over gRPC it would take the unread BYE with it."""
    table = await desk(capacity=2)
    bad = await table.dial()
    await bad.join(2)
    bad.say(b"\x01\x01\0\0\x02\0\0\0too short")
    for _ in range(3):
        bad.step(0)
    await asyncio.sleep(0.5)
    other = await table.dial()
    assert (await other.join(2)).slots == [0, 1]
    assert isinstance(await bad.hears(), Error) and isinstance(await bad.hears(), Bye)
    bad.step(1)  # not refused: the channel is still open
    await bad.closed()
    assert asyncio.get_running_loop().time() == pytest.approx(1.0)
    other.step(0)
    assert await other.acts() == ([0, 1], [0, 1])


async def test_drain_ends_as_soon_as_every_actor_has_closed_its_channel(desk):
    table = await desk()
    peers = [await table.dial() for _ in range(3)]
    for peer in peers:
        await peer.join(1)

    async def leave(peer):
        await peer.hears_a(Bye)
        peer.step(0)
        await asyncio.sleep(0.2)
        await peer.channel.close()

    leaving = [asyncio.create_task(leave(peer)) for peer in peers]
    await table.server.drain(run_over=True, reason="enough")
    assert asyncio.get_running_loop().time() == pytest.approx(0.2)
    await asyncio.gather(*leaving)
