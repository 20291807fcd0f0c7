"""Peers that keep to no rule.

python -m attackers URL FRAMES FRAMES_PER_S SEED: sends so many hostile frames, over as many sessions as it takes, and
prints how many that were as ``sessions N``. Attackers have machines of their own; here they get what the processor has
left, or the honest would wait for it and not for the learner.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import zlib

from crowd import SPEC, TOKEN, TRANSPORTS, join

from aioseed.errors import AioseedError
from aioseed.transport import DialOptions, Transport
from aioseed.wire import packing
from aioseed.wire.columns import StepLayout, StepMessage
from aioseed.wire.messages import Welcome

STEPS = StepLayout(SPEC.observation, 0)
BOMB = zlib.compress(bytes(2**24), 9, -15)
"""Sixteen kilobytes that inflate to as many megabytes."""
AT_ONCE = 4
"""So many attack at a time: one alone waits for handshakes and falls behind its rate."""


def hostile(rng: random.Random, welcome: Welcome | None) -> bytes:
    """Return a frame that no actor sends: noise, bombs, broken JSON, others' steps, a good one with flipped bytes."""
    good = StepMessage(STEPS, 1)
    if welcome is not None:
        good.columns.slot[:], good.columns.epoch[:] = welcome.slots, welcome.epochs
    frames = [
        rng.randbytes(rng.randrange(200)),
        b"{" + rng.randbytes(rng.randrange(100)),
        b'{"type":"' + rng.choice([b"hello", b"step", b"bye", b"lease", b"x" * 1000]) + b'"}',
        good.tobytes(),
        packed := packing.pack(STEPS, good.tobytes(), 1),
        packed[: STEPS.observation_at(1)] + BOMB,
        bytes([rng.randrange(256)]) + good.tobytes()[1:],
        b"[" * 60_000,
    ]
    frame = bytearray(rng.choice(frames))
    for _ in range(rng.randrange(3)):
        if frame:
            frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame)


async def attack(transport: Transport, url: str, rng: random.Random, count: int, per_s: float) -> int:
    """Send so many hostile frames, over as many sessions as it takes, and return how many sessions it took."""
    sent, sessions, began_s = 0, 0, time.perf_counter()
    while sent < count:
        sessions += 1
        try:
            if rng.random() < 0.5:
                channel, welcome = await join(transport, url)
            else:
                channel, welcome = await transport.dial(url, DialOptions(TOKEN, connect_timeout_s=60.0)), None
            for _ in range(rng.randrange(1, 60)):
                channel.send_nowait(hostile(rng, welcome))
                sent += 1
                await asyncio.sleep(max(0.0, began_s + sent / per_s - time.perf_counter()))
            await channel.close()
        except AioseedError:
            continue
    return sessions


async def main(url: str, frames: int, per_s: float, seed: int) -> None:
    transport = TRANSPORTS[url.partition(":")[0]]()
    attacks = [
        attack(transport, url, random.Random(AT_ONCE * seed + index), frames // AT_ONCE, per_s / AT_ONCE)
        for index in range(AT_ONCE)
    ]
    print("sessions", sum(await asyncio.gather(*attacks)), flush=True)


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
