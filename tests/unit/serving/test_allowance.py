"""What a token allows, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from aioseed.errors import ChannelClosed
from aioseed.transport.keyring import Credential
from aioseed.transport.token import Secret
from aioseed.wire.messages import Bye, Error, Ping, Pong, Refused, Revoke, Welcome

pytestmark = pytest.mark.virtual_time


def give(table, credential: Credential) -> None:
    """Let every session that has no credential yet have this one, as a listener that asks for tokens would."""
    for session in table.server._sessions.values():
        if session.channel.credential is None:
            session.channel.credential = credential


async def joined(table, credential: Credential, environments: int, **fields: str):
    peer = await table.dial()
    await asyncio.sleep(0.001)  # until its session is there
    give(table, credential)
    peer.greet(environments, **fields)
    return peer


MINE = Credential(Secret("mine").digest(), "lab-7", max_environments=3)
OTHER = Credential(Secret("other").digest(), "lab-8", max_environments=3)


async def test_one_tokens_environments_are_added_up_over_its_sessions(desk):
    table = await desk()
    first = await joined(table, MINE, 2)
    assert (await first.hears()).kind == "welcome"
    second = await joined(table, MINE, 2)
    refused = await second.hears_a(Refused)
    assert refused.code == "capacity" and refused.retry and "lab-7" in refused.message and refused.ours == "1"
    assert (await (await joined(table, OTHER, 3)).hears()).kind == "welcome"
    assert (await (await joined(table, MINE, 1)).hears()).kind == "welcome"


async def test_an_actor_that_comes_back_is_not_counted_beside_itself(desk):
    table = await desk()
    first = await joined(table, MINE, 2)
    welcome = await first.hears_a(Welcome)
    await first.channel.close()
    again = await joined(table, MINE, 2, resume_token=welcome.resume_token)
    assert (await again.hears_a(Welcome)).epochs == welcome.epochs


async def test_a_name_alone_takes_nothing_from_who_shows_another_token_at_the_door(desk):
    table = await desk()
    first = await joined(table, MINE, 2, actor_id="a")
    welcome = await first.hears_a(Welcome)
    await first.channel.close()
    refused = await (await joined(table, OTHER, 2, actor_id="a", resume_token=welcome.resume_token)).hears_a(Refused)
    assert (refused.code, "another actor's" in refused.message) == ("resume_token", True)
    theirs = await (await joined(table, OTHER, 2, actor_id="a")).hears_a(Welcome)
    assert not {*theirs.slots} & {*welcome.slots} and table.server.environments == 4
    again = await (await joined(table, MINE, 2, actor_id="a", resume_token=welcome.resume_token)).hears_a(Welcome)
    assert (again.slots, again.epochs) == (welcome.slots, welcome.epochs)


async def test_more_than_the_token_ever_allows_is_not_worth_asking_again(desk):
    table = await desk()
    refused = await (await joined(table, MINE, 4)).hears_a(Refused)
    assert not refused.retry


async def test_slots_that_were_revoked_are_not_given_again_beyond_what_the_token_allows(desk):
    table = await desk(step_deadline_s=5.0, ping_timeout_s=600.0)
    first = await joined(table, MINE, 2)
    first.welcome = await first.hears_a(Welcome)
    await first.hears_a(Revoke)
    second = await joined(table, MINE, 3, role="evaluate")
    assert (await second.hears()).kind == "welcome"
    first.step(0)
    assert "lab-7 allows 3" in (await first.hears_a(Bye)).reason
    assert table.table.leased == 3


async def test_who_comes_back_gets_slots_that_it_lost_only_if_its_token_allows_them_still(desk):
    table = await desk(step_deadline_s=5.0, resume_grace_s=60.0, batch_deadline_s=0.01, ping_timeout_s=600.0)
    first = await joined(table, MINE, 3)
    first.welcome = welcome = await first.hears_a(Welcome)
    for sequence in range(8):  # two of its environments hang
        first.step(sequence, welcome.slots[:1], welcome.epochs[:1])
        await asyncio.sleep(1.0)
    second = await joined(table, MINE, 2, actor_id="another")
    assert (await second.hears()).kind == "welcome"
    await first.channel.close()
    token = {"actor_id": "actor of 3", "resume_token": welcome.resume_token}
    refused = await (await joined(table, MINE, 3, **token)).hears_a(Refused)
    assert (refused.code, refused.retry) == ("capacity", True) and "lab-7 allows 3" in refused.message
    second.say(Bye(code="leaving"))
    again = await (await joined(table, MINE, 3, **token)).hears_a(Welcome)
    assert again.slots == welcome.slots and again.epochs[0] == welcome.epochs[0]


async def test_a_flood_of_messages_that_are_no_steps_ends_its_session_alone(desk):
    table = await desk(messages_per_s=5.0)
    loud, quiet = await table.dial(), await table.dial()
    await loud.join(1)
    await quiet.join(1)
    for number in range(21):
        loud.say(Ping(number=number))
    heard = []
    with pytest.raises(ChannelClosed):
        while True:
            heard.append(await loud.hears())
    assert [message.kind for message in heard] == ["pong"] * 20 + ["error", "bye"]
    assert isinstance(heard[-2], Error) and isinstance(heard[-1], Bye)
    quiet.say(Ping(number=1))
    await quiet.hears_a(Pong)


async def test_messages_that_nobody_knows_are_borne_no_longer(desk):
    table = await desk(messages_per_s=5.0)
    peer = await table.dial()
    await peer.join(1)
    for _ in range(21):
        peer.say(b"\x63 of a later version")
    heard = [await peer.hears() for _ in range(22)]
    assert [message.code for message in heard] == ["unknown_message"] * 20 + ["unexpected_message", "protocol"]


async def test_messages_at_the_allowed_pace_never_end(desk):
    table = await desk(messages_per_s=5.0)
    peer = await table.dial()
    await peer.join(1)
    for number in range(200):
        peer.say(Ping(number=number))
        await peer.hears_a(Pong)
        await asyncio.sleep(0.2)
