"""The seam between messages and networks: a Channel carries whole messages, a Transport opens channels.

Every transport, ours and a third party's, implements these classes and passes `aioseed.testing.transport_kit`. A
message is `bytes`; what it means is `aioseed.wire`'s business. Foreign exceptions never cross: a transport raises only
`ChannelClosed`, `ConnectError`, `AuthenticationError`, `CertificateError`, `ListenError` and `UsageError`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import NamedTuple, TypeAlias

from aioseed.transport.client_tls import ClientTls
from aioseed.transport.keyring import Credential, Keyring
from aioseed.transport.server_tls import ServerTls
from aioseed.transport.token import Secret
from aioseed.types import Payload

DEFAULT_MAX_MESSAGE_BYTES = 16 * 2**20


class Place(NamedTuple):
    """Be where the end of a message goes, so that nobody copies it again.

    It is filled, and its receiver told so, before anything else is done; or it is forgotten, half filled perhaps, and
    the message comes as any other.
    """

    memory: Sequence[memoryview]  # bytes that can be written, piece by piece
    filled: Callable[[], bool]  # takes the message, as `take` of `Channel.receive_each` does


MakePlace: TypeAlias = Callable[[int, memoryview], Place | None]
"""Asked with the size of a message and what is there of its beginning; None where the message is to come as a whole.

`Place.memory` has as many bytes as the end that goes there, and what is there of the message reaches at least that far.
"""


class Channel(ABC):
    """Carry whole messages in both directions, in order, each at most once, between two peers.

    One task may receive and any number may send; all calls belong to the thread of the event loop that opened the
    channel.
    """

    credential: Credential | None = None
    """Whose token opened the channel; set by a listener that asks for tokens."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """Return the address of the other side, for logs."""

    @abstractmethod
    def send_nowait(self, payload: bytes) -> None:
        """Queue one message without waiting.

        The caller bounds what is outstanding (one ACTION for each STEP), so this pushes nobody back. Nothing is handed
        to anybody from within: who sends may be in the middle of something.

        Raises:
            ChannelClosed: The channel has ended, or the peer reads so slowly that more than the listener's
                `send_buffer_bytes` wait: then the channel is cut.
        """

    @abstractmethod
    async def send(self, payload: bytes) -> None:
        """Send one message and wait while the peer is slow to read.

        Safe to cancel: the message is sent whole or not at all. Several callers are served in the order of their calls.

        Raises:
            ChannelClosed: The channel has ended.
        """

    @abstractmethod
    async def receive(self) -> bytes:
        """Return the next message.

        Safe to cancel: no message is lost. One caller at a time; a second one raises RuntimeError. Not reading pushes
        the peer back as far as its network does.

        Raises:
            ChannelClosed: No further message will come; those that arrived before were all handed out.
        """

    async def receive_each(self, take: Callable[[Payload], bool], place: MakePlace | None = None) -> None:
        """Hand every message to `take` in the order of arrival, until it returns False.

        Cheaper than `receive` where a transport can call `take` without waking this task, and without a copy where it
        can show the place that a message was read to: who keeps anything of it copies that. Safe to cancel: what was
        not handed to `take` is still to be received. One caller at a time, as for `receive`. `take` must not linger.

        Args:
            take: Takes a message and says whether there is to be another.
            place: Asked, by transports that can read the end of a large message straight to a place; such a message
                is not handed to `take`: its `Place` is told when it is there.

        Raises:
            ChannelClosed: No further message will come; `take` saw all that arrived before.
            Exception: What `take` or a place raised.
        """
        while take(await self.receive()):
            pass

    @abstractmethod
    async def close(self, reason: str = "") -> None:
        """Close the channel and tell the peer why (at most 120 bytes of UTF-8; longer words are cut).

        Messages sent before are delivered first, within 2 seconds. Idempotent; safe to cancel, then the channel is cut.
        """

    async def __aenter__(self) -> Channel:
        """Return the channel itself; it is closed on leaving."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _unheard(what: str, peer: str) -> None:
    """Stand where nobody counts what a listener refuses."""


class ListenOptions(NamedTuple):
    """Say whom a listener lets in, and bound what it accepts."""

    keys: Keyring | None = None
    """Tokens of which every peer must show one; None accepts all (memory transport, loopback tests)."""
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    """Largest message that is received; a larger one closes the channel before it is allocated."""
    send_buffer_bytes: int = 64 * 2**20
    """Unsent bytes at which a channel whose peer does not read is cut."""
    handshake_timeout_s: float = 5.0
    """Longest time from an accepted connection to an open channel, TLS included."""
    tls: ServerTls | None = None
    """Certificate for URLs that ask for TLS."""
    allowed_origins: frozenset[str] = frozenset()
    """Web origins whose pages may open channels."""
    max_header_bytes: int = 8192
    """Largest head of a request."""
    max_unauthenticated: int = 256
    """Connections that may be open without being channels."""
    max_connections: int = 8192
    """Channels that may be open."""
    control_frames_per_s: float = 20.0
    """PING and PONG frames that a peer may send in a second before it is cut."""
    received_bytes_per_s: float = float(2**30)
    """Payload that a channel may send in a second before it is read more slowly."""
    stall_timeout_s: float = 10.0
    """Time after which a channel is cut whose unsent bytes have not become fewer, nor (over gRPC) a write ended."""
    report: Callable[[str, str], None] = _unheard
    """Told of each peer that was refused, held or cut, once: one word for what, and its address.

    ``bad_token``, ``too_many_connections`` and ``slow_reader`` (a channel that was cut) are told by every transport. A
    message that is too large or broken is none of this: the handler hears of it.
    """

    def admit(self, shown: str | None) -> tuple[bool, Credential | None]:
        """Say whether a peer that showed the token `shown` may enter, and with whose credential."""
        if self.keys is None:
            return True, None
        credential = self.keys.admit(shown)
        return credential is not None, credential


class DialOptions(NamedTuple):
    """Say how to reach a listener."""

    token: Secret | None = None
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    connect_timeout_s: float = 5.0
    tls: ClientTls = ClientTls()
    """Whom to trust at URLs that ask for TLS."""


Handler = Callable[[Channel], Awaitable[None]]
"""What a listener runs for each channel; the channel is closed when it returns or raises."""


class Listener(ABC):
    """Accept channels at one address until closed."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the address with the real port, ready to be dialled."""

    @abstractmethod
    async def close(self, grace_s: float = 2.0) -> None:
        """Stop accepting, close every channel, wait for the handlers up to `grace_s`, then cancel them. Idempotent."""


class Transport(ABC):
    """Open channels over one kind of network. Stateless but for the memory transport."""

    schemes: tuple[str, ...]
    """URL schemes that name this transport, for example ``("ws", "wss")``."""
    secure_schemes: frozenset[str] = frozenset()
    """Those of them that mean TLS."""

    @abstractmethod
    async def listen(self, url: str, handler: Handler, options: ListenOptions) -> Listener:
        """Listen at `url` (port 0 takes a free one) and return once channels can be opened.

        An exception of a handler closes its channel and goes to the event loop's exception handler; it never ends the
        listener.

        Raises:
            ListenError: The port is in use, the address is not ours, or it asks for TLS and there is no certificate.
        """

    @abstractmethod
    async def dial(self, url: str, options: DialOptions) -> Channel:
        """Open a channel to `url`. Safe to cancel.

        Raises:
            UsageError: The URL can never be an address of this transport, so that there is no use in dialling again.
            ConnectError: Nobody answers, or not in time.
            AuthenticationError: The token was not accepted.
            CertificateError: The listener's certificate is not trusted, or it does not accept ours.
        """
