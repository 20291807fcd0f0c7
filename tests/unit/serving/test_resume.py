"""A session whose channel broke goes on over another one: same slots, same epochs, every row applied once."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from aioseed.errors import ChannelClosed
from aioseed.serving.thread import Leased, Released
from aioseed.wire.messages import Bye, Lease, Pong, Refused, Starting, Welcome

pytestmark = pytest.mark.virtual_time

EVERYBODY_ELSE_FIRST_S = 1e-6


async def back(desk, welcome, environments=2, **fields):
    """Return a new peer that has said HELLO with the token of `welcome`, and what it heard."""
    peer = await desk.dial()
    peer.greet(environments, resume_token=welcome.resume_token, **fields)
    while not isinstance(answer := await peer.hears(), Welcome | Refused):
        pass
    peer.welcome = answer if isinstance(answer, Welcome) else None
    return peer, answer


async def cut(peer):
    await peer.channel.close()
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)


async def test_a_broken_session_goes_on_under_the_same_epochs_and_inference_is_told_nothing(desk):
    table = await desk()
    peer = await table.dial()
    first = await peer.join(2)
    for sequence in range(3):
        peer.step(sequence)
        await peer.acts()
    told = len(table.told)
    await cut(peer)
    assert table.server.sessions == 0 and table.server.environments == 2
    peer, second = await back(table, first)
    assert (second.slots, second.epochs) == (first.slots, first.epochs)
    assert second.resume_token != first.resume_token
    peer.step(2)  # unanswered, for all that the actor knows
    assert await peer.acts() == ([0, 1], [200, 201])
    peer.step(3)
    assert await peer.acts() == ([0, 1], [300, 301])
    assert len(table.told) == told
    assert table.count("serving/resumed") == table.count("serving/parked") == 1


async def test_a_row_that_waits_in_a_batch_is_applied_once_and_answered_to_the_one_that_came_back(desk):
    table = await desk(batch_deadline_s=5.0)
    peer, other = await table.dial(), await table.dial()
    first = await peer.join(2)
    await other.join(2)
    peer.step(0)
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    await cut(peer)
    peer, _ = await back(table, first)
    peer.step(0)
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert table.table.in_batch[:2].all()  # the first copy still waits
    other.step(0)
    assert await peer.acts() == ([0, 1], [0, 1])
    peer.step(1)
    other.step(1)
    assert await peer.acts() == ([0, 1], [100, 101])  # and not once more what was answered


async def test_nobody_waits_for_a_session_that_is_away(desk):
    table = await desk(batch_deadline_s=5.0)
    gone, here = await table.dial(), await table.dial()
    await gone.join(2)
    await here.join(2)
    gone.step(0)
    here.step(0)
    await here.acts()
    gone.step(1)
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    await cut(gone)
    loop = asyncio.get_running_loop()
    before_s = loop.time()
    for sequence in range(1, 10):
        here.step(sequence)
        await here.acts()
    assert loop.time() - before_s < 0.1


async def test_who_broke_off_is_expected_no_more_once_the_rows_that_wait_are_answered(desk):
    table = await desk(batch_deadline_s=5.0)
    here, slow, *gone = [await table.dial() for _ in range(4)]
    for number, peer in enumerate((here, slow, *gone)):
        await peer.join(2, actor_id=f"actor {number}")
    for sequence in range(2):  # the second time they are known groups
        for peer in (here, slow, *gone):
            peer.step(sequence)
        await here.acts()
    table.held = []
    here.step(2)
    await asyncio.sleep(0.1)
    for peer in gone:
        peer.step(2)
    await asyncio.sleep(0.1)
    assert len(table.held) == 1  # the rows of those who go wait for the batch behind it
    for peer in gone:
        await peer.channel.close()
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert table.table.late_count == 0
    table.serve_held()
    await asyncio.sleep(0.1)
    assert table.table.late_count == 4


@pytest.mark.parametrize("grace_s", [0.0, 30.0], ids=["and ends", "and may come back"])
async def test_a_batch_that_waited_for_a_session_closes_when_that_breaks_off(desk, grace_s):
    table = await desk(batch_deadline_s=5.0, resume_grace_s=grace_s)
    gone, here = await table.dial(), await table.dial()
    await gone.join(2)
    await here.join(2)
    here.step(0)
    await asyncio.sleep(1.0)
    await cut(gone)
    await here.acts()
    assert asyncio.get_running_loop().time() == pytest.approx(1.0, abs=0.1)


async def test_who_was_heard_again_after_a_silence_has_the_whole_grace_when_its_channel_breaks(desk):
    table = await desk(ping_interval_s=5.0, ping_timeout_s=5.0, resume_grace_s=20.0)
    peer = await table.dial()
    first = await peer.join(2)
    await asyncio.sleep(30.0)
    assert table.count("serving/silent") == 1 and table.count("serving/suspended") == 0
    peer.step(0)
    await peer.acts()
    await cut(peer)
    await asyncio.sleep(15.0)
    assert isinstance((await back(table, first))[1], Welcome)


async def test_what_is_not_finite_costs_a_session_that_is_away_its_slot(desk):
    table = await desk()
    peer = await table.dial()
    first = await peer.join(2)
    peer.step(0)
    await peer.acts()
    await cut(peer)
    table.server.expel_from(np.array([1]), np.array(first.epochs[1:], np.uint64))
    await asyncio.sleep(EVERYBODY_ELSE_FIRST_S)
    assert table.server.environments == 1
    _, second = await back(table, first)
    assert second.epochs[0] == first.epochs[0] and second.epochs[1] > first.epochs[1]


async def test_a_token_is_good_once_and_each_bad_one_is_refused_in_its_own_words(desk):
    table = await desk()
    peer = await table.dial()
    first = await peer.join(2)
    await cut(peer)
    _, second = await back(table, first)
    for token, why in (
        (first.resume_token, "used before, or has expired"),
        ("of another make", "not one of this learner"),
        ("7." + first.resume_token.partition(".")[2], "another start of the learner"),
    ):
        _, refused = await back(table, second.model_copy(update={"resume_token": token}))
        assert isinstance(refused, Refused)
        assert (refused.code, refused.field, refused.retry) == ("resume_token", "resume_token", True)
        assert why in refused.message
    assert table.count("serving/refused_resume_token") == 3


@pytest.mark.parametrize(
    ("environments", "fields", "why"),
    [
        (3, {"actor_id": "actor of 2"}, "other environments"),
        (2, {"role": "evaluate"}, "other environments"),
        (2, {"actor_id": "x"}, "another actor's"),
    ],
)
async def test_a_token_stands_for_its_actor_and_its_environments(desk, environments, fields, why):
    table = await desk()
    peer = await table.dial()
    first = await peer.join(2)
    await cut(peer)
    _, refused = await back(table, first, environments, **fields)
    assert refused.code == "resume_token" and why in refused.message
    assert isinstance((await back(table, first))[1], Welcome)  # the refused ones have not spent it


async def test_who_comes_back_too_late_is_refused_and_its_slots_are_free(desk):
    table = await desk(resume_grace_s=20.0)
    peer = await table.dial()
    first = await peer.join(2)
    await cut(peer)
    await asyncio.sleep(19.0)
    assert table.server.environments == 2
    await asyncio.sleep(3.0)
    assert table.server.environments == 0 and isinstance(table.told[-1], Released)
    assert table.count("serving/resume_expired") == 1
    assert (await back(table, first))[1].code == "resume_token"


async def test_an_actor_that_found_the_break_first_takes_the_place_of_its_own_old_session(desk):
    table = await desk()
    old = await table.dial()
    first = await old.join(2)
    old.step(0)
    await old.acts()
    new, second = await back(table, first)
    assert second.epochs == first.epochs
    new.step(0)
    assert await new.acts() == ([0, 1], [0, 1])
    bye = await old.hears_a(Bye)
    assert bye.code == "replaced"
    with pytest.raises(ChannelClosed):
        while True:
            await old.hears()
    new.step(1)
    assert await new.acts() == ([0, 1], [100, 101])
    assert table.server.sessions == 1 and table.server.environments == 2


async def test_a_silent_session_keeps_its_slots_for_the_grace_and_goes_on_over_the_same_channel(desk):
    table = await desk(resume_grace_s=20.0)
    peer = await table.dial()
    await peer.join(2)
    peer.step(0)
    await peer.acts()
    await asyncio.sleep(25.0)
    assert table.count("serving/silent") == 1 and table.count("serving/suspended") == 0
    peer.step(1)
    assert await peer.acts() == ([0, 1], [100, 101])


async def test_a_silent_session_may_go_on_over_another_channel(desk):
    table = await desk(resume_grace_s=20.0)
    peer = await table.dial()
    first = await peer.join(2)
    await asyncio.sleep(25.0)
    _, second = await back(table, first)
    assert second.epochs == first.epochs


async def test_a_channel_that_breaks_in_a_silence_gives_no_second_grace(desk):
    table = await desk(resume_grace_s=20.0)
    peer = await table.dial()
    await peer.join(2)
    await asyncio.sleep(25.0)
    await cut(peer)
    assert table.server.environments == 2
    await asyncio.sleep(8.0)
    assert table.server.environments == 0


async def test_a_second_silence_is_counted_from_its_own_beginning(desk):
    table = await desk(resume_grace_s=20.0)
    peer = await table.dial()
    await peer.join(2)
    for _ in range(2):
        await asyncio.sleep(25.0)
        peer.say(Pong(number=0))
        await asyncio.sleep(1.0)
    assert table.count("serving/silent") == 2 and table.count("serving/suspended") == 0


async def test_a_token_is_not_good_while_its_session_is_suspended_but_once_that_has_its_slots_again(desk):
    table = await desk(resume_grace_s=20.0)
    peer = await table.dial()
    first = await peer.join(2)
    await asyncio.sleep(40.0)
    assert table.count("serving/suspended") == 1
    assert (await back(table, first))[1].code == "resume_token"
    peer.say(Pong(number=0))
    lease = await peer.hears_a(Lease)
    await cut(peer)
    assert (await back(table, first))[1].epochs == lease.epochs


async def test_a_silent_session_is_found_within_ten_seconds(desk):
    table = await desk()
    await (await table.dial()).join(2)
    await asyncio.sleep(10.0)
    assert table.count("serving/silent") == 1


async def test_an_actor_that_was_started_again_does_not_wait_for_itself(desk):
    table = await desk(capacity=2)
    peer = await table.dial()
    first = await peer.join(2)
    await cut(peer)
    again = await table.dial()
    second = await again.join(2)
    assert second.slots == first.slots and second.epochs > first.epochs


async def test_an_actor_that_was_started_again_leaves_nothing_behind_where_there_is_room(desk):
    table = await desk(capacity=8)
    peer = await table.dial()
    first = await peer.join(2)
    await cut(peer)
    again = await table.dial()
    await again.join(2)
    assert table.server.environments == 2
    assert (await back(table, first))[1].code == "resume_token"


async def test_an_actor_that_is_here_comes_before_one_that_is_away(desk):
    table = await desk(capacity=7)
    await (await table.dial()).join(1)
    away = [await table.dial() for _ in range(2)]
    tokens = [await peer.join(2, actor_id=name) for peer, name in zip(away, "ab", strict=True)]
    for peer in away:
        await cut(peer)
    big = await table.dial()
    big.greet(7, actor_id="too big")
    assert (await big.hears()).code == "capacity"
    assert table.server.environments == 5  # nobody was given up in vain
    await (await table.dial()).join(4, actor_id="c")
    assert (await back(table, tokens[0], actor_id="a"))[1].code == "resume_token"
    assert isinstance((await back(table, tokens[1], actor_id="b"))[1], Welcome)


async def test_slots_that_were_revoked_before_the_break_begin_anew(desk):
    table = await desk(step_deadline_s=5.0, resume_grace_s=60.0, batch_deadline_s=0.01)
    peer = await table.dial()
    first = await peer.join(2)
    peer.step(0)
    await peer.acts()
    for sequence in range(1, 9):
        peer.step(sequence, [0], first.epochs[:1])
        await asyncio.sleep(1.0)
    assert table.count("serving/step_deadlines_missed") == 1
    await cut(peer)
    _, second = await back(table, first)
    assert second.slots == [0, 1]
    assert second.epochs[0] == first.epochs[0] and second.epochs[1] > first.epochs[1]
    assert isinstance(table.told[-1], Leased) and table.told[-1].slots.tolist() == [1]


async def test_a_learner_that_goes_down_keeps_nobody(desk):
    table = await desk()
    away, here = await table.dial(), await table.dial()
    await away.join(2, actor_id="away")
    await here.join(3, actor_id="here")
    await cut(away)
    drained = asyncio.create_task(table.server.drain(run_over=False, reason="enough"))
    await here.hears_a(Bye)
    await cut(here)
    await drained
    assert table.server.environments == 0
    assert [(item.slots.tolist(), item.reason) for item in table.told[-2:]] == [
        ([0, 1], "shutdown"),
        ([2, 3, 4], "shutdown"),
    ]


async def test_a_suspended_session_that_breaks_off_has_nothing_to_come_back_for(desk):
    table = await desk(resume_grace_s=20.0)
    peer = await table.dial()
    first = await peer.join(2)
    await asyncio.sleep(40.0)
    assert table.count("serving/suspended") == 1
    await cut(peer)
    assert table.count("serving/parked") == 0
    assert (await back(table, first))[1].code == "resume_token"


async def test_a_herd_that_comes_back_at_once_is_taken_in_one_a_turn(desk):
    table = await desk(capacity=200)
    here = await table.dial()
    await here.join(1)
    herd = [await table.dial() for _ in range(100)]
    for number, peer in enumerate(herd):
        peer.greet(1, actor_id=f"herd {number}")
    here.step(0)
    await here.acts()
    for peer in herd:
        await peer.hears_a(Welcome)
    assert table.server.sessions == 101


async def test_a_learner_that_still_compiles_refuses_tokens_at_once(desk):
    """It gave none; those who come back after its restart ask anew meanwhile, and are welcomed as soon as it opens."""
    table = await desk(opened=False)
    peer = await table.dial()
    peer.greet(2, resume_token="1.of-the-start-before", acknowledged_rows=7)
    refused = await peer.hears()
    assert (refused.code, refused.field, refused.retry) == ("resume_token", "resume_token", True)
    assert "another start" in refused.message
    assert asyncio.get_running_loop().time() == pytest.approx(0.0)
    peer = await table.dial()
    peer.greet(2, acknowledged_rows=7)
    assert isinstance(await peer.hears(), Starting)
    table.open()
    assert (await peer.hears_a(Welcome)).slots == [0, 1]
