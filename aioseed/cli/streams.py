"""Standard input and the two outputs of a command, whatever its caller made of them."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from aioseed.cli.interrupts import INTERRUPTED


def make_usable() -> None:
    """Open what the caller closed, and let no letter that an output cannot show end the command.

    The next file to be opened takes the number of a closed stream: a socket would be printed into, and libuv ends the
    process that closes one of these numbers.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))
        elif number and isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def delivered(command: Callable[[], int]) -> int:
    """Run `command` and return its exit code once all that it printed has gone out.

    Where nobody reads it any more the code is 130, in silence; where it cannot be written 1, with a sentence.
    """
    try:
        try:
            code = command()
        except SystemExit as ended:  # argparse, after --help
            code = ended.code if isinstance(ended.code, int) else 0
        sys.stdout.flush()
    except BrokenPipeError:
        _discard()
        return INTERRUPTED
    except OSError as error:
        # Every file with a name has an error of its own elsewhere: this is what was printed.
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _discard()
        sys.stderr.write(f"aioseed: the output cannot be written: {error.strerror}\n")
        return 1
    return code


@contextlib.contextmanager
def answer_alone() -> Iterator[None]:
    """Let what environments print in here go to standard error: a command's answer stands alone on standard output.

    Python's prints and those of C libraries, some of which come at the very end of the process: what has the number 1
    stays standard error, and `sys.stdout` becomes a file of its own.
    """
    answer = sys.stdout
    answer.flush()
    if _is_numbered(answer, 1) and _is_numbered(sys.stderr, 2):
        # It stays open to the end, of which Python would warn where an environment asked for all warnings.
        answer = open(os.dup(1), "w", encoding=answer.encoding, errors=answer.errors, closefd=False)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout = answer


def _is_numbered(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):  # a stand-in for one, or closed
        return False


def _discard() -> None:
    """Let what is left in the buffers go nowhere: flushing it at exit must not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())
