"""What a Ctrl-C does while a command has not begun its work: it ends the process, in silence."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

INTERRUPTED = 130


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """Let a Ctrl-C end the process with code 130 until somebody else takes the signal over.

    A KeyboardInterrupt in the middle of an import is a traceback, and one in a callback of the garbage collector, which
    JAX has, is lost: the command would go on.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
