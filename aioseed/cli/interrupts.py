"""What a Ctrl-C does while a command has not begun its work, and what signals do to processes that a command forks."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator

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


@contextlib.contextmanager
def children_spared(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Give what is forked meanwhile the handlers of `numbers` back that stand now; on leaving, this process too.

    With those of a command, processes that environments fork would ignore the SIGTERM by which multiprocessing ends its
    children, or tell it to the command's own event loop, and their parent would wait for them for ever.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    inside = True

    def restore() -> None:
        if inside:  # nobody can be taken off the list of those who are called after a fork
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=restore)
    try:
        yield
    finally:
        inside = False
        for number, handler in before.items():
            signal.signal(number, handler)
