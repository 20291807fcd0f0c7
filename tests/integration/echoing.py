"""Listen at a URL and send every message back, in a process whose memory and descriptors a test bounds and measures.

python echoing.py URL MAX_MESSAGE_BYTES: prints the real URL, then what the listener reports, a word a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from aioseed.errors import ChannelClosed
from aioseed.plugins import transport_for
from aioseed.transport import Channel, Keyring, ListenOptions, Secret


async def echo(channel: Channel) -> None:
    with contextlib.suppress(ChannelClosed):
        while True:
            await channel.send(await channel.receive())


async def main(url: str, max_message_bytes: int) -> None:
    bounds = ListenOptions(
        Keyring.of(Secret("right")),
        max_message_bytes=max_message_bytes,
        report=lambda what, peer: print(what, flush=True),
    )
    listener = await transport_for(url).listen(url, echo, bounds)
    print(listener.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
