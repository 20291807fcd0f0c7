"""Checks of `aioseed.testing.transport_kit` on messages: order, sizes, cancellation, back-pressure."""

from __future__ import annotations

import asyncio

from aioseed.errors import ChannelClosed
from aioseed.testing._transport_harness import MAX_MESSAGE_BYTES, TOKEN, Pair, check, ended, expect, open_pairs
from aioseed.transport.channel import Channel, ListenOptions, Place, Transport
from aioseed.transport.keyring import Keyring
from aioseed.types import Payload


@check
async def keeps_order_and_delivers_once(transport: Transport, url: str) -> None:
    """Both directions at once, sent without waiting and with waiting."""
    messages = [b"%d" % number for number in range(500)]

    async def send(channel: Channel) -> None:
        for number, message in enumerate(messages):
            if number % 3:
                channel.send_nowait(message)
            else:
                await channel.send(message)

    async def take(channel: Channel) -> list[bytes]:
        return [await channel.receive() for _ in messages]

    async with open_pairs(transport, url) as [(near, far, _)]:
        at_near, at_far, _, _ = await asyncio.gather(take(near), take(far), send(near), send(far))
    expect(at_near == messages, "messages of the listener's side arrive in order, each once")
    expect(at_far == messages, "messages of the dialler's side arrive in order, each once")


@check
async def carries_every_legal_size(transport: Transport, url: str) -> None:
    """The empty message and the largest legal one are messages like any other, and arrive as `bytes`."""
    sizes = (0, 1, 125, 126, 65_535, 65_536, 2**20, MAX_MESSAGE_BYTES, 0)
    async with open_pairs(transport, url) as [(near, far, _)]:
        for sender, receiver in ((near, far), (far, near)):
            for size in sizes:
                message = bytes(range(256)) * (size // 256) + bytes(size % 256)
                received, _ = await asyncio.gather(receiver.receive(), sender.send(message))
                expect(type(received) is bytes, "a message arrives as bytes")
                expect(received == message, f"a message of {size} bytes arrives unchanged")


@check
async def refuses_larger_messages(transport: Transport, url: str) -> None:
    """One byte too many breaks this channel at its receiver, and no other."""
    async with open_pairs(transport, url, channels=3) as [to_far, to_near, (other_near, other_far, _)]:
        for side, sender, receiver in (
            ("the listener's", to_far.near, to_far.far),
            ("the dialler's", to_near.far, to_near.near),
        ):
            (outcome,), _ = await asyncio.gather(
                asyncio.gather(receiver.receive(), return_exceptions=True),
                sender.send(bytes(MAX_MESSAGE_BYTES + 1)),
            )
            broken = isinstance(outcome, ChannelClosed) and not outcome.clean
            expect(broken, f"a message above {side} max_message_bytes breaks the channel of its receiver")
            expect(not (await ended(sender)).clean, "its sender sees that the channel broke")
        await other_near.send(b"still here")
        expect(await other_far.receive() == b"still here", "other channels go on")


@check
async def keeps_channels_apart(transport: Transport, url: str) -> None:
    """Many channels at once, each answered on its own."""

    async def echo(channel: Channel, label: bytes) -> None:
        while True:
            await channel.send(label + await channel.receive())

    async def ask(pair: Pair, label: bytes) -> None:
        answering = asyncio.create_task(echo(pair.far, label))
        for number in range(10):
            await pair.near.send(b"%d" % number)
            expect(
                await pair.near.receive() == label + b"%d" % number, "an answer comes on the channel of its question"
            )
        await pair.near.close()
        await asyncio.wait({answering})
        expect(isinstance(answering.exception(), ChannelClosed), "the other end sees the close")

    async with open_pairs(transport, url, channels=16) as pairs:
        await asyncio.gather(*(ask(pair, b"%d:" % number) for number, pair in enumerate(pairs)))


@check
async def cancelled_receive_loses_nothing(transport: Transport, url: str) -> None:
    """Cancel a waiting receive, and one whose message may just have come."""
    async with open_pairs(transport, url) as [(near, far, _)]:
        for sender, receiver in ((near, far), (far, near)):
            received = []
            for number in range(50):
                waiting = asyncio.create_task(receiver.receive())
                await asyncio.sleep(0)
                sender.send_nowait(b"%d" % number)
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait({waiting})
                received.append(await receiver.receive() if waiting.cancelled() else waiting.result())
            expect(received == [b"%d" % number for number in range(50)], "a cancelled receive loses no message")


@check
async def hands_every_message_over(transport: Transport, url: str) -> None:
    """`receive_each` sees each message once and in order, beside `receive`, whether it stops, fails or is cancelled."""
    taken: list[bytes] = []

    def take(message: Payload) -> bool:
        taken.append(bytes(message))
        if message == b"fail":
            raise ValueError("as told")
        return message != b"stop"

    async with open_pairs(transport, url) as [(near, far, _)]:
        for sender, receiver in ((near, far), (far, near)):
            taken.clear()
            for message in (b"1", b"stop", b"2", b"3", b"fail"):
                await sender.send(message)
            await receiver.receive_each(take)
            expect(taken == [b"1", b"stop"], "receive_each ends with the message for which take returns False")
            expect(await receiver.receive() == b"2", "what was not handed over is still to be received")
            outcome = await asyncio.gather(receiver.receive_each(take), return_exceptions=True)
            expect(isinstance(outcome[0], ValueError), "what take raises comes out of receive_each")
            waiting = asyncio.create_task(receiver.receive_each(take))
            for number in range(50):
                before = len(taken)
                sender.send_nowait(b"%d" % number)
                expect(len(taken) == before, "send_nowait hands nothing over from within")
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            rest = taken[4:]
            while len(rest) < 50:
                rest.append(await receiver.receive())
            expect(rest == [b"%d" % number for number in range(50)], "a cancelled receive_each loses no message")
        handing = asyncio.create_task(far.receive_each(take))
        near.send_nowait(b"last")
        await near.close("over")
        await asyncio.wait({handing})
        expect(taken[-1] == b"last", "take sees all that came before the end")
        expect(isinstance(handing.exception(), ChannelClosed), "receive_each ends as receive does")


@check
async def hands_large_messages_over(transport: Transport, url: str) -> None:
    """A message that was given a place is there, whole, and not handed to `take`; others are; all in order."""
    sent = [bytes([number]) * size for number, size in enumerate([300_000, 200_000, 10, MAX_MESSAGE_BYTES, 0, 250_000])]
    taken: list[bytes] = []
    asked: list[int] = []

    def place(size: int, beginning: memoryview) -> Place | None:
        asked.append(size)
        if len(asked) % 3 == 0 or len(beginning) < 100:
            return None
        there, memory = bytes(beginning[:100]), [memoryview(bytearray(count)) for count in (7, size - 107)]
        return Place(memory, lambda: keep(there + b"".join(memory)))

    def keep(message: Payload) -> bool:
        taken.append(bytes(message))
        return len(taken) % len(sent) != 0

    async with open_pairs(transport, url) as [(near, far, _)]:
        for sender, receiver in ((near, far), (far, near)):
            for _ in range(3):
                taken.clear()
                handing = asyncio.create_task(receiver.receive_each(keep, place))
                for message in sent:
                    await sender.send(message)
                await handing
                expect(taken == sent, "each message is handed over once and in order, in its place or out of it")


@check
async def refuses_a_second_receiver(transport: Transport, url: str) -> None:
    """Two tasks that receive would split the stream: a mistake that must be loud."""
    async with open_pairs(transport, url) as [(near, far, _)]:
        first = asyncio.create_task(far.receive())
        await asyncio.sleep(0)
        try:
            await far.receive()
        except RuntimeError:
            pass
        else:
            raise AssertionError("a second receiver raises RuntimeError")
        await near.send(b"for the first")
        expect(await first == b"for the first", "the first receiver is not disturbed")


@check
async def slow_reader_is_cut(transport: Transport, url: str) -> None:
    """Sending without waiting to a peer that never reads ends the channel instead of filling the memory."""
    told: list[str] = []
    options = ListenOptions(
        Keyring.of(TOKEN), MAX_MESSAGE_BYTES, send_buffer_bytes=2**16, report=lambda what, peer: told.append(what)
    )
    message = bytes(2**15)
    async with open_pairs(transport, url, options, channels=2) as [(_, far, _), (other_near, other_far, _)]:
        for sent in range(20_000):
            try:
                far.send_nowait(message)
            except ChannelClosed as closed:
                expect(not closed.clean, "a channel that is cut did not close cleanly")
                break
            if sent % 16 == 0:
                await asyncio.sleep(0)
        else:
            raise AssertionError("send_nowait to a peer that never reads raises ChannelClosed")
        await other_far.send(b"unhurt")
        expect(await other_near.receive() == b"unhurt", "other channels go on")
    expect(told == ["slow_reader"], f"a channel that is cut is reported once, as slow_reader: {told}")


@check
async def send_waits_for_a_slow_reader(transport: Transport, url: str) -> None:
    """`send` stops while the peer does not read, can be cancelled there, and loses nothing."""
    message = bytes(2**15)
    sent = 0

    async def flood(channel: Channel) -> None:
        nonlocal sent
        while True:
            sent += 1
            await channel.send(message)

    async with open_pairs(transport, url) as [(near, far, _)]:
        floods = [asyncio.create_task(flood(near)) for _ in range(2)]
        while True:
            before = sent
            await asyncio.wait(floods, timeout=0.1)
            if sent == before:
                break
        floods[0].cancel()
        await asyncio.wait(floods, timeout=0.05)
        expect(not floods[1].done(), "cancelling one sender leaves the others waiting")
        floods[1].cancel()
        await asyncio.wait(floods)
        for _ in range(sent):
            expect(await far.receive() == message, "cancelled senders sent whole messages or none")
        await near.send(b"afterwards")
        expect(await far.receive() == b"afterwards", "the channel goes on after a cancelled send")
