"""Sessions that only listen, and what peers of a stub learner share.

python -m crowd URL SESSIONS: joins so many sessions, each over a connection of its own, says ``joined`` and answers
PINGs until it is ended; a session that ends is an error.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import aioseed_grpc.transport
from aioseed_grpc import GrpcTransport
from aioseed_websocket import WebSocketTransport

from aioseed.specs import ArraySpec, discrete, observation_to_json
from aioseed.transport import Channel, DialOptions, Secret, Transport
from aioseed.types import EnvironmentSpec
from aioseed.wire.columns import ACTION_TYPE
from aioseed.wire.messages import Hello, Ping, Pong, Welcome, decode_control

TOKEN = Secret("chaos")
SPEC = EnvironmentSpec(ArraySpec("float32", (4,)), discrete(2))
TRANSPORTS: dict[str, Callable[[], Transport]] = {"ws": WebSocketTransport, "grpc": GrpcTransport}


def hello() -> bytes:
    specs = {"observation": observation_to_json(SPEC.observation), "action": SPEC.action.to_json()}
    return Hello(library="chaos", actor_id="chaos", environments=1, **specs).encode()


async def join(transport: Transport, url: str) -> tuple[Channel, Welcome]:
    channel = await transport.dial(url, DialOptions(TOKEN, connect_timeout_s=60.0))
    channel.send_nowait(hello())
    while not isinstance(message := decode_control(await channel.receive()), Welcome):
        pass
    return channel, message


async def answered(channel: Channel) -> None:
    """Read up to the next ACTION and answer PINGs on the way."""
    while (payload := await channel.receive())[0] != ACTION_TYPE:
        if isinstance(message := decode_control(payload), Ping):
            channel.send_nowait(Pong(number=message.number).encode())


def share_nothing() -> None:
    """Give each gRPC channel a connection of its own, as actors in different processes have."""
    shared = aioseed_grpc.transport.channel_options
    aioseed_grpc.transport.channel_options = lambda options: (
        *shared(options),
        ("grpc.use_local_subchannel_pool", 1),
    )


async def main(url: str, sessions: int) -> None:
    transport = TRANSPORTS[url.partition(":")[0]]()
    async with asyncio.TaskGroup() as listening:
        for _ in range(sessions):
            channel, _ = await join(transport, url)
            listening.create_task(answered(channel))
        print("joined", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    share_nothing()
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
