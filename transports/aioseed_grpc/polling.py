"""What gRPC is told while it is imported: to write nothing, whom to ask for addresses, and which thread is to read.

Since grpcio 1.80 threads of an event engine wait for sockets and read them, and wake the thread that waits for
completions, which wakes Python's. Where processors are few, the waking costs more than is won: over loopback a message
takes half as much time again. The way it was before is still there, behind two of gRPC's experiments.

They are read once, when gRPC is imported. So they are set for that moment alone and for this process alone: nothing
changes where somebody else imported gRPC first, and no child process inherits them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version

SWITCH = "GRPC_EXPERIMENTS"
"""gRPC's own variable; where it is set, even to nothing, gRPC is left as it is, and so it is anywhere but on Linux."""
VERBOSITY = "GRPC_VERBOSITY"
"""gRPC's own variable for what it writes to standard error."""
RESOLVER = "GRPC_DNS_RESOLVER"
"""gRPC's own variable for who finds the addresses of a name."""
EXPERIMENTS = "-event_engine_listener,-event_engine_client"
SINCE, BEFORE = (1, 80), (1, 86)
"""The releases that have an engine and these experiments; a later one is looked at before it is put in here."""

KEEPALIVE_S = 2.0
"""How long a connection may bring nothing before a PING is written to it.

A thread that reads by itself misses the reset of a connection when bytes come at the same moment: it reads those, waits
for the next word of the kernel, and had it already. Only a write tells it then.
"""
KEEPALIVE_TIMEOUT_S = 120.0
KEEPALIVE = (
    ("grpc.keepalive_time_ms", round(KEEPALIVE_S * 1000)),
    # Who does not answer the PING may be busy or frozen. How long to wait for those is not for a transport to say: this
    # is longer than a learner waits by itself. It is also when the kernel gives up what nobody acknowledges.
    ("grpc.keepalive_timeout_ms", round(KEEPALIVE_TIMEOUT_S * 1000)),
)
"""Channel arguments for both ends."""


def one_thread_reads() -> AbstractContextManager[None]:
    """Set the experiments for what the body imports; must be entered before gRPC is imported."""
    wanted = sys.platform == "linux" and SINCE <= _release() < BEFORE
    return _told(SWITCH, EXPERIMENTS) if wanted else nullcontext()


def nothing_is_written() -> AbstractContextManager[None]:
    """Keep gRPC from telling every failed handshake and every farewell of a server on standard error.

    They are no news: whoever dialled is told in a sentence of ours. Nor its errors: any stranger could fill a learner's
    log with lines about bytes that are no TLS. Must be entered before gRPC is imported; what the user has set stays.
    """
    return _told(VERBOSITY, "NONE")


def the_system_resolves() -> AbstractContextManager[None]:
    """Let names mean to gRPC what they mean to everything else on this machine, a WebSocket included.

    By itself it asks name servers alone: it knows no name that the system finds elsewhere, as those of mDNS and of the
    machine itself, and waits for servers that do not answer while the name stands in a file. Must be entered before
    gRPC is imported; what the user has set stays.
    """
    return _told(RESOLVER, "native")


@contextmanager
def _told(variable: str, value: str) -> Iterator[None]:
    """Set a variable for the body, unless it is set."""
    if variable in os.environ:
        yield
        return
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]


def _release() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version("grpcio"))
    return (int(found[1]), int(found[2])) if found else (0, 0)
