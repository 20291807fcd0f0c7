"""Listen and dial for the schemes ``ws`` and ``wss``."""

from __future__ import annotations

import asyncio
from functools import partial

import aiohttp

from aioseed.errors import CertificateError, ListenError, TransportError, UsageError
from aioseed.transport.address import parse_url, resolve
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.transport.client_tls import ClientTls, dial_context, why_refused
from aioseed.transport.handlers import HandlerSet
from aioseed_websocket.channel import WebSocketChannel
from aioseed_websocket.foreign import FOREIGN, dial_error
from aioseed_websocket.handshake import shake_hands
from aioseed_websocket.listener import WebSocketListener


class WebSocketTransport(Transport):
    """Open channels over WebSockets; every message is one binary WebSocket message, never compressed."""

    schemes = ("ws", "wss")
    secure_schemes = frozenset({"wss"})

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen at ``ws://host:port``, or with TLS at ``wss://host:port``."""
        try:
            address = parse_url(url, self.schemes)
        except ValueError as error:
            raise ListenError(f"cannot listen at {url}: {error}", url=url) from error
        if address.scheme == "wss" and options.tls is None:
            raise ListenError(f"cannot listen at {url}: there is no certificate", url=url)
        listener = WebSocketListener(address, HandlerSet(handler), options)
        try:
            await listener.start(await resolve(address))
        except (OSError, UnicodeError, OverflowError) as error:
            raise ListenError(f"cannot listen at {url}: {error}", url=url) from error
        return listener

    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Open a channel to ``ws://host:port`` or ``wss://host:port``; proxies of the environment are not used."""
        try:
            address = parse_url(url, self.schemes)
        except ValueError as error:
            raise UsageError(f"cannot dial {url}: {error}") from error
        session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None), trust_env=False
        )
        until_s = asyncio.get_running_loop().time() + options.connect_timeout_s
        try:
            async with asyncio.timeout_at(until_s):
                trusted = await dial_context(address, options.tls) if address.scheme == "wss" else True
                opened = await shake_hands(session, url, options.token, trusted)
        except BaseException as error:
            await session.close()
            if isinstance(error, FOREIGN):
                told = dial_error(error, url, options.connect_timeout_s)
                hung_up = isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError))
                if address.scheme == "wss" and (hung_up or _is_another(told, options.tls)):
                    told = await why_refused(address, options.tls, until_s) or told
                raise told from error
            raise
        channel = WebSocketChannel(
            opened.transport,
            is_client=True,
            peer=url,
            max_message_bytes=options.max_message_bytes,
            send_buffer_bytes=ListenOptions().send_buffer_bytes,
            connection_lost=opened.protocol.connection_lost,
            release=partial(_release, opened.response, session),
        )
        channel.begin(opened.arrived)
        return channel


def _is_another(told: TransportError, tls: ClientTls) -> bool:
    """Say whether a certificate is met that is not the one of the fingerprint, which was met before."""
    return isinstance(told, CertificateError) and told.reason == "foreign" and tls.fingerprint is not None


async def _release(response: aiohttp.ClientResponse, session: aiohttp.ClientSession) -> None:
    """Let aiohttp drop what it keeps for a connection."""
    response.close()
    await session.close()
