"""Which channels of this process share a connection: those to one address, until one of them finds it dead.

gRPC keeps a connection for as long as a channel with the same arguments is open. A connection that a router forgot is
reset by nobody, so whoever dials anew would wait on it, and keep it for the others that do the same. So each connection
has a number, which is one of the arguments, and whoever gets no answer lets those who dial after it take the next.
"""

from __future__ import annotations

NUMBER_KEY = "aioseed.connection"
"""The channel argument; gRPC does not know it, but compares it."""

_numbers: dict[str, int] = {}
"""By address: the connection that is dialled now; 0 where none was left yet."""


def connection_number(url: str) -> int:
    """Return the number of the connection that channels to `url` share now."""
    return _numbers.get(url, 0)


def leave_connection(url: str, number: int) -> None:
    """Let nobody share connection `number` who dials from now on. Idempotent."""
    if connection_number(url) == number:
        _numbers[url] = number + 1
