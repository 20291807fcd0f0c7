"""Keep peers from taking the last file descriptors of a process.

Without one nothing can be opened: no checkpoint, no log, and JAX, which opens the system's random numbers to compute a
batch, ends the run. So listeners leave some alone, and programs that listen raise the limit that shells set, mostly
1,024.
"""

from __future__ import annotations

import socket
import sys

if sys.platform != "win32":
    import resource

KEPT = 16
"""Descriptors that are left for files when connections have taken the others."""
ENOUGH = 65_536
"""More than the connections that the defaults allow; some systems allow a thousand million."""


def raise_limit() -> None:
    """Let this process open as many files as the system allows it, at most 65,536.

    Meant for programs, which own their process.
    """
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return  # macOS allows less than it says; then what there was stays


def few_left() -> bool:
    """Say whether no more descriptors are free than are kept. Costs three system calls, none of which waits."""
    if sys.platform == "win32":
        return False
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return False
    try:
        with socket.socket() as probe:  # the system gives the lowest number that is free
            return probe.fileno() >= soft - KEPT
    except OSError:
        return True
