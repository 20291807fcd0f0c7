"""Listeners of a learner, and what opens them: tokens and certificates."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from aioseed.actor.token import is_loopback, read_keys, read_token, token_folder, token_path, write_token
from aioseed.errors import ListenError, UsageError
from aioseed.host.certificate import self_signed
from aioseed.host.door import Door
from aioseed.plugins import transport_for
from aioseed.telemetry.counters import Metrics
from aioseed.transport.channel import Handler, Listener, ListenOptions, Transport
from aioseed.transport.config import TransportConfig
from aioseed.transport.keyring import Keyring
from aioseed.transport.server_tls import ServerTls
from aioseed.transport.token import Secret

log = logging.getLogger("aioseed.serving.door")

PRIVATE = "private"
"""Directory inside that of a run for a certificate, its key and a token that were made for it."""
TOKEN = "token"  # noqa: S105 - the name of a file
KEEP_S = 5.0
"""Seconds between two looks whether the tokens that were left are still there."""


class Listeners:
    """Hold the open listeners of a learner. Thread: the event loop alone.

    Args:
        config: How to listen.
        private: Directory of what only the learner's user may see: a certificate and a token that were made here.
        metrics: Count what was refused.
        token: What every actor must show; None makes a random one for loopback listeners and refuses any other.
        token_file: File with tokens, read again when it changes; takes the place of `token`.
    """

    def __init__(
        self,
        config: TransportConfig,
        private: Path,
        metrics: Metrics,
        *,
        token: Secret | None = None,
        token_file: Path | None = None,
    ) -> None:
        self.token = token or Secret(secrets.token_urlsafe(32))
        self.token_file = token_file
        self.fingerprint: str | None = None
        self._given = token is not None or token_file is not None
        self._config = config
        self._private = private
        self._metrics = metrics
        self._listeners: list[Listener] = []
        self._token_files: list[Path] = []
        self._writing = asyncio.Lock()  # held while `_token_files` are written or removed
        self._watches: list[asyncio.Task[None]] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the addresses with their real ports."""
        return tuple(listener.url for listener in self._listeners)

    @property
    def watches(self) -> tuple[asyncio.Task[None], ...]:
        """Return the tasks that look after tokens and certificates: one that ends before `close` has failed."""
        return tuple(self._watches)

    async def open(self, urls: Sequence[str], handler: Handler, transports: Sequence[Transport]) -> None:
        """Listen at every one of `urls`. Not safe to cancel half-way: close afterwards.

        Args:
            transports: Instances to use for the schemes that they have (an in-memory network, say); others are loaded.

        Raises:
            ListenError: A port is in use, or other machines can reach the address and there is no token or no TLS.
            PluginError: No transport has the scheme.
            UsageError: A file of tokens or certificates cannot be used.
        """
        chosen = [(url, await _transport(url, transports)) for url in urls]
        await asyncio.to_thread(self._ready_token, urls)
        for url, transport in chosen:
            self._check(url, transport)
        secure = any(_scheme(url) in transport.secure_schemes for url, transport in chosen)
        tls = await asyncio.to_thread(self._ready_tls, urls) if secure else None
        keys = await asyncio.to_thread(self._keys)
        door = Door(keys, self.token_file, tls, self._config.limits.connections_per_token, self._metrics)
        for url, transport in chosen:
            await self._listen(url, transport, door.guarded(handler), _options(self._config, door, tls))
        loop = asyncio.get_running_loop()
        if self.token_file is not None or tls is not None:
            self._watches.append(loop.create_task(door.watch(), name="aioseed-door"))
        if self._token_files:
            self._watches.append(loop.create_task(self._keep_tokens(), name="aioseed-tokens"))

    async def close(self, grace_s: float = 2.0) -> None:
        """Remove the token files and close every listener. Idempotent."""
        # Before the port is free: whoever takes it next leaves a token file of the same name.
        async with self._writing:
            paths, self._token_files = self._token_files, []
            for path in paths:
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(os.unlink, path)
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.close(grace_s)
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)  # one that failed was told to whoever looks at `watches`

    async def _keep_tokens(self) -> None:
        """Leave the tokens again that are lost: systems empty a user's runtime directory at the last logout."""
        told = False
        while True:
            await asyncio.sleep(KEEP_S)
            async with self._writing:
                try:
                    for path in self._token_files:
                        if not await asyncio.to_thread(path.exists):
                            await asyncio.to_thread(write_token, path, self.token)
                            log.info("the token file %s was lost and is there again", path)
                    told = False
                except (UsageError, OSError) as error:
                    if not told:
                        log.warning("%s; until it can be, actors here do not find the token", error)
                    told = True

    async def _listen(self, url: str, transport: Transport, handler: Handler, options: ListenOptions) -> None:
        in_memory = _scheme(url) == "memory"
        open_to_all = in_memory or not (self._given or is_loopback(url))
        listener = await transport.listen(url, handler, options._replace(keys=None) if open_to_all else options)
        self._listeners.append(listener)
        if not open_to_all and not self._given:
            path = token_path(listener.url)
            await asyncio.to_thread(write_token, path, self.token)
            self._token_files.append(path)

    def _check(self, url: str, transport: Transport) -> None:
        """Refuse what would let strangers in or listen in."""
        if _scheme(url) == "memory" or is_loopback(url) or self._config.allow_insecure:
            return
        lacking = [] if self._given else ["a token (--token-file)"]
        if _scheme(url) not in transport.secure_schemes:
            ways = " or ".join(f"{scheme}://" for scheme in sorted(transport.secure_schemes)) or "another transport"
            lacking.append(f"TLS ({ways} with --tls self-signed, or --tls-cert and --tls-key)")
        elif not self._config.tls.given:
            lacking.append("a certificate (--tls self-signed makes one and a token, or --tls-cert and --tls-key)")
        if lacking:
            raise ListenError(
                f"{url} can be reached from other machines and lacks {' and '.join(lacking)}: give it, listen on"
                " 127.0.0.1, or say --insecure-listen if everybody on that network may join, read and change all",
                url=url,
            )

    def _ready_token(self, urls: Sequence[str]) -> None:
        """Make a token file where actors will not find a token by themselves, so that one command is enough.

        That is for self-signed learners for other machines, and where the user has no folder to leave a token in, as in
        many containers.
        """
        sockets = [url for url in urls if _scheme(url) != "memory"]
        remote = any(not is_loopback(url) for url in sockets)
        hidden = any(is_loopback(url) for url in sockets) and not _can_leave_token()
        if not self._given and (hidden or (remote and self._config.tls.self_signed)):
            self.token_file, self._given = self._private / TOKEN, True
            if not self.token_file.exists():
                write_token(self.token_file, self.token)
        if self.token_file is not None:
            self.token = read_token(self.token_file)

    def _keys(self) -> Keyring:
        return Keyring.of(self.token) if self.token_file is None else Keyring(read_keys(self.token_file))

    def _ready_tls(self, urls: Sequence[str]) -> ServerTls:
        tls = self._config.tls
        certificate, key = tls.certificate, tls.key
        if tls.self_signed:
            hosts = [urlsplit(url).hostname or "" for url in urls]
            certificate, key = self_signed(self._private, [host for host in hosts if host])
        if certificate is None or key is None:
            raise ListenError(
                f"{urls[0]}: TLS needs a certificate: say --tls self-signed, or give --tls-cert and --tls-key",
                url=urls[0],
            )
        made = ServerTls(certificate, key, tls.client_ca)
        self.fingerprint = made.material.fingerprint if tls.self_signed else None
        return made


async def _transport(url: str, transports: Sequence[Transport]) -> Transport:
    ours = next((transport for transport in transports if _scheme(url) in transport.schemes), None)
    return ours if ours is not None else await asyncio.to_thread(transport_for, url)


def _can_leave_token() -> bool:
    """Say whether actors of the same user could find a token that is left for them."""
    try:
        folder = token_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, UsageError):
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _scheme(url: str) -> str:
    return url.partition(":")[0]


def _options(config: TransportConfig, door: Door, tls: ServerTls | None) -> ListenOptions:
    limits = config.limits
    return ListenOptions(
        keys=door.keys,
        max_message_bytes=config.max_message_bytes,
        send_buffer_bytes=limits.send_buffer_bytes,
        handshake_timeout_s=limits.handshake_timeout_s,
        tls=tls,
        allowed_origins=config.allowed_origins,
        max_header_bytes=limits.max_header_bytes,
        max_unauthenticated=limits.max_unauthenticated,
        max_connections=limits.max_connections,
        control_frames_per_s=limits.control_frames_per_s,
        received_bytes_per_s=limits.received_bytes_per_s,
        stall_timeout_s=limits.stall_timeout_s,
        report=door.report,
    )
