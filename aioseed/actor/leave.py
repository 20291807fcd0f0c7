"""The end of a process in which environments lived: it does not wait for ever for what they left behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

WAIT_S = 5.0
"""Longest wait in seconds for threads that end by themselves: one may still be writing the video of an episode."""


def leave(code: int) -> None:
    """End this process with `code` where threads or children of environments would hold up the interpreter's own end.

    Threads that are no daemons, and processes that multiprocessing started, are waited for by an interpreter however
    long they take: a command would have said all that it has to say, and go on. Where there is none it returns, and the
    process can end as always.
    """
    threads = [thread for thread in threading.enumerate() if _is_waited_for(thread)]
    children = _children()
    if not threads and not children:
        return
    end = time.monotonic() + WAIT_S
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    for child in children:
        child.join(max(0.0, end - time.monotonic()))
    for child in _children():
        child.kill()
    if any(thread.is_alive() for thread in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_waited_for(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.main_thread()


def _children() -> list[BaseProcess]:
    if "multiprocessing" not in sys.modules:
        return []
    from multiprocessing import active_children

    return active_children()
