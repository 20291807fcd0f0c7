"""Who may open a WebSocket: decided from the request's head alone, by pure functions.

A listener on loopback is reachable by every page in a browser on this machine. So a request with an `Origin` is refused
(a browser always sends one) unless that origin is listed, and on loopback a `Host` that is not ours too (a foreign name
rebound to 127.0.0.1). But no page can set `Authorization` for a WebSocket: whoever shows the token there came through a
proxy or a tunnel, under its name.
"""

from __future__ import annotations

import base64
from typing import NamedTuple
from urllib.parse import urlsplit

from multidict import MultiMapping

from aioseed.transport.address import Address
from aioseed.transport.channel import ListenOptions
from aioseed.transport.keyring import Credential
from aioseed.transport.token import shown_token

SUBPROTOCOL = "aioseed.v1"
TOKEN_SUBPROTOCOL = "aioseed.token."  # noqa: S105 - the name of the field, not a secret
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Admission(NamedTuple):
    """Say whether a request may become a channel: `status` is None, or the HTTP status to refuse it with."""

    status: int | None
    reason: str = ""  # for the listener's own counters; the peer is told the status alone
    credential: Credential | None = None


def admission(method: str, path: str, headers: MultiMapping[str], options: ListenOptions, bound: Address) -> Admission:
    """Judge a request.

    Args:
        method: HTTP method.
        path: Path with query.
        headers: Case-insensitive headers.
        options: The tokens of which one is to be shown, and the web origins that may.
        bound: Where the listener listens.
    """
    if not options.allowed_origins.issuperset(headers.getall("Origin", [])) or len(headers.getall("Origin", [])) > 1:
        return Admission(403, "foreign_origin")
    protocols = [entry.strip() for entry in headers.get("Sec-WebSocket-Protocol", "").split(",") if entry.strip()]
    in_header = shown_token(headers.get("Authorization"))
    welcome, credential = options.admit(in_header if in_header is not None else _token_among(protocols))
    if not welcome:
        return Admission(401, "bad_token")
    if in_header is None and not _host_allowed(headers.get("Host", ""), bound):
        return Admission(403, "foreign_host")
    if path != "/":
        return Admission(404, "bad_request")
    if method != "GET" or (protocols and SUBPROTOCOL not in protocols):
        return Admission(400, "bad_request")
    return Admission(None, credential=credential)


def _host_allowed(host: str, bound: Address) -> bool:
    if not bound.is_loopback:
        return True
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name in _LOOPBACK_NAMES or name == bound.host


def _token_among(protocols: list[str]) -> str | None:
    for protocol in protocols:
        if protocol.startswith(TOKEN_SUBPROTOCOL):
            return _decode(protocol.removeprefix(TOKEN_SUBPROTOCOL))
    return None


def _decode(text: str) -> str | None:
    """Return base64url without padding as text, None if it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True).decode()
    except ValueError:  # no base64, or no UTF-8
        return None
