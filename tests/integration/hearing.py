"""Open one channel, in a process that a test freezes, and say how it ended.

python hearing.py dial|listen URL: prints the real URL where it listens, "open", then "clean" or "broken".
"""

from __future__ import annotations

import asyncio
import sys

from aioseed.errors import ChannelClosed
from aioseed.plugins import transport_for
from aioseed.transport import Channel, DialOptions, ListenOptions


async def hear(channel: Channel) -> None:
    await channel.send(b"open")
    assert await channel.receive() == b"open"
    print("open", flush=True)
    try:
        await channel.receive()
    except ChannelClosed as closed:
        print("clean" if closed.clean else "broken", flush=True)


async def main(role: str, url: str) -> None:
    if role == "dial":
        await hear(await transport_for(url).dial(url, DialOptions()))
        return
    over = asyncio.Event()

    async def handler(channel: Channel) -> None:
        await hear(channel)
        over.set()

    listener = await transport_for(url).listen(url, handler, ListenOptions())
    print(listener.url, flush=True)
    await over.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
