"""The accepting side: an aiohttp server that knows one path and answers nothing but WebSockets."""

from __future__ import annotations

import asyncio

from aiohttp import web

from aioseed.transport.address import Address
from aioseed.transport.channel import Listener, ListenOptions
from aioseed.transport.handlers import HandlerSet
from aioseed_websocket.admission import SUBPROTOCOL, refusal_status
from aioseed_websocket.channel import WebSocketChannel

BACKLOG = 4096
BACKLOG_CHECK_BYTES = 2**16
"""Written bytes between two looks at whether the peer reads; aiohttp's own choice is 2**18."""
_IDLE_SHUTDOWN_S = 0.5


class WebSocketListener(Listener):
    """Accept WebSockets at one address."""

    def __init__(self, address: Address, handlers: HandlerSet, options: ListenOptions) -> None:
        self._address = address
        self._handlers = handlers
        self._options = options
        self._server: asyncio.Server | None = None
        # `lingering_time` 0: nobody reads the body of a request that was refused.
        self._http = web.Server(self._serve, access_log=None, lingering_time=0.0)
        # Connections that are not channels yet, each with the timer that cuts it.
        self._handshakes: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    async def start(self, numeric_host: str) -> None:
        """Bind and accept. The port 0 becomes the real one.

        Raises:
            OSError: The port is in use or the address is not ours.
        """
        self._server = await asyncio.get_running_loop().create_server(
            self._make_connection, numeric_host, self._address.port, backlog=BACKLOG
        )
        self._address = self._address._replace(port=self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Return the address with the real port."""
        return self._address.url

    async def close(self, grace_s: float = 2.0) -> None:
        """Stop accepting, end all channels and handlers, drop idle connections."""
        if self._server is not None:
            self._server.close()
        await self._handlers.close(grace_s)
        for timer in self._handshakes.values():
            timer.cancel()
        self._handshakes.clear()
        self._http.pre_shutdown()
        await self._http.shutdown(_IDLE_SHUTDOWN_S)

    def _make_connection(self) -> web.RequestHandler:
        connection = self._http()
        self._handshakes[connection] = asyncio.get_running_loop().call_later(
            self._options.handshake_timeout_s, self._cut, connection
        )
        return connection

    def _cut(self, connection: web.RequestHandler) -> None:
        """Drop a connection that did not become a channel in time; aiohttp waits without end for a first request."""
        del self._handshakes[connection]
        if connection.transport is not None:
            connection.transport.abort()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        status = refusal_status(request.method, request.raw_path, request.headers, self._options.token, self._address)
        if status is not None:
            return _refuse(status)
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            timeout=0.0,
            autoclose=False,
            autoping=False,
            compress=False,
            writer_limit=BACKLOG_CHECK_BYTES,
            max_msg_size=self._options.max_message_bytes + 1,  # aiohttp refuses an equal size
        )
        transport = request.transport
        if not socket.can_prepare(request) or transport is None:
            return _refuse(400)
        try:
            await socket.prepare(request)
        except ConnectionError:
            return _refuse(400)  # the peer has gone meanwhile, as aiohttp will find out when it answers
        if (timer := self._handshakes.pop(request.protocol, None)) is not None:
            timer.cancel()
        channel = WebSocketChannel(
            socket,
            transport,
            peer=_peer(transport),
            send_buffer_bytes=self._options.send_buffer_bytes,
            release=_nothing,
        )
        await asyncio.wait({self._handlers.start(channel)})
        return socket


def _refuse(status: int) -> web.Response:
    answer = web.Response(status=status, text="refused\n")
    answer.force_close()
    return answer


def _peer(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)


async def _nothing() -> None:
    """Stand where a dialler closes its session: aiohttp's server owns the connection."""
