"""Let Python's collector of reference cycles rest until a run has begun.

Importing JAX and tracing networks makes half a million objects that live as long as the process. The collector looks
through all of them again and again meanwhile, and once more from time to time during the run, which holds up every
thread; in an actor it does so with the environments. Meant for programs, which own their process; a learner or an actor
that is embedded leaves the collector alone.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def at_rest() -> Iterator[None]:
    """Let the collector rest, until `wake` or the end of the body."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def wake() -> None:
    """Let the collector work on what is made from now on."""
    gc.freeze()
    gc.enable()


def sweep() -> None:
    """Free what a run that has ended left behind: its replay may be most of the machine's memory."""
    gc.unfreeze()
    gc.collect()
