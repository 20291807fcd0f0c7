"""Keep large messages from falling off a cliff in the C library's allocator.

glibc gives a large block back to the system as soon as it is free and takes it anew for the next message, and every
page of it costs a fault. From about 256 KiB a message on, that is most of what a WebSocket costs. Two thresholds keep
the blocks in the process: a block of up to `MMAP_THRESHOLD_BYTES` comes from the heap, and the heap shrinks only when
more than `TRIM_THRESHOLD_BYTES` at its end are free. The price is resident memory: what the largest burst of messages
took stays with the process.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

SWITCH = "AIOSEED_ALLOCATOR"
"""Environment variable; ``system`` leaves the allocator as it is. Local actors inherit it."""
MMAP_THRESHOLD_BYTES = 32 * 2**20
"""The largest value that every glibc for 64 bits accepts."""
TRIM_THRESHOLD_BYTES = 2**30

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_large_blocks() -> bool:
    """Set the thresholds for this process; return whether they are set.

    They are not where the C library is not glibc, where `SWITCH` says ``system``, or where the environment sets glibc's
    own variables. Meant for programs, which own their process; a library that is embedded leaves it alone.
    """
    if os.environ.get(SWITCH) == "system" or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    mallopt = _glibc_mallopt()
    if mallopt is None:
        return False
    # The second only if the first was taken: a lone trim threshold stops glibc from adapting its mmap threshold.
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) and mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES))


def give_back() -> bool:
    """Give memory that is free back to the system; return whether there was any to give.

    glibc keeps an amount for each thread that there ever was, which the threads of a later run do not find. Blocks for
    milliseconds: not for the event loop. Does nothing where the C library is not glibc.
    """
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))


def _glibc_mallopt() -> Callable[[int, int], int] | None:
    library = _glibc()
    if library is None:
        return None
    mallopt: Callable[[int, int], int] = library.mallopt
    return mallopt


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
