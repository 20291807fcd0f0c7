"""Listen and dial for the scheme ``grpc``."""

from __future__ import annotations

import asyncio
import functools

import grpc

from aioseed.errors import AuthenticationError, ConnectError, ListenError
from aioseed.transport.address import parse_url, resolve
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.token import bearer
from aioseed_grpc.channel import GrpcChannel
from aioseed_grpc.foreign import dial_error
from aioseed_grpc.frame import MAX_ENVELOPE_BYTES
from aioseed_grpc.listener import GrpcListener
from aioseed_grpc.stream import ACCEPTED_KEY, METHOD, ClientStream


class GrpcTransport(Transport):
    """Open channels as gRPC calls; those of one process to one listener share a connection."""

    schemes = ("grpc",)

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen at ``grpc://host:port``."""
        try:
            address = parse_url(url, self.schemes)
        except ValueError as error:
            raise ListenError(f"cannot listen at {url}: {error}", url=url) from error
        _keep_poller()
        listener = GrpcListener(address, HandlerSet(handler), options)
        try:
            await listener.start(await resolve(address))
        except (OSError, UnicodeError, OverflowError) as error:
            raise ListenError(f"cannot listen at {url}: {error}", url=url) from error
        return listener

    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Open a channel to ``grpc://host:port``; returns once the listener let it in. Proxies are not used."""
        try:
            address = parse_url(url, self.schemes)
        except ValueError as error:
            raise ConnectError(f"cannot dial {url}: {error}", url=url) from error
        if options.token is not None and not (options.token.isascii() and options.token.isprintable()):
            raise AuthenticationError("the token has characters that gRPC metadata cannot carry", url=url)
        _keep_poller()
        channel = grpc.aio.insecure_channel(address.authority, options=channel_options(options))
        metadata = () if options.token is None else (("authorization", bearer(options.token)),)
        call = channel.stream_stream(METHOD)(metadata=metadata)
        stream = ClientStream(channel, call)
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                if ACCEPTED_KEY not in await call.initial_metadata():
                    raise dial_error(await call.code(), await call.details(), url)
        except TimeoutError as error:
            await stream.release()
            raise ConnectError(f"{url} did not answer within {options.connect_timeout_s:g} s", url=url) from error
        except BaseException:
            await stream.release()
            raise
        return GrpcChannel(
            stream,
            peer=url,
            max_message_bytes=options.max_message_bytes,
            send_buffer_bytes=ListenOptions().send_buffer_bytes,
        )


def channel_options(options: DialOptions) -> tuple[tuple[str, int], ...]:
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
