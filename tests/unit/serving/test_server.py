"""Sessions from HELLO to BYE, in virtual time: an hour of silence takes no time, and a deadlock is an error."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from aioseed.errors import ChannelClosed
from aioseed.serving.intake import PlacedStep
from aioseed.serving.session import VAIN_STEPS_PER_S
from aioseed.serving.thread import Leased, Released
from aioseed.wire.columns import End
from aioseed.wire.messages import (
    Bye,
    Drain,
    Error,
    Lease,
    Ping,
    Pong,
    Refused,
    Revoke,
    Starting,
    Welcome,
)

pytestmark = pytest.mark.virtual_time

EVERYBODY_ELSE_FIRST_S = 1e-6


async def closed(peer) -> ChannelClosed:
    with pytest.raises(ChannelClosed) as caught:
        while True:
            await peer.hears()
    return caught.value


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
    await closed(two)
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
    await closed(one)
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert (await two.join(2)).slots == [0, 1]  # its leases are free again


async def test_slots_of_the_role_evaluate_come_from_the_top_and_inference_is_told(desk):
    table = await desk()
    await (await table.dial()).join(2)
    assert (await (await table.dial()).join(2, role="evaluate")).slots == [6, 7]
    assert [(item.slots.tolist(), item.evaluation) for item in table.told] == [([0, 1], False), ([6, 7], True)]


async def test_a_refusal_carries_the_field_and_ends_the_channel(desk):
    table = await desk(roles=frozenset({"evaluate"}))
    peer = await table.dial()
    peer.greet()
    refused = await peer.hears()
    assert isinstance(refused, Refused)
    assert (refused.code, refused.field, refused.ours, refused.theirs) == ("role", "role", '["evaluate"]', '"train"')
    assert (await closed(peer)).clean
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
    await closed(peer)


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
    await closed(bad)
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


async def test_pings_are_answered_and_sent(desk):
    table = await desk(ping_interval_s=5.0)
    peer = await table.dial()
    await peer.join(2)
    peer.say(Ping(number=41))
    assert await peer.hears() == Pong(number=41)
    assert await peer.hears() == Ping(number=1)
    peer.say(Pong(number=1))
    assert await peer.hears() == Ping(number=2)
    assert asyncio.get_running_loop().time() == pytest.approx(10.0, abs=1.1)


async def silent_until_suspended(table, peer):
    await asyncio.sleep(43.0)
    assert table.count("serving/suspended") == 1
    assert table.server.environments == 0
    assert isinstance(table.told[-1], Released) and table.told[-1].slots.tolist() == peer.welcome.slots


async def test_a_silent_session_loses_its_slots_and_joins_anew_when_its_stale_step_tells_that_it_woke(desk):
    table = await desk()
    peer = await table.dial()
    before = await peer.join(2)
    peer.step(0)
    await peer.acts()
    await silent_until_suspended(table, peer)
    peer.step(1)
    revoke = await peer.hears_a(Revoke)
    assert (revoke.slots, revoke.epochs) == (before.slots, before.epochs)
    lease = await peer.hears()
    assert isinstance(lease, Lease) and lease.slots == before.slots
    assert all(new > old for new, old in zip(lease.epochs, before.epochs, strict=True))
    assert isinstance(table.told[-1], Leased)
    error = await peer.hears()
    assert [row.code for row in error.rows] == ["stale_epoch"] * 2
    peer.step(0, epochs=lease.epochs)
    assert await peer.acts() == ([0, 1], [0, 1])
    assert table.server.environments == 2


async def test_a_session_that_woke_without_a_step_under_way_gets_its_slots_again(desk):
    table = await desk()
    peer = await table.dial()
    before = await peer.join(2)
    await silent_until_suspended(table, peer)
    peer.say(Pong(number=1))
    assert (await peer.hears_a(Lease)).slots == before.slots


async def test_a_session_whose_slots_went_to_another_is_told_to_connect_again(desk):
    table = await desk(capacity=2)
    frozen = await table.dial()
    await frozen.join(2)
    await silent_until_suspended(table, frozen)
    other = await table.dial()
    assert (await other.join(2)).slots == [0, 1]
    frozen.step(1)
    bye = await frozen.hears_a(Bye)
    assert bye.code == "replaced"
    other.step(0)
    assert await other.acts() == ([0, 1], [0, 1])


async def test_a_session_that_never_wakes_is_closed(desk):
    table = await desk(ping_interval_s=5.0, ping_timeout_s=5.0, resume_grace_s=10.0, suspended_s=60.0)
    peer = await table.dial()
    await peer.join(2)
    assert (await peer.hears_a(Bye)).code == "unresponsive"
    await closed(peer)
    assert asyncio.get_running_loop().time() == pytest.approx(80.0, abs=2.5)
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert table.server.sessions == 0


async def test_an_environment_that_hangs_loses_its_slot_and_gets_it_again_when_it_is_back(desk):
    table = await desk(step_deadline_s=20.0, batch_deadline_s=0.01)
    peer = await table.dial()
    welcome = await peer.join(2)
    loop = asyncio.get_running_loop()

    async def answer_pings():
        while True:
            await asyncio.sleep(1.0)
            peer.say(Pong(number=0))

    awake = asyncio.create_task(answer_pings())
    sequence, revoke = 0, None
    while revoke is None:
        peer.step(sequence, [0], welcome.epochs[:1])
        while not hasattr(message := await peer.hears(), "action"):
            revoke = message if isinstance(message, Revoke) else revoke
        sequence += 1
        await asyncio.sleep(1.0)
    assert (revoke.slots, revoke.reason) == ([1], "the step deadline was missed")
    assert loop.time() == pytest.approx(21.0, abs=2.0)
    peer.step(0, [1], welcome.epochs[1:])
    assert (await peer.hears_a(Error)).code == "not_leased"
    lease = await peer.hears_a(Lease)
    assert lease.slots == [1] and lease.epochs[0] > welcome.epochs[1]
    awake.cancel()


async def test_a_slot_that_sent_what_is_not_finite_begins_a_new_epoch_and_its_sibling_goes_on(desk):
    table = await desk()
    peer = await table.dial()
    welcome = await peer.join(2)
    peer.step(0)
    await peer.acts()
    table.server.expel_from(np.array([1]), np.array([welcome.epochs[1]], np.uint64))
    table.server.expel_from(np.array([0]), np.array([welcome.epochs[0] - 1], np.uint64))  # of an older epoch
    revoke, lease = await peer.hears_a(Revoke), await peer.hears_a(Lease)
    assert (revoke.slots, revoke.epochs) == ([1], welcome.epochs[1:])
    assert revoke.reason == "a reward or an observation is not finite"
    assert lease.slots == [1] and lease.epochs[0] > welcome.epochs[1]
    assert isinstance(table.told[-2], Released) and isinstance(table.told[-1], Leased)
    peer.step(1, [0], welcome.epochs[:1])
    peer.step(0, [1], lease.epochs)
    acted = [await peer.acts(), await peer.acts()]
    assert sorted(acted) == [([0], [100]), ([1], [1])]
    assert table.count("serving/nonfinite_rows") == 1


async def test_a_slot_that_is_expelled_has_lost_its_lease_before_its_batch_is_answered(desk):
    table = await desk()
    peer = await table.dial()
    welcome = await peer.join(1)
    peer.step(0)
    await peer.acts()
    table.expels = [0]
    peer.step(1)
    lease = await peer.hears_a(Lease)
    assert await peer.acts() == ([0], [100])
    peer.step(2)
    assert (await peer.hears_a(Error)).code == "stale_epoch"
    peer.step(0, [0], lease.epochs)
    assert await peer.acts() == ([0], [0])
    assert lease.epochs[0] > welcome.epochs[0]


async def test_a_row_that_waits_for_its_batch_is_not_overdue(desk):
    table = await desk(step_deadline_s=5.0, batch_deadline_s=0.01, ping_timeout_s=600.0)
    peers = [await table.dial() for _ in range(3)]
    for number, peer in enumerate(peers):
        await peer.join(1, actor_id=f"actor {number}")
        peer.step(0)
        await peer.acts()
    table.held = []
    for peer in peers:
        peer.step(1)
        await asyncio.sleep(0.1)
    assert len(table.held) == 2, "the third one's row waits"
    await asyncio.sleep(60.0)
    assert table.count("serving/step_deadlines_missed") == 0


@pytest.mark.parametrize("sequence", [0, 7], ids=["repeated", "refused"])
async def test_steps_that_bring_nothing_are_borne_to_a_point(desk, sequence):
    table = await desk()
    peer = await table.dial()
    await peer.join(1)
    table.held = []
    peer.step(0)
    for _ in range(VAIN_STEPS_PER_S + 1):
        peer.step(sequence)
    assert (await peer.hears_a(Bye)).reason.endswith("repeated or refused steps a second")


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
    await closed(peer)
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
    assert (await closed(peer)).clean
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
    await closed(peer)
    assert table.server.first_hello.done()


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
    await closed(bad)
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
