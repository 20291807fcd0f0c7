"""Silence, hung environments, rows that are not finite and steps in vain: who loses slots, and who gets them again."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from aioseed.serving.intake import ClosedBatch
from aioseed.serving.session import VAIN_STEPS_PER_S
from aioseed.serving.thread import Leased, Released
from aioseed.wire.messages import (
    Bye,
    Error,
    Lease,
    Ping,
    Pong,
    Revoke,
)

pytestmark = pytest.mark.virtual_time

EVERYBODY_ELSE_FIRST_S = 1e-6


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


async def test_how_far_the_actors_are_is_known_from_their_pongs(desk):
    table = await desk(ping_interval_s=5.0)
    peer, nearer = await table.dial(), await table.dial()
    assert all(map(math.isnan, table.server.afar))
    await peer.join(2)
    await nearer.join(1)
    assert await peer.hears() == Ping(number=1)
    await asyncio.sleep(0.25)
    peer.say(Pong(number=1, stepping_share=0.25))
    nearer.say(Pong(number=1))
    nearer.say(Pong(number=1, stepping_share=0.9))  # one too many
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert table.server.afar == (pytest.approx(250.0, rel=1e-3), 0.25)
    assert table.metrics.quantiles("serving/round_trip_ms").count == 2


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


async def test_a_learner_that_stood_still_reads_before_it_judges(desk):
    table = await desk(step_deadline_s=60.0)
    peer = await table.dial()
    await peer.join(2)
    peer.step(0)
    await peer.acts()
    loop = asyncio.get_running_loop()
    loop._jump(65.0)  # a suspended machine, or a callback that blocks the loop
    loop.call_later(0.1, peer.step, 1)  # what came meanwhile is read as soon as sockets are looked at
    assert await peer.acts() == ([0, 1], [100, 101])
    assert [table.count(f"serving/{what}") for what in ("silent", "suspended", "step_deadlines_missed")] == [0, 0, 0]
    await asyncio.sleep(10.0)
    assert table.count("serving/silent") == 1  # later silence is


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
    await peer.closed()
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


async def test_of_two_environments_that_hung_only_the_one_that_is_back_is_leased_again(desk):
    table = await desk(step_deadline_s=5.0, ping_timeout_s=600.0)
    peer = await table.dial()
    welcome = await peer.join(2)
    assert (await peer.hears_a(Revoke)).slots == [0, 1]
    peer.step(0, [1], welcome.epochs[1:])
    assert (await peer.hears_a(Lease)).slots == [1]
    assert table.server.environments == 1


async def test_in_lockstep_nothing_is_revoked_for_being_late(desk):
    table = await desk(capacity=2, lockstep=2, step_deadline_s=5.0, ping_timeout_s=600.0)
    peer = await table.dial()
    await peer.join(2, actor_index=0)
    await asyncio.sleep(60.0)
    assert table.server.environments == 2


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


async def test_rows_that_wait_are_served_before_inference_hears_that_their_lease_ended(desk):
    table = await desk(batch_deadline_s=5.0)
    leaving, other = await table.dial(), await table.dial()
    await leaving.join(2)
    await other.join(2)
    leaving.step(0)
    leaving.say(Bye(code="leaving"))
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert table.items[-2:] == [ClosedBatch, Released]


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
