"""Listeners of a learner and the tokens that open them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from aioseed.actor.token import is_loopback, token_path, write_token
from aioseed.errors import ListenError
from aioseed.plugins import transport_for
from aioseed.transport.channel import Handler, Listener, ListenOptions, Transport


class Listeners:
    """Hold the open listeners of a learner. Thread: the event loop alone.

    Args:
        token: What every actor must show; None makes a random one for loopback listeners and refuses any other.
    """

    def __init__(self, token: str | None, max_message_bytes: int) -> None:
        self.token = token or secrets.token_urlsafe(32)
        self._given = token is not None
        self._max_message_bytes = max_message_bytes
        self._listeners: list[Listener] = []
        self._token_files: list[Path] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the addresses with their real ports."""
        return tuple(listener.url for listener in self._listeners)

    async def open(self, urls: Sequence[str], handler: Handler, transports: Sequence[Transport]) -> None:
        """Listen at every one of `urls`. Not safe to cancel half-way: close afterwards.

        Args:
            transports: Instances to use for the schemes that they have (an in-memory network, say); others are loaded.

        Raises:
            ListenError: A port is in use, or the address is not loopback and there is no token.
            PluginError: No transport has the scheme.
        """
        for url in urls:
            transport = next((ours for ours in transports if url.split(":")[0] in ours.schemes), None)
            if transport is None:
                transport = await asyncio.to_thread(transport_for, url)
            in_memory = url.startswith("memory:")
            if not in_memory and not is_loopback(url) and not self._given:
                raise ListenError(
                    f"{url} can be reached from other machines: give a token with --token-file, or listen on 127.0.0.1",
                    url=url,
                )
            options = ListenOptions(None if in_memory else self.token, self._max_message_bytes)
            listener = await transport.listen(url, handler, options)
            self._listeners.append(listener)
            if not in_memory and not self._given:
                path = token_path(listener.url)
                await asyncio.to_thread(write_token, path, self.token)
                self._token_files.append(path)

    async def close(self, grace_s: float = 2.0) -> None:
        """Close every listener and remove the token files. Idempotent."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.close(grace_s)
        paths, self._token_files = self._token_files, []
        for path in paths:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(os.unlink, path)
