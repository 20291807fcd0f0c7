"""The signals that end a command: which they are, what a Ctrl-C does before it begins, and what its children see."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
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


def ending_signals() -> list[signal.Signals]:
    """Return the signals beside a Ctrl-C that end a command in order, as they stand now.

    SIGHUP, which comes when a terminal is closed or its line breaks, is one unless somebody ignores it: `nohup` does.
    """
    names = ["SIGTERM", "SIGBREAK", "SIGHUP"]
    numbers = [signal.Signals[name] for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def leave_lost_terminal() -> None:
    """Let what is printed go nowhere if the terminal that it went to is gone: each line would be an error."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


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
