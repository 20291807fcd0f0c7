"""The end of a process in which environments lived: it does not wait for ever for what they left behind."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

WAIT_S = 5.0
"""Longest wait in seconds for what ends by itself: a thread may still be writing the video of an episode."""


def leave(code: int) -> None:
    """See to it that this process, whose end has begun, ends with `code` in spite of what environments left behind.

    Threads that are no daemons, processes that multiprocessing started and what nobody took from its queues are waited
    for by an interpreter however long they take: a command would have said all that it has to say, and go on. The
    interpreter ends as always, for it alone can wake the idle threads of a pool, and is cut short where that takes too
    long. Where nothing was left the process may take its time, and so may what is aioseed's own: a checkpoint, say.
    """
    if _children() or any(_is_waited_for(thread) for thread in threading.enumerate()):
        threading.Thread(target=_cut_late, args=(code,), name="leave", daemon=True).start()


def cut(code: int) -> None:
    """End this process at once, and the children that multiprocessing started with it."""
    for child in _children():
        with contextlib.suppress(ValueError):  # closed meanwhile
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _cut_late(code: int) -> None:
    for thread in threading.enumerate():
        if _is_ours(thread) and not thread.daemon:
            thread.join()
    time.sleep(WAIT_S)
    cut(code)


def _is_waited_for(thread: threading.Thread) -> bool:
    # That which fills a queue of multiprocessing is a daemon, and waited for all the same.
    if thread is threading.main_thread() or _is_ours(thread):
        return False
    return not thread.daemon or thread.name == "QueueFeederThread"


def _is_ours(thread: threading.Thread) -> bool:
    return thread.name.startswith("aioseed-")


def _children() -> list[BaseProcess]:
    if "multiprocessing" not in sys.modules:
        return []
    from multiprocessing import active_children

    return active_children()
