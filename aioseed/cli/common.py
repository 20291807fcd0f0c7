"""What the commands share: how an error is told, how a run is interrupted, where the log goes."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TypeVar

from aioseed.errors import AioseedError, UsageError

INTERRUPTED = 130

Result = TypeVar("Result")


class Parser(argparse.ArgumentParser):
    """Parse a command's words; a wrong one raises UsageError, so that every command fails in the same form."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse says NoReturn; raising is that
        """Raise what is wrong with the words."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def guarded(name: str, command: Callable[[], int]) -> int:
    """Run `command`; tell an error of ours in one sentence on standard error and return its exit code."""
    try:
        return command()
    except AioseedError as error:
        sys.stderr.write(f"aioseed {name}: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; closing it again at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED


def run_until_interrupted(main: Callable[[asyncio.Event], Coroutine[object, object, Result]]) -> Result:
    """Run `main` in an event loop of its own, uvloop where there is one.

    The first Ctrl-C or SIGTERM sets the event that `main` gets, so that it ends in order; a second one ends the process
    at once with code 130. Local actors end by themselves when this process is gone.
    """

    async def body() -> Result:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def interrupt() -> None:
            if stop.is_set():
                sys.stderr.write("\naioseed: ended at once\n")
                sys.stderr.flush()
                os._exit(INTERRUPTED)
            sys.stderr.write("\naioseed: saving and ending; press Ctrl-C again to end at once\n")
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, interrupt)
            except NotImplementedError:
                # Windows: the handler runs between byte codes of the main thread, which the loop's timers keep awake.
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(interrupt))
        return await main(stop)

    if sys.platform != "win32":
        import uvloop

        return uvloop.run(body())
    return asyncio.run(body())


def log_to(path: Path, *, verbose: bool = False) -> logging.Handler:
    """Send the log to a file, and warnings of ours to standard error when `verbose`. Return the file's handler."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("aioseed")
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    if verbose:
        root.addHandler(logging.StreamHandler())
    root.propagate = False
    return handler


def print_json(values: dict[str, object]) -> None:
    """Print one JSON object as a line of its own; NaN, which JSON has not, becomes null."""
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    sys.stdout.write(json.dumps(clean) + "\n")
    sys.stdout.flush()


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Accept ``dotted.path=value`` words."""
    parser.add_argument(
        "overrides", nargs="*", metavar="dotted.path=value", help="change the configuration, e.g. actor.processes=4"
    )


def split_overrides(words: Sequence[str]) -> list[str]:
    """Return `words`, which must all be of the form ``dotted.path=value``.

    Raises:
        UsageError: One is not.
    """
    for word in words:
        if "=" not in word:
            raise UsageError(f'"{word}" is not of the form dotted.path=value')
    return list(words)
