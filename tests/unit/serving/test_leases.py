"""Who gives way to whom where slots are few, and places in lockstep mode."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from aioseed.errors import ChannelClosed
from aioseed.serving.thread import Leased, Released
from aioseed.wire.columns import ActionRows
from aioseed.wire.messages import Bye, Error, Lease, Ping, Pong, Refused, Revoke, Welcome

pytestmark = pytest.mark.virtual_time


async def asks(desk, environments=2, **fields):
    """Return a peer that has said HELLO, and the answer."""
    peer = await desk.dial()
    peer.greet(environments, **fields)
    answer = await peer.hears()
    assert isinstance(answer, Welcome | Refused)
    peer.welcome = answer if isinstance(answer, Welcome) else None
    return peer, answer


async def cut(peer):
    await peer.channel.close()
    await asyncio.sleep(1e-6)


async def test_in_lockstep_a_place_gives_the_slots_whoever_comes_first(desk):
    table = await desk(capacity=8, lockstep=6)
    for place in (2, 0, 1):
        _, welcome = await asks(table, actor_id=f"at {place}", actor_index=place)
        assert welcome.slots == [2 * place, 2 * place + 1]


@pytest.mark.parametrize(
    ("capacity", "lockstep", "last"),
    [(8, 4, "4"), (4, 8, "4 (serving.max_environments)"), (5, 8, "5 (serving.max_environments)")],
)
async def test_in_lockstep_a_place_that_the_run_does_not_have_is_refused_for_good(desk, capacity, lockstep, last):
    table = await desk(capacity=capacity, lockstep=lockstep)
    _, refused = await asks(table, actor_index=2)
    assert (refused.code, refused.field, refused.theirs, refused.retry) == ("capacity", "actor_index", "2", False)
    assert refused.message == (
        "in lockstep an actor of 2 environments at place 2 (--actor-index) has the slots 4 to 5, and this run has"
        f" {last}, counted from 0"
    )
    assert isinstance((await asks(table, actor_index=1))[1], Welcome)


async def test_in_lockstep_a_place_that_somebody_has_is_refused_as_such(desk):
    table = await desk(capacity=8, lockstep=4)
    peer, _ = await asks(table, actor_id="first")
    away, _ = await asks(table, actor_id="away", actor_index=1)
    await cut(away)
    for environments in (1, 2, 3, 4):
        _, refused = await asks(table, environments, actor_id="forgot its place")
        assert (refused.code, refused.field, refused.retry) == ("capacity", "actor_index", True)
        assert "at place 0 (--actor-index) has the slots 0 to" in refused.message
        assert refused.message.endswith("and another actor has some")
    assert table.server.environments == 4  # nobody was given up in vain
    await cut(peer)
    assert isinstance((await asks(table, actor_id="forgot its place"))[1], Welcome)


async def test_in_lockstep_only_who_had_that_place_gives_way_to_an_actor_that_was_started_again(desk):
    table = await desk(capacity=8, lockstep=6)
    peers = [(await asks(table, actor_id=f"at {place}", actor_index=place)) for place in range(3)]
    for peer, _ in peers:
        await cut(peer)
    _, again = await asks(table, actor_id="another process", actor_index=1)
    assert again.slots == [2, 3] and again.epochs > peers[1][1].epochs
    for place in (0, 2):
        fields = {"actor_id": f"at {place}", "actor_index": place, "resume_token": peers[place][1].resume_token}
        assert (await asks(table, **fields))[1].epochs == peers[place][1].epochs


async def test_in_lockstep_the_only_one_that_is_away_gives_way_too(desk):
    table = await desk(capacity=8, lockstep=2)
    peer, first = await asks(table, actor_id="first")
    await cut(peer)
    _, second = await asks(table, actor_id="another process")
    assert second.slots == first.slots and table.server.environments == 2


async def test_slots_that_are_free_already_are_not_counted_as_those_of_who_is_away(desk):
    table = await desk(capacity=4, step_deadline_s=5.0, resume_grace_s=600.0, batch_deadline_s=0.01, ping_timeout_s=600)
    here, _ = await asks(table, 1, actor_id="here")
    peer, welcome = await asks(table, 3, actor_id="away")
    here.step(0)
    peer.step(0)
    await asyncio.sleep(0.1)
    for sequence in range(1, 8):  # two of its three environments hang
        await asyncio.sleep(1.0)
        here.step(sequence)
        peer.step(sequence, welcome.slots[:1], welcome.epochs[:1])
    assert table.server.environments == 2
    await cut(peer)
    _, refused = await asks(table, 4, actor_id="too big")
    assert refused.code == "capacity" and refused.message.startswith("4 environments were asked for, 2 slots are free")
    assert table.server.environments == 2, "who is away was given up in vain"


async def test_who_comes_back_for_slots_that_another_has_meanwhile_is_refused_and_may_ask_again(desk):
    table = await desk(capacity=3, step_deadline_s=5.0, resume_grace_s=60.0, batch_deadline_s=0.01, ping_timeout_s=600)
    peer, first = await asks(table, actor_id="back")
    for sequence in range(8):  # one of its two environments hangs
        peer.step(sequence, first.slots[:1], first.epochs[:1])
        await asyncio.sleep(1.0)
    assert (await peer.hears_a(Revoke)).slots == [1]
    await cut(peer)
    other, _ = await asks(table, actor_id="other")
    token = {"actor_id": "back", "resume_token": first.resume_token}
    _, refused = await asks(table, **token)
    assert (refused.code, refused.retry) == ("capacity", True)
    assert refused.message.startswith("1 environments were asked for, 0 slots are free")
    other.say(Bye(code="leaving"))
    await asyncio.sleep(0.1)
    _, again = await asks(table, **token)
    assert again.slots == [0, 1] and again.epochs[0] == first.epochs[0] and again.epochs[1] > first.epochs[1]


async def test_only_the_session_that_lost_slots_is_told_so_and_warned_of(desk, caplog):
    table = await desk(step_deadline_s=5.0, batch_deadline_s=0.01, ping_timeout_s=600.0)
    guilty, _ = await asks(table, actor_id="guilty")
    innocent, _ = await asks(table, actor_id="innocent")
    for _ in range(2):
        table.server.expel_from(np.array([0]), table.table.epoch[:1])
        assert (await guilty.hears_a(Revoke)).slots == [0]
        assert (await guilty.hears_a(Lease)).slots == [0]
    assert [type(item) for item in table.told[-4:]] == [Released, Leased] * 2
    for sequence in range(8):  # the other's environments hang
        innocent.step(sequence)
        await asyncio.sleep(1.0)
    assert table.server.environments == 2
    assert [item.reason for item in table.told if isinstance(item, Released)] == ["lease_ended"] * 3
    innocent.say(Bye(code="leaving"))
    heard = []
    with pytest.raises(ChannelClosed):
        while True:
            heard.append(await innocent.hears())
    assert {type(message) for message in heard} == {ActionRows, Ping}
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "environments of guilty sent what is not finite; they begin anew",
        "2 environments of guilty missed their step deadline",
    ]


async def test_a_refused_step_of_slots_that_are_leased_gives_none_again(desk):
    table = await desk()
    peer, _ = await asks(table)
    told = len(table.told)
    peer.step(7)
    assert (await peer.hears_a(Error)).code == "sequence_gap"
    peer.step(0)
    assert isinstance(await peer.hears(), ActionRows) and len(table.told) == told


async def test_a_session_that_woke_is_told_once_and_may_fall_silent_again(desk):
    table = await desk(resume_grace_s=5.0, suspended_s=600.0)
    peer, _ = await asks(table)
    for times in (1, 2):
        await asyncio.sleep(20.0)
        assert (table.count("serving/suspended"), table.server.environments) == (times, 0)
        peer.say(Pong(number=0))
        await peer.hears_a(Lease)
        peer.say(Pong(number=0))
        await asyncio.sleep(2.0)
        assert table.server.environments == 2
        peer.say(Pong(number=0))
        heard = [await peer.hears() for _ in range(2)]
        assert {type(message) for message in heard} == {Ping}
