"""Who stands at a learner's door: tokens and certificates that change while it is open, and what was refused.

Tokens are bounded and taken back here, above the transports, so that a third party's transport has it too: it only says
whose token opened a channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from aioseed.actor.token import read_keys
from aioseed.errors import AioseedError, UsageError
from aioseed.host.certificate import WARN_DAYS, days_left
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.throttle import Throttle
from aioseed.transport.channel import Channel, Handler
from aioseed.transport.keyring import Keyring
from aioseed.transport.server_tls import ServerTls

log = logging.getLogger("aioseed.serving.door")

LOOK_S = 0.25
"""Seconds between two looks at the files of tokens and certificates."""
NOTE_S = 86_400.0
"""Seconds between two looks at how long a certificate that stays the same still lasts."""
GOODBYE_S = 0.5
"""Longest wait for a peer whose token was taken back to close its channel; then it is cut."""

_WORDS = {
    "bad_token": "refused: a wrong token or none",
    "tls_failed": "refused: no TLS, or a certificate that is not accepted",
    "handshake_timeout": "refused: too slow to open a channel",
    "header_too_large": "refused: too large a request head",
    "too_many_connections": "refused: too many connections",
    "no_descriptors": "refused: too few file descriptors are left: raise the limit of this process, ulimit -n",
    "foreign_origin": "refused: a web page whose origin is not listed (transport.allowed_origins)",
    "foreign_host": "refused: a Host that is not this listener's",
    "bad_request": "refused: no request of an actor",
    "no_upgrade": "refused: a token without a WebSocket: a proxy must pass Upgrade and Connection on",
    "control_flood": "cut: too many control frames",
    "rate_limited": "read more slowly: too many bytes a second",
    "slow_reader": "cut: it does not read what it is sent",
}


class Door:
    """Watch who comes in. Thread: the event loop alone.

    Args:
        keys: The valid tokens; None lets everybody in.
        token_file: Where `keys` come from, to be read again when it changes.
        tls: Certificate to keep fresh.
        connections_per_token: Channels that may be open with one token.
    """

    def __init__(
        self,
        keys: Keyring | None,
        token_file: Path | None,
        tls: ServerTls | None,
        connections_per_token: int,
        metrics: Metrics,
    ) -> None:
        self.keys = keys
        self._token_file = token_file
        self._tls = tls
        self._limit = connections_per_token
        self._metrics = metrics
        self._throttle = Throttle()
        self._channels: dict[bytes, set[Channel]] = {}  # by the digest of their token
        self._looked = False  # the file is read once more at the first look, which is no news
        self._seen: tuple[int, int, int] | None = None

    def report(self, what: str, peer: str) -> None:
        """Count what a listener refused, cut or held, and log at most one line a second of each kind."""
        self._metrics.counter(f"transport/{what}").add()
        count = self._throttle.ask(what, asyncio.get_running_loop().time())
        if count is not None:
            # The words are no argument: who shows or keeps so many lines of a kind knows kinds by what stands here.
            line = _WORDS.get(what, "refused or cut: " + what.replace("%", "%%")) + " (%s%.100r)"
            log.warning(line, "" if count == 1 else f"{count} times, the last ", peer)

    def guarded(self, handler: Handler) -> Handler:
        """Return `handler` behind the bound on channels with one token."""

        async def handle(channel: Channel) -> None:
            if channel.credential is None:
                await handler(channel)
                return
            same = self._channels.setdefault(channel.credential.digest, set())
            if len(same) >= self._limit:
                self.report("too_many_connections", channel.peer)
                await channel.close("too many connections with this token")
                return
            same.add(channel)
            try:
                await handler(channel)
            finally:
                same.discard(channel)
                if not same:
                    self._channels.pop(channel.credential.digest, None)

        return handle

    async def watch(self) -> None:
        """Look at the files, take in what is new and send away whose token is gone, until cancelled."""
        certificate, noted_s, loop = b"", 0.0, asyncio.get_running_loop()
        while True:
            if self._tls is not None:
                await self._refresh(self._tls.refresh, "certificate was")
                if self._tls.material.certificate is not certificate or loop.time() - noted_s >= NOTE_S:
                    certificate, noted_s = self._tls.material.certificate, loop.time()
                    await self._note_expiry(certificate)
            if self._token_file is not None:
                await self._refresh(self._read_keys, "tokens were")
            await self._send_away()
            await asyncio.sleep(LOOK_S)

    async def _refresh(self, look: Callable[[], bool], what: str) -> None:
        try:
            if await asyncio.to_thread(look):
                self._metrics.counter("transport/reloads").add()
                log.info("the %s read again", what)
        except UsageError as error:
            self._metrics.counter("transport/reloads_failed").add()
            log.warning("what was there before stays: %s", error)

    def _read_keys(self) -> bool:
        """Read the token file if it changed. Thread: one of asyncio's."""
        signature = _signature(self._token_file)
        if self.keys is None or self._token_file is None or (self._looked and signature == self._seen):
            return False
        news, self._looked, self._seen = self._looked, True, signature
        self.keys.replace(read_keys(self._token_file))
        return news

    async def _note_expiry(self, certificate: bytes) -> None:
        try:
            left = await asyncio.to_thread(days_left, certificate)
        except UsageError as error:  # OpenSSL, which has taken it, is less strict than what reads it here
            log.warning("how long the certificate lasts cannot be told: %s", error)
            return
        self._metrics.gauge("transport/certificate_days_left").set(left)
        if left < 0:
            log.warning("the certificate has expired: renew it, actors that look at it do not come in any more")
        elif left < WARN_DAYS:
            log.warning("the certificate is valid for %.1f more days", left)

    async def _send_away(self) -> None:
        """Close the channels whose token was removed or has expired."""
        keys = self.keys
        if keys is None:
            return
        gone = [
            channel
            for channels in self._channels.values()
            for channel in channels
            if channel.credential is not None and not keys.holds(channel.credential)
        ]
        if gone:
            self._metrics.counter("transport/revoked").add(len(gone))
            log.warning("closed %d sessions whose token was taken back or has expired", len(gone))
            await asyncio.gather(*(_close(channel) for channel in gone))


async def _close(channel: Channel) -> None:
    with contextlib.suppress(TimeoutError, AioseedError):
        async with asyncio.timeout(GOODBYE_S):
            await channel.close("this token is no longer valid")


def _signature(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)
