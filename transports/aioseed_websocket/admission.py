"""Who may open a WebSocket: decided from the request's head alone, by pure functions.

A listener on loopback is reachable by every page in a browser on this machine. So a request with an `Origin` is refused
(a browser always sends one), and on loopback a `Host` that is not ours too (a foreign name rebound to 127.0.0.1).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import urlsplit

from aioseed.transport.address import Address
from aioseed.transport.token import shown_token, token_accepted

SUBPROTOCOL = "aioseed.v1"
TOKEN_SUBPROTOCOL = "aioseed.token."  # noqa: S105 - the name of the field, not a secret
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def refusal_status(method: str, path: str, headers: Mapping[str, str], token: str | None, bound: Address) -> int | None:
    """Return the HTTP status with which to refuse a request, None to let it in.

    Args:
        method: HTTP method.
        path: Path with query.
        headers: Case-insensitive headers.
        token: The secret to show, None if none is needed.
        bound: Where the listener listens.
    """
    if "Origin" in headers or not _host_allowed(headers.get("Host", ""), bound):
        return 403
    protocols = [entry.strip() for entry in headers.get("Sec-WebSocket-Protocol", "").split(",") if entry.strip()]
    if not token_accepted(_token_of(headers, protocols), token):
        return 401
    if path != "/":
        return 404
    if method != "GET" or (protocols and SUBPROTOCOL not in protocols):
        return 400
    return None


def _host_allowed(host: str, bound: Address) -> bool:
    if not bound.is_loopback:
        return True
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in _LOOPBACK_NAMES or name == bound.host


def _token_of(headers: Mapping[str, str], protocols: list[str]) -> str | None:
    shown = shown_token(headers.get("Authorization"))
    if shown is not None:
        return shown
    for protocol in protocols:
        if protocol.startswith(TOKEN_SUBPROTOCOL):
            return _decode(protocol.removeprefix(TOKEN_SUBPROTOCOL))
    return None


def _decode(text: str) -> str | None:
    """Return base64url without padding as text, None if it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
