"""Standard input of a child, which tells that its parent lives: it is not for environments to read."""

from __future__ import annotations

import os


def take_stdin() -> int:
    """Return a number of its own for standard input, and leave an empty one to environments.

    One that asks a question, whether a licence is accepted for instance, hears at once that nobody answers: from the
    lifeline, on which nothing ever comes, it would wait for ever.
    """
    try:
        lifeline = os.dup(0)
    except OSError:  # closed already
        return 0
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    return lifeline
