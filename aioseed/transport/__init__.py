"""The road between actors and the learner: whole messages over channels, whatever the network is.

`channel` is the seam. `memory` is the network inside one process. The other modules are for whoever writes a transport:
`address` reads URLs, `keyring` and `token` compare secrets, `server_tls` and `client_tls` hold certificates, `guard`
bounds what a channel may do, `queue` holds messages, `handlers` runs one handler a channel.
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
from aioseed.transport.client_tls import ClientTls
from aioseed.transport.keyring import Credential, Keyring
from aioseed.transport.memory import MemoryTransport
from aioseed.transport.server_tls import ServerTls
from aioseed.transport.token import Secret

__all__ = [
    "DEFAULT_MAX_MESSAGE_BYTES",
    "Channel",
    "ClientTls",
    "Credential",
    "DialOptions",
    "Handler",
    "Keyring",
    "ListenOptions",
    "Listener",
    "MemoryTransport",
    "Secret",
    "ServerTls",
    "Transport",
]
