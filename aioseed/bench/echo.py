"""The bare echo: what the same messages cost over the same library with nothing of aioseed around it.

It answers with the first bytes of what came, as many as the ACTION has that the road would send. Those hold the
identity of the rows, so that the load checks answers of both kinds alike.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

from aioseed.bench.traffic import MAX_MESSAGE_BYTES
from aioseed.transport.channel import Channel, Listener, ListenOptions, Transport

if TYPE_CHECKING:
    import grpc
    from aiohttp import web

GRPC_METHOD = "/aioseed.bench/Echo"


class Echo(ABC):
    """Listen for echo connections until closed."""

    url: str

    @abstractmethod
    async def close(self) -> None:
        """Stop."""


class AiohttpEcho(Echo):
    """Echo WebSocket messages with plain aiohttp."""

    def __init__(self, runner: web.AppRunner, url: str) -> None:
        self._runner = runner
        self.url = url

    @classmethod
    async def open(cls, answer_bytes: int) -> AiohttpEcho:
        """Listen on a free port of loopback."""
        from aiohttp import WSMsgType, web

        async def serve(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES + 1, compress=False)
            await socket.prepare(request)
            while (message := await socket.receive()).type is WSMsgType.BINARY:
                await socket.send_bytes(message.data[:answer_bytes])
            return socket

        application = web.Application()
        application.router.add_get("/", serve)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return cls(runner, f"ws://{host}:{port}/")

    async def close(self) -> None:
        """Stop."""
        await self._runner.cleanup()


class GrpcEcho(Echo):
    """Echo the messages of a stream with plain grpc.aio."""

    def __init__(self, server: grpc.aio.Server, url: str) -> None:
        self._server = server
        self.url = url

    @classmethod
    async def open(cls, answer_bytes: int) -> GrpcEcho:
        """Listen on a free port of loopback."""
        import grpc

        async def serve(_requests: object, context: grpc.aio.ServicerContext) -> None:
            while (message := await context.read()) is not grpc.aio.EOF:
                await context.write(message[:answer_bytes])

        service, method = GRPC_METHOD[1:].split("/")
        handlers = {method: grpc.stream_stream_rpc_method_handler(serve)}
        options = (("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_concurrent_streams", 4096))
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return cls(server, f"grpc://127.0.0.1:{port}")

    async def close(self) -> None:
        """Stop."""
        await self._server.stop(0.5)


class ChannelEcho(Echo):
    """Echo over a transport's own channels, where there is no library to compare with."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.url = listener.url

    @classmethod
    async def open(cls, transport: Transport, answer_bytes: int) -> ChannelEcho:
        """Listen at a free address of `transport`."""

        async def serve(channel: Channel) -> None:
            while True:
                channel.send_nowait((await channel.receive())[:answer_bytes])

        options = ListenOptions(max_message_bytes=MAX_MESSAGE_BYTES)
        return cls(await transport.listen(f"{transport.schemes[0]}://127.0.0.1:0", serve, options))

    async def close(self) -> None:
        """Stop."""
        await self._listener.close()


class SocketEcho(Echo):
    """Echo over bare sockets of the event loop: whoever sent a message's bytes gets its first ones back."""

    def __init__(self, server: asyncio.Server, url: str) -> None:
        self._server = server
        self.url = url

    @classmethod
    async def open(cls, message_bytes: int, answer_bytes: int) -> SocketEcho:
        """Listen on a free port of loopback."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _SocketEchoing(message_bytes, answer_bytes), "127.0.0.1", 0)
        return cls(server, f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    async def close(self) -> None:
        """Stop accepting; connections end with their other side."""
        self._server.close()


class _SocketEchoing(asyncio.Protocol):
    """Serve one connection. Nothing but the head of a message is kept: moving the bytes is all that is measured."""

    def __init__(self, message_bytes: int, answer_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._answer_bytes = answer_bytes
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._missing = message_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data[: self._answer_bytes - len(self._head)]
        self._missing -= len(data)
        if self._missing == 0:
            assert self._transport is not None
            self._transport.write(bytes(self._head))
            self._head.clear()
            self._missing = self._message_bytes
