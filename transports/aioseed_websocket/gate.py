"""What stands before aiohttp until a connection is a channel: TLS, the time for it, and the size of a request's head.

aiohttp bounds neither the time to a first request nor how many connections wait without one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from aiohttp import web

from aioseed.transport.address import peer_name
from aioseed.transport.channel import ListenOptions
from aioseed.transport.descriptors import few_left

TLS_SHUTDOWN_S = 1.0
END_OF_HEAD = b"\r\n\r\n"
NO_DESCRIPTORS_S = 0.1
"""Pause after the system would not give a further descriptor; those inside go on meanwhile."""


class Doorway:
    """Own the connections of a listener that are not channels yet. Thread: the event loop's."""

    def __init__(self, options: ListenOptions, make: Callable[[], web.RequestHandler], *, secure: bool) -> None:
        self.options = options
        self._secure = secure
        self._make = make
        self._gates: dict[web.RequestHandler, Gate] = {}

    def __len__(self) -> int:
        return len(self._gates)

    async def accept(self, listening: socket.socket) -> None:
        """Take connections in until cancelled; drop each that is one too many."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        while True:
            # Only while nothing else is waited for: a socket that stays readable would keep the loop spinning.
            loop.add_reader(listening, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(listening)
            readable.clear()
            # One for each turn of the loop: others want theirs.
            await self._accept_one(listening)

    async def _accept_one(self, listening: socket.socket) -> None:
        # Not by `loop.sock_accept`, which loses a connection that it has accepted when it is cancelled.
        try:
            connection, address = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the peer has gone meanwhile, as BSD and macOS say
            return
        except OSError:
            self.options.report("no_descriptors", "the door")
            await asyncio.sleep(NO_DESCRIPTORS_S)
            return
        connection.setblocking(False)
        peer = peer_name(address[0], address[1])
        if few_left():
            self.options.report("no_descriptors", peer)
            connection.close()
        elif len(self._gates) >= self.options.max_unauthenticated:
            self.options.report("too_many_connections", peer)
            connection.close()
        else:
            inner = self._make()
            self._gates[inner] = Gate(self, inner, connection, peer)

    async def connect(self, gate: Gate, connection: socket.socket, peer: str) -> None:
        """Hand a connection to its gate, after the TLS handshake where there is one."""
        loop = asyncio.get_running_loop()
        tls = self.options.tls if self._secure else None
        if tls is None:
            await loop.connect_accepted_socket(lambda: gate, connection)
            return
        try:
            await loop.connect_accepted_socket(
                lambda: gate,
                connection,
                ssl=tls.material.context,
                ssl_handshake_timeout=self.options.handshake_timeout_s,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S,
            )
        except ConnectionResetError:
            gate.cut()  # it hung up: whoever looks whether a port is open does so, every few seconds for weeks
        except OSError:
            self.options.report("tls_failed", peer)
            gate.cut()

    def leave(self, inner: web.RequestHandler) -> None:
        """Count a connection out. Idempotent."""
        self._gates.pop(inner, None)

    def open(self, inner: web.RequestHandler) -> bool:
        """Let the connection that `inner` serves through: it is a channel now. Say whether its peer waited for that."""
        gate = self._gates.get(inner)
        return gate is None or gate.open()

    def close(self) -> None:
        """Drop every connection that is no channel."""
        for gate in list(self._gates.values()):
            gate.cut()


class Gate(asyncio.Protocol):
    """Pass one connection on to aiohttp, within the bounds of an open door, until a channel takes it over."""

    def __init__(self, doorway: Doorway, inner: web.RequestHandler, connection: socket.socket, peer: str) -> None:
        self._doorway = doorway
        self._inner = inner
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(doorway.options.handshake_timeout_s, self._too_late)
        self._connecting = loop.create_task(doorway.connect(self, connection, peer), name=f"handshake of {peer}")
        # Cancelled before its first step it would leave the socket open; after that a transport has it.
        self._connecting.add_done_callback(lambda task: connection.close() if task.cancelled() else None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to aiohttp."""
        # uvloop's transports are none by type.
        self._transport = cast("asyncio.Transport", transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass on what belongs to the head of the request, unless it is too long."""
        self._head += data
        if len(self._head) > self._doorway.options.max_header_bytes:
            self._doorway.options.report("header_too_large", self._peer)
            self.cut()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> None:
        """Pass on that nothing more comes: the connection then closes."""
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._over()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        self._inner.resume_writing()

    def open(self) -> bool:
        """Step aside: the connection is a channel's from now on. Say whether nothing came behind the head."""
        self._over()
        return self._head.find(END_OF_HEAD) == len(self._head) - len(END_OF_HEAD)

    def cut(self) -> None:
        """Drop the connection."""
        self._over()
        if self._transport is not None:
            self._transport.abort()
        elif self._connecting is not asyncio.current_task():
            self._connecting.cancel()

    def _too_late(self) -> None:
        self._doorway.options.report("handshake_timeout", self._peer)
        self.cut()

    def _over(self) -> None:
        self._doorway.leave(self._inner)
        self._timer.cancel()


def peer_of(transport: asyncio.BaseTransport) -> str:
    """Return the address of the other side, for logs."""
    name = transport.get_extra_info("peername")
    return peer_name(name[0], name[1]) if isinstance(name, tuple) else str(name)
