"""The token that a peer shows before the first message: `Bearer <token>`, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac

BEARER = "Bearer "


def bearer(token: str) -> str:
    """Return the value of an ``authorization`` header or metadata entry."""
    return BEARER + token


def shown_token(authorization: str | None) -> str | None:
    """Return the token in the value of an ``authorization`` header, None if it carries none."""
    if authorization is None or not authorization.lower().startswith(BEARER.lower()):
        return None
    return authorization[len(BEARER) :].strip()


def token_accepted(shown: str | None, expected: str | None) -> bool:
    """Say whether a peer that showed `shown` may enter; `expected` None accepts all."""
    if expected is None:
        return True
    return hmac.compare_digest(_digest(shown or ""), _digest(expected)) and shown is not None


def _digest(token: str) -> bytes:
    # Digests have one length, so the time of the comparison says nothing about the length of the secret. A header may
    # hold bytes that are not UTF-8; they arrive as surrogates and must not raise.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
