"""The accepting side: a gRPC server with one method."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import grpc

from aioseed.transport.address import Address
from aioseed.transport.channel import Listener, ListenOptions
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.token import shown_token, token_accepted
from aioseed_grpc.channel import GrpcChannel
from aioseed_grpc.frame import MAX_ENVELOPE_BYTES
from aioseed_grpc.stream import ACCEPTED_KEY, METHOD, ServerStream


class GrpcListener(Listener):
    """Accept calls of ``aioseed.v1.Aioseed/Session`` at one address; each is a channel."""

    def __init__(self, address: Address, handlers: HandlerSet, options: ListenOptions) -> None:
        self._address = address
        self._handlers = handlers
        self._options = options
        self._server = grpc.aio.server(options=server_options(options))
        service, method = METHOD[1:].split("/")
        handler = grpc.stream_stream_rpc_method_handler(self._session)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))

    async def start(self, numeric_host: str) -> None:
        """Bind and accept. The port 0 becomes the real one.

        Raises:
            OSError: The port is in use or the address is not ours.
        """
        bound = self._address._replace(host=numeric_host)
        check_free(bound)
        try:
            port = self._server.add_insecure_port(bound.authority)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self._address = self._address._replace(port=port)
        await self._server.start()

    @property
    def url(self) -> str:
        """Return the address with the real port."""
        return self._address.url

    async def close(self, grace_s: float = 2.0) -> None:
        """Stop accepting, end all channels and handlers, then the server."""
        # The server stops accepting at once and then waits for its calls, which end while it does.
        stopping = asyncio.ensure_future(self._server.stop(grace_s))
        try:
            await self._handlers.close(grace_s)
        finally:
            await stopping

    async def _session(self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata() or ())
        if not token_accepted(shown_token(metadata.get("authorization")), self._options.token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "refused")
        await context.send_initial_metadata(((ACCEPTED_KEY, "1"),))
        stream = ServerStream(context)
        channel = GrpcChannel(
            stream,
            peer=context.peer().removeprefix("ipv4:"),
            max_message_bytes=self._options.max_message_bytes,
            send_buffer_bytes=self._options.send_buffer_bytes,
        )
        self._handlers.start(channel)
        await stream.serve()


def server_options(options: ListenOptions) -> tuple[tuple[str, int], ...]:
    """Return gRPC's channel arguments for a server."""
    handshake_ms = round(options.handshake_timeout_s * 1000)
    return (
        # Else two learners can share a port, and actors meet now one, now the other.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", options.max_message_bytes + MAX_ENVELOPE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.server_handshake_timeout_ms", handshake_ms),
        # The time for a connection that is up but opens no channel.
        ("grpc.max_connection_idle_ms", handshake_ms),
        ("grpc.max_concurrent_streams", 4096),
        ("grpc.max_metadata_size", 4096),
        ("grpc.absolute_max_metadata_size", 8192),
        ("grpc.per_message_decompression", 0),
        ("grpc.enable_channelz", 0),
    )


def check_free(address: Address) -> None:
    """Bind and let go, since gRPC prints to standard error when it cannot bind.

    Raises:
        OSError: The port is in use or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            # As gRPC does; on Windows the option means sharing the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address.host, address.port))
