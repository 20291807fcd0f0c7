"""How many bytes of a connection can be read at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

if sys.platform != "win32":
    import fcntl
    import termios


def arrived_bytes_of(transport: asyncio.Transport) -> Callable[[], int] | None:
    """Return what tells how many bytes have arrived on a connection and were not read; None where nobody can know.

    With TLS what has arrived is not what will be read.
    """
    connection = transport.get_extra_info("socket")
    if sys.platform == "win32" or connection is None or transport.get_extra_info("ssl_object") is not None:
        return None
    count = bytearray(4)

    def arrived_bytes() -> int:
        fcntl.ioctl(connection.fileno(), termios.FIONREAD, count)
        return int.from_bytes(count, sys.byteorder)

    return arrived_bytes
