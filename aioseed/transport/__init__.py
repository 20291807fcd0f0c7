"""The road between actors and the learner: whole messages over channels, whatever the network is.

`channel` is the seam. `memory` is the network inside one process. The other modules are for whoever writes a transport:
`address` reads URLs, `token` compares secrets, `queue` holds messages, `handlers` runs one handler a channel.
"""

from __future__ import annotations

from aioseed.transport.channel import (
    DEFAULT_MAX_MESSAGE_BYTES,
    Channel,
    DialOptions,
    Handler,
    Listener,
    ListenOptions,
    Transport,
)
from aioseed.transport.memory import MemoryTransport

__all__ = [
    "DEFAULT_MAX_MESSAGE_BYTES",
    "Channel",
    "DialOptions",
    "Handler",
    "ListenOptions",
    "Listener",
    "MemoryTransport",
    "Transport",
]
