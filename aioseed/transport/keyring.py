"""Which tokens open a listener, and what the holder of each may do.

A token file has one token a line; ``#`` begins a comment, and never stands in a word: what is behind it would silently
be no part of the token. A line that holds nothing else is a shared token, of which two may be active, so that one can
replace the other without a break. Words behind a token make it one actor's own::

    aX3…  actor=lab-7 environments=64 expires=2027-01-31T00:00:00Z
"""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from aioseed.transport.token import Secret, digest_of

MAX_SHARED = 2
MAX_KEYS = 4096


@dataclass(frozen=True, slots=True)
class Credential:
    """Say what the holder of one token may do. It knows the token's digest alone, and does not show that."""

    digest: bytes = field(repr=False)
    actor: str = ""  # empty for a shared token
    max_environments: int | None = None  # over all of its sessions; None: as many as are free
    expires_at_s: float = math.inf  # seconds since 1970

    @property
    def name(self) -> str:
        """Return what to call the holder in a log."""
        return self.actor or "a shared token"


class Keyring:
    """Hold the credentials that are valid now. Thread: the event loop alone.

    Args:
        credentials: The valid ones.
        clock: Gives seconds since 1970, for expiry.
    """

    def __init__(self, credentials: Sequence[Credential], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.replace(credentials)

    @classmethod
    def of(cls, *tokens: Secret | str) -> Keyring:
        """Return a ring of shared tokens."""
        secrets = [token if isinstance(token, Secret) else Secret(token) for token in tokens]
        return cls([Credential(secret.digest()) for secret in secrets])

    def admit(self, shown: str | None) -> Credential | None:
        """Return the credential of a peer that showed `shown`, None if it may not enter."""
        digest, found = digest_of(shown or ""), None
        # All are compared: the time must not tell which one was nearly right.
        for credential in self._by_digest.values():
            if hmac.compare_digest(digest, credential.digest):
                found = credential
        return found if found is not None and shown is not None and self.holds(found) else None

    def holds(self, credential: Credential) -> bool:
        """Say whether the token behind `credential` is still in the ring and has not expired."""
        held = self._by_digest.get(credential.digest)
        return held is not None and self._clock() < held.expires_at_s

    def replace(self, credentials: Sequence[Credential]) -> None:
        """Take other credentials; whoever entered with one that is gone is to be sent away."""
        self._by_digest = {credential.digest: credential for credential in credentials}


def parse_keys(text: str) -> list[Credential]:
    """Return the credentials that a token file names.

    Raises:
        ValueError: A line is wrong, or there are none or too many; the message names the line, never what is in it.
    """
    found = [_credential(token, words, number) for number, token, words in _lines(text)]
    if not found:
        raise ValueError("it holds no token")
    shared = sum(1 for credential in found if not credential.actor)
    if shared > MAX_SHARED:
        raise ValueError(
            f"it holds {shared} shared tokens, {MAX_SHARED} may be active (give each actor its own: actor=)"
        )
    if len(found) > MAX_KEYS:
        raise ValueError(f"it holds {len(found)} tokens, {MAX_KEYS} are allowed")
    if len({credential.digest for credential in found}) < len(found):
        raise ValueError("it holds one token twice")
    return found


def first_token(text: str) -> str:
    """Return the first token of a token file, which is the one that an actor shows; lines behind it are not looked at.

    Raises:
        ValueError: There is none, or a line up to it is wrong; the message names the line, never what is in it.
    """
    for _, token, _ in _lines(text):
        return token
    raise ValueError("it holds no token")


def _lines(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield number, token and the words behind it of every line that has a token."""
    for number, line in enumerate(text.splitlines(), 1):
        said, comment, _ = line.partition("#")
        if comment and said and not said[-1].isspace():
            raise ValueError(f"line {number}: a comment stands behind a space, and a token has no #")
        token, *words = said.split() or [""]
        if not token:
            continue
        if not (token.isascii() and token.isprintable()):
            raise ValueError(f"line {number}: a token is printable ASCII without spaces")
        yield number, token, words


def _credential(token: str, words: Sequence[str], number: int) -> Credential:
    digest = Secret(token).digest()
    pairs = [word.partition("=") for word in words]
    values = {name: value for name, _, value in pairs}
    if (
        len(values) < len(words)
        or not values.keys() <= {"actor", "environments", "expires"}
        or not all(values.values())
    ):
        raise ValueError(f"line {number}: behind a token stand actor=NAME, environments=N and expires=TIME, each once")
    if values and "actor" not in values:
        raise ValueError(f"line {number}: a token with bounds belongs to one actor: add actor=NAME")
    environments, expires = values.get("environments"), values.get("expires")
    if environments is not None and not (environments.isascii() and environments.isdigit() and int(environments) > 0):
        raise ValueError(f"line {number}: environments= is a number from 1 up")
    return Credential(
        digest,
        values.get("actor", "")[:200],
        None if environments is None else int(environments),
        math.inf if expires is None else _moment_s(expires, number),
    )


def _moment_s(text: str, number: int) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"line {number}: expires= is a time with its zone, such as 2027-01-31T00:00:00Z")
    return moment.timestamp()
