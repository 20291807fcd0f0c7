"""How a load session asks: over aioseed's channels to the road, over the bare library to the echo.

A link makes one round trip at a time. What is done with each answer is the same for both, so that what differs is what
is measured: an answer of the road is taken in where an actor takes it in, within the channel's own reading.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from aioseed.errors import ConnectError, ProtocolError
from aioseed.transport.channel import Channel
from aioseed.types import Payload
from aioseed.wire.columns import ACTION_TYPE
from aioseed.wire.messages import Ping, Pong, Welcome, decode_control

if TYPE_CHECKING:
    import aiohttp
    import grpc


Answered: TypeAlias = Callable[[bytes], "bytes | None"]
"""Takes an answer and returns what to send next, None to stop."""


class Link(Protocol):
    """Make round trips, one at a time."""

    async def converse(self, first: bytes, answered: Answered) -> None:
        """Send `first` and hand every answer to `answered` until it returns None.

        Cancelling it leaves the link unusable.

        Raises:
            Exception: What `answered` raised.
        """

    async def close(self) -> None:
        """Let the connection go."""


class Asking(ABC):
    """Make round trips over a library that writes and reads (implements `Link`)."""

    async def converse(self, first: bytes, answered: Answered) -> None:
        """Write and read, turn and turn about."""
        message: bytes | None = first
        while message is not None:
            message = answered(await self.ask(message))

    @abstractmethod
    async def ask(self, payload: bytes) -> bytes:
        """Send one message and return its answer. Cancelling it leaves the link unusable."""


class ChannelLink:
    """Ask an echo over one of aioseed's channels, where no library lies below (implements `Link`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def converse(self, first: bytes, answered: Answered) -> None:
        """Send each message from within the one before."""

        def take(message: Payload) -> bool:
            payload = bytes(message)
            if not self._is_answer(payload):
                return True
            following = answered(payload)
            if following is not None:
                self._channel.send_nowait(following)
            return following is not None

        self._channel.send_nowait(first)
        await self._channel.receive_each(take)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def _is_answer(self, payload: bytes) -> bool:
        del payload
        return True


class RoadLink(ChannelLink):
    """Ask a learner over one of aioseed's channels (implements `Link`). PINGs that come between are answered."""

    def _is_answer(self, payload: bytes) -> bool:
        if payload[0] == ACTION_TYPE:
            return True
        message = decode_control(payload)
        if not isinstance(message, Ping):
            raise ProtocolError("unexpected_message", f"the road sent {message.kind} in the middle of a measurement")
        self._channel.send_nowait(Pong(number=message.number).encode())
        return False


class AiohttpLink(Asking):
    """Ask an echo with nothing but aiohttp (implements `Link`)."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._socket = socket

    @classmethod
    async def open(cls, url: str, max_message_bytes: int) -> AiohttpLink:
        """Connect to ``ws://...``."""
        import aiohttp

        session = aiohttp.ClientSession()
        try:
            socket = await session.ws_connect(url, max_msg_size=max_message_bytes + 1)
        except BaseException:
            await session.close()
            raise
        return cls(session, socket)

    async def ask(self, payload: bytes) -> bytes:
        """Send and receive."""
        await self._socket.send_bytes(payload)
        data: bytes = (await self._socket.receive()).data
        return data

    async def close(self) -> None:
        """Close the socket."""
        await self._socket.close()
        await self._session.close()


class GrpcLink(Asking):
    """Ask an echo with nothing but grpc.aio (implements `Link`)."""

    def __init__(self, channel: grpc.aio.Channel, call: grpc.aio.StreamStreamCall) -> None:
        self._channel = channel
        self._call = call

    @classmethod
    async def open(cls, url: str, method: str, max_message_bytes: int) -> GrpcLink:
        """Connect to ``grpc://host:port``."""
        import grpc

        options = (("grpc.max_receive_message_length", max_message_bytes), ("grpc.max_send_message_length", -1))
        channel = grpc.aio.insecure_channel(url.removeprefix("grpc://"), options=options)
        return cls(channel, channel.stream_stream(method)())

    async def ask(self, payload: bytes) -> bytes:
        """Write and read."""
        await self._call.write(payload)
        answer: bytes = await self._call.read()
        return answer

    async def close(self) -> None:
        """End the call."""
        await self._call.done_writing()
        self._call.cancel()
        await self._channel.close()


class SocketLink(Asking, asyncio.Protocol):
    """Ask an echo over a bare socket of the event loop (implements `Link`)."""

    def __init__(self, answer_bytes: int) -> None:
        self._answer_bytes = answer_bytes
        self._transport: asyncio.Transport | None = None
        self._answer = bytearray()
        self._answered: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, url: str, answer_bytes: int) -> SocketLink:
        """Connect to ``tcp://host:port``."""
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: cls(answer_bytes), host, int(port))
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Collect an answer."""
        self._answer += data
        if len(self._answer) >= self._answer_bytes and self._answered is not None and not self._answered.done():
            self._answered.set_result(bytes(self._answer))
            self._answer.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the one who waits."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectError("the echo over a socket has gone", url=""))

    async def ask(self, payload: bytes) -> bytes:
        """Write and wait for the answer."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        return await self._answered

    async def close(self) -> None:
        """Close the connection."""
        assert self._transport is not None
        self._transport.close()


async def read_welcome(channel: Channel) -> Welcome:
    """Return the WELCOME that answers a HELLO.

    Raises:
        ProtocolError: Something else came.
    """
    message = decode_control(await channel.receive())
    if not isinstance(message, Welcome):
        raise ProtocolError("unexpected_message", f"the road answered a HELLO with {message.kind}")
    return message
