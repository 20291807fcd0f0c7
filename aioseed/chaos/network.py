"""A network that delays, loses, stalls and cuts on demand: a transport for simulations in one event loop.

Each direction of a connection is a road on which messages keep their order. What may happen to it is what may happen
to TCP: messages arrive late; the connection is reset and what is under way is lost; or nothing arrives any more and
neither end is told, until, perhaps, all of it arrives at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Literal

from aioseed.errors import ChannelClosed, ConnectError, ListenError
from aioseed.testing.seeded_loop import party
from aioseed.transport.channel import Channel, DialOptions, Handler, Listener, ListenOptions, Transport
from aioseed.transport.handlers import HandlerSet
from aioseed.transport.queue import MessageQueue, again, cut_reason

_AFTER_EACH_OTHER_S = 1e-7


class Road:
    """Carry messages in one direction."""

    def __init__(self, delay_s: Callable[[], float], inbox: MessageQueue) -> None:
        self.sent = 0
        self.on_message: Callable[[int], bool] = lambda number: True  # False loses the message, and cuts
        self._delay_s = delay_s
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._held: deque[bytes | ChannelClosed] | None = None
        self._lost = False
        self._last_s = 0.0
        self._context = party("network")

    def send(self, item: bytes | ChannelClosed) -> None:
        """Send a message, or the end of the connection."""
        if isinstance(item, bytes):
            self.sent += 1
            if not self.on_message(self.sent):
                return
        if self._held is not None:
            self._held.append(item)
        elif not self._lost:
            self._last_s = max(self._last_s + _AFTER_EACH_OTHER_S, self._loop.time() + self._delay_s())
            self._loop.call_at(self._last_s, self._arrive, item, context=self._context)

    def stall(self) -> None:
        """Let nothing arrive that is sent from now on."""
        if self._held is None:
            self._held = deque()

    def release(self) -> None:
        """Send what was held back."""
        held, self._held = self._held or deque(), None
        for item in held:
            self._last_s = max(self._last_s + _AFTER_EACH_OTHER_S, self._loop.time() + self._delay_s())
            if not self._lost:
                self._loop.call_at(self._last_s, self._arrive, item, context=self._context)

    def lose(self) -> None:
        """Lose what is under way and whatever is sent from now on."""
        self._lost, self._held = True, None

    def _arrive(self, item: bytes | ChannelClosed) -> None:
        if self._lost:
            return
        if isinstance(item, ChannelClosed):
            self._inbox.end(item)
        else:
            self._inbox.put(item)


class Connection:
    """Join two ends by two roads."""

    def __init__(self, delay_s: Callable[[], float], url: str, dialler: str) -> None:
        self.dialler = dialler
        inboxes = MessageQueue(), MessageQueue()
        self.there = Road(delay_s, inboxes[1])
        self.back = Road(delay_s, inboxes[0])
        self.dialled = SimulatedChannel(url, inboxes[0], self.there)
        self.accepted = SimulatedChannel(f"{dialler}", inboxes[1], self.back)
        self._inboxes = inboxes

    @property
    def lives(self) -> bool:
        """Return True while neither end knows of an end."""
        return all(inbox.ended is None for inbox in self._inboxes)

    def cut(self) -> None:
        """Reset the connection: what is under way is lost and both ends are told."""
        for road, inbox in zip((self.there, self.back), self._inboxes, strict=True):
            road.lose()
            inbox.end(ChannelClosed("connection reset", clean=False))

    def vanish(self) -> None:
        """Lose everything and tell nobody."""
        self.there.lose()
        self.back.lose()

    def end_of(self, process_of_dialler: bool) -> None:
        """Do what an operating system does for a process that died: the other end reads what was sent, then the end."""
        (self.there if process_of_dialler else self.back).send(ChannelClosed("the peer is gone", clean=False))
        self._inboxes[0 if process_of_dialler else 1].end(ChannelClosed("gone", clean=False))


class SimulatedChannel(Channel):
    """Be one end of a `Connection`."""

    def __init__(self, peer: str, inbox: MessageQueue, out: Road) -> None:
        self._peer = peer
        self._inbox = inbox
        self._out = out

    @property
    def peer(self) -> str:
        """Return the name of the other side."""
        return self._peer

    def send_nowait(self, payload: bytes) -> None:
        """Put one message on the road."""
        if (ended := self._inbox.ended) is not None:
            raise again(ended)
        self._out.send(bytes(payload))

    async def send(self, payload: bytes) -> None:
        """Put one message on the road; it always has room."""
        self.send_nowait(payload)

    async def receive(self) -> bytes:
        """Return the next message that arrived."""
        return await self._inbox.take()

    async def close(self, reason: str = "") -> None:
        """End this side at once; the other learns of it when the end arrives."""
        if self._inbox.ended is None:
            self._out.send(ChannelClosed(cut_reason(reason), clean=True))
        self._inbox.end(ChannelClosed(cut_reason(reason), clean=True), drop=True)


class SimulatedNetwork:
    """Hold listeners and connections. Thread: one event loop.

    Args:
        rng: Of the delays.
    """

    def __init__(self, rng: random.Random) -> None:
        self.connections: list[Connection] = []
        self.slow_s = 0.0  # added to the longest delay
        self._rng = rng
        self._listeners: dict[str, _SimulatedListener] = {}

    def delay_s(self) -> float:
        """Draw the time that one message takes."""
        return self._rng.random() ** 3 * (0.05 + self.slow_s)

    @property
    def living(self) -> list[Connection]:
        """Return the connections that live, oldest first; the others are forgotten."""
        self.connections = [connection for connection in self.connections if connection.lives]
        return self.connections

    def dialled_by(self, dialler: str) -> list[Connection]:
        """Return the living connections that `dialler` opened."""
        return [connection for connection in self.living if connection.dialler == dialler]

    def stall(self, direction: Literal["there", "back"]) -> None:
        """Let nothing arrive in one direction of any connection."""
        for connection in self.living:
            (connection.there if direction == "there" else connection.back).stall()

    def cut(self) -> None:
        """Reset every connection."""
        for connection in self.living:
            connection.cut()

    def listen(self, url: str, handler: Handler) -> _SimulatedListener:
        """Accept connections at `url`, in the context of the caller."""
        if url in self._listeners:
            raise ListenError(f"another listener already has {url}", url=url)
        listener = _SimulatedListener(url, handler, lambda: self._listeners.pop(url, None))
        self._listeners[url] = listener
        return listener

    def unplug(self, url: str) -> None:
        """Let nobody reach the listener at `url` any more; its process died."""
        self._listeners.pop(url, None)

    def dial(self, url: str, dialler: str) -> Connection:
        """Open a connection.

        Raises:
            ConnectError: Nobody listens.
        """
        listener = self._listeners.get(url)
        if listener is None:
            raise ConnectError(f"nobody listens at {url}", url=url)
        connection = Connection(self.delay_s, url, dialler)
        self.connections.append(connection)
        listener.accept(connection.accepted)
        return connection


class SimulatedTransport(Transport):
    """Reach a network as one of its parties."""

    schemes = ("simulated",)

    def __init__(self, network: SimulatedNetwork, name: str) -> None:
        self._network = network
        self._name = name
        self._numbers = itertools.count()

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen at any URL."""
        return self._network.listen(url, handler)

    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Open a channel after a while."""
        await asyncio.sleep(self._network.delay_s())
        return self._network.dial(url, self._name).dialled


class _SimulatedListener(Listener):
    def __init__(self, url: str, handler: Handler, forget: Callable[[], object]) -> None:
        self._url = url
        self._handlers = HandlerSet(handler)
        self._forget = forget
        self._context = contextvars.copy_context()

    @property
    def url(self) -> str:
        return self._url

    def accept(self, channel: Channel) -> None:
        self._context.copy().run(self._handlers.start, channel)

    async def close(self, grace_s: float = 2.0) -> None:
        self._forget()
        await self._handlers.close(grace_s)
