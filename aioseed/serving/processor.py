"""Keep one thread on the processor on which another one runs.

The event loop and the inference thread take turns at the interpreter's lock, message by message. On two processors
each turn wakes the other one up and fetches what it works on from the other's cache; on one processor it is a switch.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

_NOWHERE = -1


class Follower:
    """Let one thread follow another over the processors. Does nothing where the system cannot (only Linux can).

    The leading thread stays free: the scheduler moves it as it likes, and the follower comes after at its next turn.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._processor = _processor_of_this_thread() if enabled else None
        self._leader_at = _NOWHERE
        self._at = _NOWHERE

    def lead(self) -> None:
        """Remember where the calling thread runs. Thread: the leading one; costs about a microsecond."""
        if self._processor is not None:
            self._leader_at = self._processor()

    def follow(self) -> None:
        """Move the calling thread to where the leading one was last. Thread: the following one."""
        target = self._leader_at
        if target == self._at or target == _NOWHERE:
            return
        self._at = target
        try:
            os.sched_setaffinity(0, {target})  # of the calling thread alone
        except OSError:  # the processor was taken from this process meanwhile: go on wherever it may be
            self._processor, self._leader_at = None, _NOWHERE


def _processor_of_this_thread() -> Callable[[], int] | None:
    """Return what tells the number of the calling thread's processor, None where nothing does."""
    if sys.platform != "linux":
        return None
    # Without releasing the interpreter's lock, which would cost more than the call.
    function = getattr(ctypes.PyDLL(None), "sched_getcpu", None)
    if function is None:
        return None
    function.argtypes, function.restype = (), ctypes.c_int
    found: Callable[[], int] = function
    return found
