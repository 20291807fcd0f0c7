"""What stands before aiohttp until a connection is a channel: TLS, the time for it, and the size of a request's head.

aiohttp bounds neither the time to a first request nor how many connections wait without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web

from aioseed.transport.channel import ListenOptions

TLS_SHUTDOWN_S = 1.0


class Doorway:
    """Own the connections of a listener that are not channels yet. Thread: the event loop's."""

    def __init__(self, options: ListenOptions, make: Callable[[], web.RequestHandler], *, secure: bool) -> None:
        self.options = options
        self.secure = secure
        self._make = make
        self._gates: dict[web.RequestHandler, Gate] = {}

    def __len__(self) -> int:
        return len(self._gates)

    @property
    def full(self) -> bool:
        """Say whether no further connection may wait here."""
        return len(self._gates) >= self.options.max_unauthenticated

    def gate(self) -> Gate:
        """Return the protocol for a connection that was just accepted."""
        return Gate(self, self._make())

    def enter(self, inner: web.RequestHandler, gate: Gate) -> None:
        """Count a connection in."""
        self._gates[inner] = gate

    def leave(self, inner: web.RequestHandler) -> None:
        """Count a connection out. Idempotent."""
        self._gates.pop(inner, None)

    def open(self, inner: web.RequestHandler) -> None:
        """Let the connection that `inner` serves through: it is a channel now."""
        if (gate := self._gates.get(inner)) is not None:
            gate.open()

    def close(self) -> None:
        """Drop every connection that is no channel."""
        for gate in list(self._gates.values()):
            gate.cut()


class Gate(asyncio.Protocol):
    """Pass one connection on to aiohttp, within the bounds of an open door; afterwards aiohttp has it alone."""

    def __init__(self, doorway: Doorway, inner: web.RequestHandler) -> None:
        self._doorway = doorway
        self._inner = inner
        self._raw: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None  # what aiohttp writes to, once it may
        self._peer = ""
        self._timer: asyncio.TimerHandle | None = None
        self._shaking: asyncio.Task[None] | None = None
        self._early: list[bytes] = []  # what came with the end of the TLS handshake
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the TLS handshake, or hand the connection to aiohttp; drop it if too many wait already."""
        # uvloop's transports are none by type.
        self._raw = raw = cast("asyncio.Transport", transport)
        self._peer = peer_of(raw)
        if self._doorway.full:
            self._doorway.options.report("too_many_connections", self._peer)
            raw.abort()
            return
        loop = asyncio.get_running_loop()
        self._doorway.enter(self._inner, self)
        self._timer = loop.call_later(self._doorway.options.handshake_timeout_s, self._too_late)
        if self._doorway.secure:
            raw.pause_reading()
            self._shaking = loop.create_task(self._shake_hands(raw), name=f"TLS handshake of {self._peer}")
        else:
            self._begin(raw)

    def data_received(self, data: bytes) -> None:
        """Pass on what belongs to the head of the request, unless it is too long."""
        self._head_bytes += len(data)
        if self._head_bytes > self._doorway.options.max_header_bytes:
            self._doorway.options.report("header_too_large", self._peer)
            self.cut()
        elif self._transport is None:
            self._early.append(data)
        else:
            self._inner.data_received(data)

    def eof_received(self) -> None:
        """Pass on that nothing more comes: the connection then closes."""
        if self._transport is not None:
            self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._over()
        if self._transport is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()

    def open(self) -> None:
        """Step aside: from now on aiohttp alone serves the connection."""
        self._over()
        if self._transport is not None:
            self._transport.set_protocol(self._inner)

    def cut(self) -> None:
        """Drop the connection."""
        self._over()
        if self._shaking is not None:
            self._shaking.cancel()
        if self._raw is not None:
            self._raw.abort()

    def _too_late(self) -> None:
        self._doorway.options.report("handshake_timeout", self._peer)
        self.cut()

    def _over(self) -> None:
        self._doorway.leave(self._inner)
        if self._timer is not None:
            self._timer.cancel()

    async def _shake_hands(self, raw: asyncio.Transport) -> None:
        tls = self._doorway.options.tls
        assert tls is not None
        secured: asyncio.Transport | None = None
        try:
            secured = await asyncio.get_running_loop().start_tls(
                raw,
                self,
                tls.material.context,
                server_side=True,
                ssl_handshake_timeout=self._doorway.options.handshake_timeout_s,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        except OSError:
            self._doorway.options.report("tls_failed", self._peer)
        if secured is not None and not secured.is_closing():
            self._begin(secured)
        else:
            # A peer that goes away in the middle of the handshake counts as one that never came.
            self.cut()

    def _begin(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._inner.connection_made(transport)
        early, self._early = self._early, []
        for data in early:
            self._inner.data_received(data)


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the address of the other side, for logs."""
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
