"""Read what has arrived on a connection straight to several places."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

if sys.platform != "win32":
    import fcntl
    import termios

ReadArrived: TypeAlias = Callable[[Sequence[memoryview], int], int]
"""Fills pieces of memory of so many bytes in all, if as many have arrived, and returns how many bytes were read."""


def read_arrived_of(transport: asyncio.Transport) -> ReadArrived | None:
    """Return what reads from a connection within its protocol's `buffer_updated`; None where only its event loop can.

    With TLS what has arrived is not what is to be read, and a proactor may be reading already.
    """
    connection = transport.get_extra_info("socket")
    if sys.platform == "win32" or connection is None or transport.get_extra_info("ssl_object") is not None:
        return None
    count = bytearray(4)

    def read_arrived(pieces: Sequence[memoryview], size_bytes: int) -> int:
        descriptor = connection.fileno()
        try:
            fcntl.ioctl(descriptor, termios.FIONREAD, count)
            if int.from_bytes(count, sys.byteorder) < size_bytes:
                return 0
            return os.readv(descriptor, pieces)
        except OSError:
            return 0  # the loop meets it, or the end of the connection, when it reads on

    return read_arrived
