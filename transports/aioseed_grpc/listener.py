"""The accepting side: a gRPC server with one method."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from urllib.parse import unquote

import grpc

from aioseed.transport.address import Address
from aioseed.transport.channel import Listener, ListenOptions
from aioseed.transport.descriptors import few_left
from aioseed.transport.guard import Guard, watch
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.server_tls import Material, ServerTls
from aioseed.transport.token import shown_token
from aioseed_grpc.channel import GrpcChannel
from aioseed_grpc.frame import MAX_ENVELOPE_BYTES
from aioseed_grpc.polling import KEEPALIVE, KEEPALIVE_S
from aioseed_grpc.stream import ACCEPTED_KEY, METHOD, ServerStream


class GrpcListener(Listener):
    """Accept calls of ``aioseed.v1.Aioseed/Session`` at one address, over TLS if its scheme is ``grpcs``.

    Each call is a channel.
    """

    def __init__(self, address: Address, handlers: HandlerSet, options: ListenOptions) -> None:
        self._address = address
        self._handlers = handlers
        self._options = options
        self._server = grpc.aio.server(options=server_options(options))
        service, method = METHOD[1:].split("/")
        handler = grpc.stream_stream_rpc_method_handler(self._session)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self._opening = 0  # calls that were let in and are not channels yet
        self._guard = Guard(options.received_bytes_per_s, options.stall_timeout_s)
        self._watch: asyncio.Task[None] | None = None

    async def start(self, numeric_host: str) -> None:
        """Bind and accept. The port 0 becomes the real one.

        Raises:
            OSError: The port is in use or the address is not ours.
        """
        bound = self._address._replace(host=numeric_host)
        check_free(bound)
        try:
            port = self._bind(bound.authority)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self._address = self._address._replace(port=port)
        await self._server.start()
        self._watch = asyncio.get_running_loop().create_task(
            watch(self._guard, self._options.report), name=f"guard of {self.url}"
        )

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
            if self._watch is not None:
                self._watch.cancel()
            await stopping

    def _bind(self, authority: str) -> int:
        if self._address.scheme != "grpcs":
            return int(self._server.add_insecure_port(authority))
        assert self._options.tls is not None
        return int(self._server.add_secure_port(authority, credentials(self._options.tls)))

    async def _session(self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata() or ())
        peer = unquote(context.peer()).removeprefix("ipv4:").removeprefix("ipv6:")
        # No browser speaks gRPC; what looks like one is refused as a WebSocket of a foreign page is.
        if "origin" in metadata and metadata["origin"] not in self._options.allowed_origins:
            self._options.report("foreign_origin", peer)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "refused")
        welcome, credential = self._options.admit(shown_token(metadata.get("authorization")))
        if not welcome:
            self._options.report("bad_token", peer)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "refused")
        if len(self._guard) + self._opening >= self._options.max_connections:
            self._options.report("too_many_connections", peer)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "refused")
        if few_left():
            self._options.report("no_descriptors", peer)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "refused")
        self._opening += 1
        try:
            await context.send_initial_metadata(((ACCEPTED_KEY, "1"),))
        finally:
            self._opening -= 1
        stream = ServerStream(context)
        channel = GrpcChannel(
            stream,
            peer=peer,
            max_message_bytes=self._options.max_message_bytes,
            send_buffer_bytes=self._options.send_buffer_bytes,
            report=self._options.report,
        )
        channel.credential = credential
        self._guard.add(channel, asyncio.get_running_loop().time())
        self._handlers.start(channel)
        try:
            await stream.serve()
        finally:
            self._guard.remove(channel)


def credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials that show the newest certificate of `tls` at each handshake."""
    shown = tls.material

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        if tls.material is shown:
            return None
        shown = tls.material
        return _configuration(shown)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown), fetch, require_client_authentication=shown.client_ca is not None
    )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )


def server_options(options: ListenOptions) -> tuple[tuple[str, int], ...]:
    """Return gRPC's channel arguments for a server."""
    rate = options.control_frames_per_s
    handshake_ms = round(options.handshake_timeout_s * 1000)
    return (
        # Else two learners can share a port, and actors meet now one, now the other.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", options.max_message_bytes + MAX_ENVELOPE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.server_handshake_timeout_ms", handshake_ms),
        # The time for a connection that is up but opens no channel.
        ("grpc.max_connection_idle_ms", handshake_ms),
        # gRPC tells us of no connection before its first call; so those without a token count here too.
        ("grpc.max_allowed_incoming_connections", options.max_connections + options.max_unauthenticated),
        ("grpc.max_concurrent_streams", 4096),
        ("grpc.max_metadata_size", options.max_header_bytes),
        ("grpc.absolute_max_metadata_size", options.max_header_bytes),
        *KEEPALIVE,
        # PING frames without data sooner than this, for 2 seconds, end a connection; the diallers' own come later.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", round(min(1 / rate, KEEPALIVE_S / 2) * 1000)),
        ("grpc.http2.max_ping_strikes", max(2, round(2 * rate))),
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
