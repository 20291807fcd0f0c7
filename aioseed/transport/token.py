"""The token that a peer shows before the first message, ``Bearer <token>``; a text that is not shown by accident."""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn

BEARER = "Bearer "


class Secret:
    """Hold a text that no log, dump or traceback may show: only `reveal` gives it.

    Equal texts make equal secrets, compared in constant time.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def digest(self) -> bytes:
        """Return the SHA-256 of the text, 32 bytes."""
        return digest_of(self._text)

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.digest(), other.digest())

    def __hash__(self) -> int:
        return hash(self.digest())

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written anywhere")


def bearer(token: Secret) -> str:
    """Return the value of an ``authorization`` header or metadata entry."""
    return BEARER + token.reveal()


def shown_token(authorization: str | None) -> str | None:
    """Return the token in the value of an ``authorization`` header, None if it carries none."""
    if authorization is None or not authorization.lower().startswith(BEARER.lower()):
        return None
    return authorization[len(BEARER) :].strip()


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of a token.

    Digests have one length, so the time of a comparison says nothing about the length of the secret. A header may hold
    bytes that are not UTF-8; they arrive as surrogates and must not raise.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
