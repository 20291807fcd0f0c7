"""Listen and dial for the schemes ``ws`` and ``wss``."""

from __future__ import annotations

import asyncio

import aiohttp

from aioseed.errors import ConnectError, ListenError
from aioseed.transport.address import parse_url, resolve
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.transport.client_tls import dial_context, why_refused
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.token import bearer
from aioseed_websocket.admission import SUBPROTOCOL
from aioseed_websocket.channel import CLOSE_TIMEOUT_S, WebSocketChannel
from aioseed_websocket.foreign import FOREIGN, dial_error
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
            raise ConnectError(f"cannot dial {url}: {error}", url=url) from error
        session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None), trust_env=False
        )
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                trusted = await dial_context(address, options.tls) if address.scheme == "wss" else True
                socket = await session.ws_connect(
                    url,
                    protocols=(SUBPROTOCOL,),
                    headers={} if options.token is None else {"Authorization": bearer(options.token)},
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                    autoclose=False,
                    autoping=False,
                    compress=0,
                    ssl=trusted,
                    max_msg_size=options.max_message_bytes + 1,  # aiohttp refuses an equal size
                )
        except BaseException as error:
            await session.close()
            if isinstance(error, FOREIGN):
                told = dial_error(error, url, options.connect_timeout_s)
                if address.scheme == "wss" and isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError)):
                    told = await why_refused(address, options.tls) or told
                raise told from error
            raise
        return WebSocketChannel(
            socket,
            _transport_of(socket),
            peer=url,
            send_buffer_bytes=ListenOptions().send_buffer_bytes,
            release=session.close,
        )


def _transport_of(socket: aiohttp.ClientWebSocketResponse) -> asyncio.Transport:
    """Return the connection under a client's WebSocket, for which aiohttp has no public name."""
    return socket._writer.transport
