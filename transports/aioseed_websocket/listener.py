"""The accepting side: an aiohttp server that knows one path and answers nothing but WebSockets."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from aiohttp import web

from aioseed.transport.address import Address
from aioseed.transport.channel import Listener, ListenOptions
from aioseed.transport.guard import Bucket, Guard, watch
from aioseed.transport.handlers import HandlerSet
from aioseed_websocket.admission import SUBPROTOCOL, Admission, admission
from aioseed_websocket.channel import WebSocketChannel
from aioseed_websocket.complaints import reporting_logger
from aioseed_websocket.frames import PROTOCOL_ERROR, FrameError
from aioseed_websocket.gate import Doorway, peer_of

BACKLOG = 4096
CONTROL_BURST_S = 2.0
"""Seconds whose control frames may come at once."""
_IDLE_SHUTDOWN_S = 0.5


class _Request(web.BaseRequest):
    """Be a request whose answer does not say what serves it, in which version."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)


class WebSocketListener(Listener):
    """Accept WebSockets at one address, over TLS if its scheme is ``wss``."""

    def __init__(self, address: Address, handlers: HandlerSet, options: ListenOptions) -> None:
        self._address = address
        self._handlers = handlers
        self._options = options
        self._socket: socket.socket | None = None
        limit = options.max_header_bytes
        # `lingering_time` 0: nobody reads the body of a request that was refused.
        self._http = web.Server(
            self._serve,
            access_log=None,
            logger=reporting_logger(options.report),
            lingering_time=0.0,
            request_factory=partial(_Request, loop=asyncio.get_running_loop()),
            max_line_size=limit,
            max_field_size=limit,
        )
        self._doorway = Doorway(options, self._http, secure=address.scheme == "wss")
        self._guard = Guard(options.received_bytes_per_s, options.stall_timeout_s)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, numeric_host: str) -> None:
        """Bind and accept. The port 0 becomes the real one.

        Raises:
            OSError: The port is in use or the address is not ours.
        """
        family = socket.AF_INET6 if ":" in numeric_host else socket.AF_INET
        # At all addresses means those of IPv4 too, as gRPC has it: the names of most machines have no other.
        both = numeric_host == "::" and socket.has_dualstack_ipv6()
        self._socket = socket.create_server(
            (numeric_host, self._address.port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
        self._socket.setblocking(False)
        self._address = self._address._replace(port=self._socket.getsockname()[1])
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._doorway.accept(self._socket), name=f"accepting at {self.url}"),
            loop.create_task(watch(self._guard, self._options.report), name=f"guard of {self.url}"),
        ]

    @property
    def url(self) -> str:
        """Return the address with the real port."""
        return self._address.url

    async def close(self, grace_s: float = 2.0) -> None:
        """Stop accepting, end all channels and handlers, drop idle connections."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        await self._handlers.close(grace_s)
        self._doorway.close()
        self._http.pre_shutdown()
        await self._http.shutdown(_IDLE_SHUTDOWN_S)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            return _refuse(400)
        peer = peer_of(transport)
        verdict = admission(request.method, request.raw_path, request.headers, self._options, self._address)
        if verdict.status is not None:
            self._options.report(verdict.reason, peer)
            return _refuse(verdict.status)
        if len(self._guard) >= self._options.max_connections:
            self._options.report("too_many_connections", peer)
            return _refuse(503)
        upgraded = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            timeout=0.0,
            autoclose=False,
            autoping=False,
            compress=False,
        )
        if not _can_prepare(upgraded, request):
            self._options.report("no_upgrade", peer)  # by its token an actor: somebody between has taken that away
            return _refuse(400)
        try:
            await upgraded.prepare(request)
        except ConnectionError:
            return _refuse(400)  # the peer has gone meanwhile, as aiohttp will find out when it answers
        has_waited = self._doorway.open(request.protocol)
        await self._hold(request.protocol, transport, peer, verdict, has_waited=has_waited)
        return upgraded

    async def _hold(
        self,
        inner: web.RequestHandler,
        transport: asyncio.Transport,
        peer: str,
        verdict: Admission,
        *,
        has_waited: bool,
    ) -> None:
        """Run the handler of a channel to its end, or say at once why there is none."""
        now_s, rate = asyncio.get_running_loop().time(), self._options.control_frames_per_s
        channel = WebSocketChannel(
            transport,
            is_client=False,
            peer=peer,
            max_message_bytes=self._options.max_message_bytes,
            send_buffer_bytes=self._options.send_buffer_bytes,
            connection_lost=inner.connection_lost,
            control=Bucket(rate, rate * CONTROL_BURST_S, now_s),
            report=self._options.report,
        )
        channel.begin()
        channel.credential = verdict.credential
        self._guard.add(channel, now_s)
        try:
            if has_waited:
                await asyncio.wait({self._handlers.start(channel)})
            else:  # what it sent is lost: aiohttp has it
                self._options.report("bad_request", peer)
                channel.break_off(FrameError(PROTOCOL_ERROR, "the peer sent before it was answered"))
                await channel.close()
        finally:
            self._guard.remove(channel)


def _can_prepare(upgraded: web.WebSocketResponse, request: web.BaseRequest) -> bool:
    try:
        return bool(upgraded.can_prepare(request))
    except ValueError:  # a key that is no ASCII
        return False


def _refuse(status: int) -> web.Response:
    answer = web.Response(status=status, text="refused\n")
    answer.force_close()
    return answer
