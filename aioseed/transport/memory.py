"""A network inside one process and one event loop: no sockets, no threads, no clock of its own.

It serves local training without processes, and tests: it runs under virtual time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

from aioseed.errors import AuthenticationError, ChannelClosed, ConnectError, ListenError, UsageError
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.queue import MessageQueue, again, cut_reason


class MemoryChannel(Channel):
    """Hand messages to a partner in the same process. Made in pairs by `MemoryChannel.pair`."""

    def __init__(
        self,
        peer: str,
        max_message_bytes: int,
        send_buffer_bytes: int,
        report: Callable[[str, str], None] = lambda what, peer: None,
    ) -> None:
        self._peer = peer
        self._report = report
        self._max_message_bytes = max_message_bytes
        self._send_buffer_bytes = send_buffer_bytes
        self._inbox = MessageQueue()
        self._partner = self

    @classmethod
    def pair(cls, url: str, number: int, listen: ListenOptions, dial: DialOptions) -> tuple[Self, Self]:
        """Return the dialled and the accepted end of a new channel."""
        dialled = cls(url, dial.max_message_bytes, listen.send_buffer_bytes)
        accepted = cls(f"memory:{number}", listen.max_message_bytes, listen.send_buffer_bytes, listen.report)
        dialled._partner, accepted._partner = accepted, dialled
        return dialled, accepted

    @property
    def peer(self) -> str:
        """Return the listener's URL, or a number for a dialler."""
        return self._peer

    def send_nowait(self, payload: bytes) -> None:
        """Put one message into the partner's inbox."""
        self._put(payload)
        if self._partner._inbox.size_bytes > self._send_buffer_bytes:
            self._report("slow_reader", self._peer)
            self._cut("the peer reads too slowly")
            raise ChannelClosed("the peer reads too slowly", clean=False)

    async def send(self, payload: bytes) -> None:
        """Put one message into the partner's inbox and wait until that has room."""
        self._put(payload)
        await self._partner._inbox.room()

    async def receive(self) -> bytes:
        """Return the next message."""
        return await self._inbox.take()

    async def close(self, reason: str = "") -> None:
        """End both directions; the partner still takes what was sent before."""
        words = cut_reason(reason)
        self._inbox.end(ChannelClosed(words, clean=True), drop=True)
        self._partner._inbox.end(ChannelClosed(words, clean=True))

    def _put(self, payload: bytes) -> None:
        if (ended := self._inbox.ended) is not None:
            raise again(ended)
        if len(payload) > self._partner._max_message_bytes:
            self._cut(f"a message of {len(payload)} bytes is too large")
            return
        self._partner._inbox.put(bytes(payload))

    def _cut(self, reason: str) -> None:
        self._inbox.end(ChannelClosed(reason, clean=False))
        self._partner._inbox.end(ChannelClosed(reason, clean=False))


class MemoryListener(Listener):
    """Accept channels inside one `MemoryTransport`."""

    def __init__(
        self, url: str, handlers: HandlerSet, options: ListenOptions, forget: Callable[[MemoryListener], None]
    ) -> None:
        self._url = url
        self._handlers = handlers
        self._options = options
        self._forget = forget

    @property
    def url(self) -> str:
        """Return the address."""
        return self._url

    def accept(self, number: int, options: DialOptions) -> Channel:
        """Return the dialled end of a new channel and run the handler on the other end.

        Raises:
            AuthenticationError: The token was not accepted.
            ConnectError: There are as many channels as may be.
        """
        welcome, credential = self._options.admit(None if options.token is None else options.token.reveal())
        if not welcome:
            self._options.report("bad_token", f"memory:{number}")
            raise AuthenticationError(f"{self._url} did not accept the token", url=self._url)
        if len(self._handlers) >= self._options.max_connections:
            self._options.report("too_many_connections", f"memory:{number}")
            raise ConnectError(f"{self._url} has no room for another channel", url=self._url)
        dialled, accepted = MemoryChannel.pair(self._url, number, self._options, options)
        accepted.credential = credential
        self._handlers.start(accepted)
        return dialled

    async def close(self, grace_s: float = 2.0) -> None:
        """Free the address, then end all channels and handlers."""
        self._forget(self)
        await self._handlers.close(grace_s)


class MemoryTransport(Transport):
    """Open channels inside one process. The instance is the network: two instances do not see each other."""

    schemes = ("memory",)

    def __init__(self) -> None:
        self._listeners: dict[str, MemoryListener] = {}
        self._free_ports = itertools.count(1)
        self._diallers = itertools.count(1)

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen at ``memory://name`` or ``memory://name:0`` (a free number takes the place of the 0)."""
        try:
            name = self._name(url)
        except ValueError as error:
            raise ListenError(f"cannot listen at {url}: {error}", url=url) from error
        if name in self._listeners:
            raise ListenError(f"another listener already has {name}", url=url)

        listener = MemoryListener(name, HandlerSet(handler), options, self._forget)
        self._listeners[name] = listener
        return listener

    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Open a channel to the listener at `url` in this instance; never waits."""
        try:
            listener = self._listeners[self._name(url)]
        except ValueError as error:
            raise UsageError(f"cannot dial {url}: {error}") from error
        except KeyError as error:
            raise ConnectError(f"nobody listens at {url}", url=url) from error
        return listener.accept(next(self._diallers), options)

    def _forget(self, listener: MemoryListener) -> None:
        if self._listeners.get(listener.url) is listener:
            del self._listeners[listener.url]

    def _name(self, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme != "memory" or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError("a URL like memory://name is needed")
        if parts.port != 0:
            return f"memory://{parts.netloc}"
        return f"memory://{parts.hostname}:{next(self._free_ports)}"
