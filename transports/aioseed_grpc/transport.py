"""Listen and dial for the schemes ``grpc`` and ``grpcs``."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl

import grpc

from aioseed.errors import AuthenticationError, ConnectError, ListenError, UsageError
from aioseed.transport.address import Address, parse_url, resolve
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.transport.client_tls import certificate_error, dial_identity, why_refused
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.token import bearer
from aioseed_grpc.channel import GrpcChannel
from aioseed_grpc.foreign import dial_error
from aioseed_grpc.frame import MAX_ENVELOPE_BYTES
from aioseed_grpc.listener import GrpcListener
from aioseed_grpc.polling import KEEPALIVE
from aioseed_grpc.sharing import NUMBER_KEY, connection_number, leave_connection
from aioseed_grpc.stream import ACCEPTED_KEY, METHOD, ClientStream


class GrpcTransport(Transport):
    """Open channels as gRPC calls; those of one process to one listener share a connection."""

    schemes = ("grpc", "grpcs")
    secure_schemes = frozenset({"grpcs"})

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen at ``grpc://host:port``, or with TLS at ``grpcs://host:port``."""
        try:
            address = parse_url(url, self.schemes)
        except ValueError as error:
            raise ListenError(f"cannot listen at {url}: {error}", url=url) from error
        if address.scheme == "grpcs" and options.tls is None:
            raise ListenError(f"cannot listen at {url}: there is no certificate", url=url)
        _keep_poller()
        listener = GrpcListener(address, HandlerSet(handler), options)
        try:
            await listener.start(await resolve(address))
        except (OSError, UnicodeError, OverflowError) as error:
            raise ListenError(f"cannot listen at {url}: {error}", url=url) from error
        return listener

    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Open a channel to ``grpc://host:port`` or ``grpcs://host:port``; returns once the listener let it in.

        Proxies are not used.
        """
        try:
            address = parse_url(url, self.schemes)
        except ValueError as error:
            raise UsageError(f"cannot dial {url}: {error}") from error
        token = None if options.token is None else bearer(options.token)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise AuthenticationError("the token has characters that gRPC metadata cannot carry", url=url)
        _keep_poller()
        number = connection_number(address.url)
        until_s = asyncio.get_running_loop().time() + options.connect_timeout_s
        try:
            async with asyncio.timeout_at(until_s):
                stream = await _open(address, token, options, number, until_s)
        except TimeoutError as error:
            leave_connection(address.url, number)
            raise ConnectError(f"{url} did not answer within {options.connect_timeout_s:g} s", url=url) from error
        return GrpcChannel(
            stream,
            peer=url,
            max_message_bytes=options.max_message_bytes,
            send_buffer_bytes=ListenOptions().send_buffer_bytes,
        )


async def _open(address: Address, token: str | None, options: DialOptions, number: int, until_s: float) -> ClientStream:
    """Make the call on connection `number` and wait until the listener lets it in. Safe to cancel."""
    channel = await _connection(address, options, number)
    metadata = () if token is None else (("authorization", token),)
    call = channel.stream_stream(METHOD)(metadata=metadata)
    stream = ClientStream(channel, call, functools.partial(leave_connection, address.url, number))
    try:
        if ACCEPTED_KEY not in await call.initial_metadata():
            error = dial_error(await call.code(), await call.details(), address.url)
            if address.scheme == "grpcs" and isinstance(error, ConnectError):
                error = await why_refused(address, options.tls, until_s) or error
            raise error
    except BaseException:
        await stream.release()
        raise
    return stream


async def _connection(address: Address, options: DialOptions, number: int) -> grpc.aio.Channel:
    arguments = (*channel_options(options), (NUMBER_KEY, number))
    if address.scheme == "grpc":
        return grpc.aio.insecure_channel(address.authority, options=arguments)
    try:
        identity = await dial_identity(address, options.tls)
    except OSError as error:
        words = f"no secure connection to {address.url}: {_reason(error)}"
        raise certificate_error(error, address.url) or ConnectError(words, url=address.url) from error
    if identity.name:
        arguments += (("grpc.ssl_target_name_override", identity.name),)
    return grpc.aio.secure_channel(
        address.authority, _credentials(identity.roots, identity.key, identity.certificate), options=arguments
    )


def _reason(error: OSError) -> str:
    """Return the system's words, without the numbers that Python puts around them."""
    if isinstance(error, ssl.SSLError) or error.errno is None or error.errno <= 0:
        return str(error) or "it hung up"
    return os.strerror(error.errno)


@functools.lru_cache(16)
def _credentials(roots: bytes | None, key: bytes | None, certificate: bytes | None) -> grpc.ChannelCredentials:
    """Return the same object for the same files: only then do channels share a connection."""
    return grpc.ssl_channel_credentials(roots, key, certificate)


def channel_options(options: DialOptions) -> tuple[tuple[str, int | str], ...]:
    """Return gRPC's channel arguments for a dialler."""
    return (
        # All channels of a process to one address share a connection (twice as fast as one each), and with it the pause
        # that gRPC makes after a failed attempt, in which further ones fail unmade. 100 ms is the least; by itself it
        # grows to 2 minutes and would keep actors away from a learner that is back.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", round(options.connect_timeout_s * 1000)),  # gRPC's connect time-out
        ("grpc.max_receive_message_length", options.max_message_bytes + MAX_ENVELOPE_BYTES),
        ("grpc.max_send_message_length", -1),
        *KEEPALIVE,
        ("grpc.http2.max_pings_without_data", 0),  # which means that the third may be written as soon
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.per_message_decompression", 0),
        ("grpc.enable_channelz", 0),
    )


@functools.cache
def _keep_poller() -> None:
    """Let gRPC's polling thread live as long as the process.

    Otherwise it ends with the last channel or server and is joined by whoever collects that as garbage: the event loop.
    """
    grpc.aio.init_grpc_aio()
