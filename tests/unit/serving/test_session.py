from __future__ import annotations

import math

import numpy as np

from aioseed.serving.groups import CarefulReply, KnownGroup
from aioseed.serving.session import ROUND_TRIPS, Session, seen_from_here
from aioseed.transport.channel import DialOptions, ListenOptions
from aioseed.transport.memory import MemoryChannel
from aioseed.wire.messages import Bye, Drain, Ping, Pong, decode_control

from .conftest import ACTIONS, STEPS


def session_and_peer() -> tuple[Session, MemoryChannel]:
    ours, theirs = MemoryChannel.pair("memory://test", 1, ListenOptions(), DialOptions())
    return Session(1, ours, 5.0), theirs


def active() -> tuple[Session, MemoryChannel]:
    session, peer = session_and_peer()
    session.machine.received("hello")
    session.machine.sent("welcome")
    return session, peer


async def test_it_says_only_what_the_table_allows() -> None:
    session, peer = session_and_peer()
    session.tell(Drain(reason="too early"))
    session.machine.received("hello")
    session.tell(Ping(number=3))
    assert decode_control(await peer.receive()) == Ping(number=3)


async def test_nothing_is_said_after_the_last_word() -> None:
    session, peer = active()
    session.tell(Bye(code="shutdown"))
    assert session.is_over
    session.tell(Ping(number=3))
    await session.channel.close()
    assert isinstance(decode_control(await peer.receive()), Bye)


async def test_a_channel_that_has_ended_swallows_what_is_said() -> None:
    session, peer = active()
    await peer.close()
    session.answer(b"\x02an action")
    session.tell(Ping(number=3))
    assert not session.is_over


def test_it_holds_what_it_was_given_and_has_not_lost() -> None:
    session, _ = session_and_peer()
    assert session.held.size == 0
    session.slots, session.lost = np.array([3, 4, 5]), np.array([4])
    assert session.held.tolist() == [3, 5]


async def test_who_gives_its_slots_up_knows_no_groups_and_owes_no_answers() -> None:
    session, _ = active()
    session.slots = np.array([0])
    head = bytes(STEPS.identity_bytes(1))
    session.groups[b"...."] = KnownGroup(session, head, session.slots, STEPS, ACTIONS)
    session.careful[b""] = CarefulReply(b"", session.slots, np.zeros(1, np.uint32))
    session.give_up_slots()
    assert not (session.groups or session.careful or session.held.size)


def test_a_round_trip_ends_with_the_first_pong_of_the_newest_ping() -> None:
    session, _ = session_and_peer()
    assert session.ponged(Pong(number=0), 6.0) is None  # of no ping
    session.ping(10.0)
    session.ping(14.0)
    assert session.ponged(Pong(number=1), 14.5) is None
    assert math.isnan(session.round_trip_s)
    assert session.ponged(Pong(number=2), 14.75) == 0.75
    assert session.ponged(Pong(number=2), 14.0) is None
    assert session.round_trip_s == 0.75


def test_an_actor_is_as_far_as_the_shortest_of_its_last_round_trips() -> None:
    session, _ = session_and_peer()
    ways_s = [0.5, 0.25, *[0.75] * (ROUND_TRIPS - 1), 1.0]
    seen = []
    for number, way_s in enumerate(ways_s, 1):
        session.ping(10.0 * number)
        session.ponged(Pong(number=number), 10.0 * number + way_s)
        seen.append(session.round_trip_s)
    assert seen == [0.5, *[0.25] * ROUND_TRIPS, 0.75]


def test_an_actor_steps_for_as_long_as_it_said_lately() -> None:
    session, _ = session_and_peer()
    assert math.isnan(session.stepping_share)
    shares = [None, 0.0, *[0.5] * (ROUND_TRIPS - 1), 1.0, None]
    seen = []
    for number, share in enumerate(shares, 1):
        session.ping(10.0 * number)
        session.ponged(Pong(number=number, stepping_share=share), 10.0 * number)
        seen.append(session.stepping_share)
    assert seen[1] == 0.0 and seen[2] == 0.25
    assert seen[-3:] == [0.5 * (ROUND_TRIPS - 1) / ROUND_TRIPS, (0.5 * (ROUND_TRIPS - 1) + 1) / ROUND_TRIPS, seen[-2]]


def test_of_several_actors_the_environments_count() -> None:
    def known(environments: int, way_s: float | None, share: float | None = None) -> Session:
        session, _ = session_and_peer()
        session.slots = np.arange(environments)
        if way_s is not None:
            session.ping(10.0)
            session.ponged(Pong(number=1, stepping_share=share), 10.0 + way_s)
        return session

    for nobody in ([], [known(8, None), known(0, 0.5, 0.5)]):
        assert all(map(math.isnan, seen_from_here(nobody)))
    some = [known(1, 0.25, 0.5), known(2, 0.25), known(4, 0.75, 0.0), known(90, None)]
    assert seen_from_here(some) == (750.0, 0.1)
