"""Packed STEPs over a channel, from HELLO to BYE."""

from __future__ import annotations

import asyncio

import pytest

from aioseed.wire.messages import Bye, Drain, Error
from aioseed.wire.packing import DEFLATE, PACKED_STEP_TYPE

from .conftest import STEPS


async def test_a_welcome_offers_to_unpack_and_packed_and_plain_steps_are_answered(desk) -> None:
    table = await desk(capacity=64)
    peer = await table.dial()
    welcome = await peer.join(20)
    assert welcome.packings == [DEFLATE]
    for sequence, packed in enumerate([True, True, False, True, False]):
        peer.step(sequence, packed=packed)
        slots, actions = await peer.acts()
        assert slots == welcome.slots and actions == [slot + 100 * sequence for slot in slots]
    peer.step(4, packed=True)  # a repeat
    assert (await peer.acts())[1] == [slot + 400 for slot in welcome.slots]


async def test_refused_rows_of_a_packed_step_are_named_and_the_session_lives(desk) -> None:
    table = await desk(capacity=64)
    peer = await table.dial()
    await peer.join(20)
    peer.step(0, packed=True)
    await peer.acts()
    peer.step(7, packed=True)
    error = await peer.hears_a(Error)
    assert error.code == "sequence_gap" and len(error.rows) == 20
    peer.step(1, packed=True)
    await peer.acts()
    assert table.count("serving/refused_steps") == 1


async def test_a_stream_that_cannot_be_inflated_ends_its_session_and_no_other(desk) -> None:
    table = await desk(capacity=64)
    other, peer = await table.dial(), await table.dial()
    await other.join(1)
    welcome = await peer.join(20)
    peer.step(0, packed=True)
    other.step(0)
    await asyncio.gather(peer.acts(), other.acts())
    head = bytes([PACKED_STEP_TYPE, 1, 0, 0, 20, 0, 0, 0])
    epochs = b"".join(epoch.to_bytes(8, "little") for epoch in welcome.epochs)
    slots = b"".join(slot.to_bytes(4, "little") for slot in welcome.slots)
    sequence = (1).to_bytes(4, "little") * 20
    peer.say(head + epochs + slots + sequence + bytes(80) + bytes(24) + b"\x07\x07")
    error, bye = await peer.hears_a(Error), await peer.hears_a(Bye)
    assert error.code == "malformed" and bye.code == "protocol"
    await peer.channel.close()
    other.step(1)
    assert (await other.acts())[1] == [100 + slot for slot in other.welcome.slots]


async def test_what_stands_for_more_than_a_message_may_have_ends_its_session(desk) -> None:
    table = await desk(capacity=64)
    peer = await table.dial()
    await peer.join(20)
    table.server._facts = table.server._facts._replace(max_message_bytes=STEPS.size_bytes(20) - 1)
    peer.step(0, packed=True)
    assert (await peer.hears_a(Error)).code == "size_mismatch"
    assert (await peer.hears_a(Bye)).code == "protocol"


@pytest.mark.parametrize("packed", [False, True])
async def test_a_step_that_crosses_a_drain_is_legal(desk, packed: bool) -> None:
    table = await desk(capacity=64)
    peer = await table.dial()
    await peer.join(20)
    draining = asyncio.ensure_future(table.server.drain(run_over=False, reason="enough"))
    assert isinstance(await peer.hears(), Drain)
    peer.step(0, packed=packed)
    assert (await peer.hears()).code == "shutdown"
    await peer.channel.close()
    await draining
