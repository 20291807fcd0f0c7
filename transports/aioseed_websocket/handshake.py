"""The dialling side of the handshake (RFC 6455, section 4.1): aiohttp asks, and what it opened is handed over whole."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
from typing import NamedTuple

import aiohttp

from aioseed.transport.token import Secret, bearer
from aioseed_websocket.admission import SUBPROTOCOL

_ACCEPTED_WITH = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Opened(NamedTuple):
    """Hold a connection that both sides speak frames on from now."""

    response: aiohttp.ClientResponse  # keeps the connection
    transport: asyncio.Transport
    protocol: asyncio.Protocol  # aiohttp's, which is to be told when the connection is lost
    arrived: bytes  # what came right behind the answer


class _Rest:
    """Keep what aiohttp has read of the connection but not looked at: it hands that to any parser of frames."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Be told that the connection has ended."""


async def shake_hands(
    session: aiohttp.ClientSession, url: str, token: Secret | None, trusted: ssl.SSLContext | bool
) -> Opened:
    """Ask `url` for a WebSocket. Safe to cancel.

    Raises:
        aiohttp.ClientError, OSError: Nobody answers, or not with a WebSocket.
    """
    key = base64.b64encode(os.urandom(16))
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key.decode(),
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    }
    if token is not None:
        headers["Authorization"] = bearer(token)
    response = await session.get(url, headers=headers, allow_redirects=False, read_until_eof=False, ssl=trusted)
    connection = response.connection
    if response.status != 101 or connection is None or not _is_answer_to(key, response):
        response.close()
        raise aiohttp.WSServerHandshakeError(
            response.request_info,
            response.history,
            status=response.status,
            message=response.reason or "" if response.status != 101 else "that opens no WebSocket",
            headers=response.headers,
        )
    transport, protocol = connection.transport, connection.protocol
    if transport is None or protocol is None:
        raise aiohttp.ServerDisconnectedError()
    rest = _Rest()
    protocol.set_parser(rest, None)
    return Opened(response, transport, protocol, rest.data)


def _is_answer_to(key: bytes, response: aiohttp.ClientResponse) -> bool:
    # The protocol demands SHA-1, which guards nothing here.
    wanted = base64.b64encode(hashlib.sha1(key + _ACCEPTED_WITH, usedforsecurity=False).digest()).decode()
    return (
        response.headers.get("Upgrade", "").lower() == "websocket"
        and response.headers.get("Sec-WebSocket-Accept", "") == wanted
        and "Sec-WebSocket-Extensions" not in response.headers
    )
