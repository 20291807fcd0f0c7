"""An own transport: WebSockets that count what they carry, under the scheme ``counted://``."""

from __future__ import annotations

from collections import Counter

from aioseed_websocket import WebSocketTransport

from aioseed.errors import AuthenticationError, ConnectError, ListenError, UsageError
from aioseed.transport import Channel, DialOptions, Handler, Listener, ListenOptions, Transport


class CountedChannel(Channel):
    """Carry messages over another channel and count them."""

    def __init__(self, inner: Channel, counts: Counter[str]) -> None:
        self._inner = inner
        self._counts = counts
        self.credential = inner.credential

    @property
    def peer(self) -> str:
        """Return the address of the other side."""
        return self._inner.peer

    def send_nowait(self, payload: bytes) -> None:
        """Queue one message without waiting."""
        self._inner.send_nowait(payload)
        self._count("sent", payload)

    async def send(self, payload: bytes) -> None:
        """Send one message and wait while the peer is slow to read."""
        await self._inner.send(payload)
        self._count("sent", payload)

    async def receive(self) -> bytes:
        """Return the next message."""
        payload = await self._inner.receive()
        self._count("received", payload)
        return payload

    async def close(self, reason: str = "") -> None:
        """Close the channel and tell the peer why."""
        await self._inner.close(reason)

    def _count(self, what: str, payload: bytes) -> None:
        self._counts[f"{what}_messages"] += 1
        self._counts[f"{what}_bytes"] += len(payload)


class CountedListener(Listener):
    """Show the address of another listener under the scheme ``counted``."""

    def __init__(self, inner: Listener) -> None:
        self._inner = inner

    @property
    def url(self) -> str:
        """Return the address with the real port, ready to be dialled."""
        return self._inner.url.replace("ws://", "counted://", 1)

    async def close(self, grace_s: float = 2.0) -> None:
        """Stop accepting and end the handlers."""
        await self._inner.close(grace_s)


class CountedTransport(Transport):
    """Open counted channels over WebSockets; `counts` adds up those of this instance."""

    schemes = ("counted",)

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._inner = WebSocketTransport()

    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen at `url`."""
        if not url.startswith("counted://"):
            raise ListenError(f"cannot listen at {url}: it does not begin with counted://", url=url)

        async def counted(channel: Channel) -> None:
            await handler(CountedChannel(channel, self.counts))

        try:
            return CountedListener(await self._inner.listen(_as_websocket(url), counted, options))
        except ListenError as error:
            raise ListenError(str(error), url=url) from error

    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Open a channel to `url`."""
        if not url.startswith("counted://"):
            raise UsageError(f"cannot dial {url}: it does not begin with counted://")
        try:
            return CountedChannel(await self._inner.dial(_as_websocket(url), options), self.counts)
        except (AuthenticationError, ConnectError) as error:
            raise type(error)(str(error), url=url) from error


def _as_websocket(url: str) -> str:
    return url.replace("counted://", "ws://", 1)
