"""What the commands share: how an error is told, how a run is interrupted, where the log goes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import logging.handlers
import math
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from aioseed.cli.interrupts import INTERRUPTED, children_spared, ending_signals, leave_lost_terminal
from aioseed.cli.logfile import LogFile
from aioseed.errors import AioseedError, UsageError

Result = TypeVar("Result")


class Parser(argparse.ArgumentParser):
    """Parse a command's words; a wrong one raises UsageError, so that every command fails in the same form."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse says NoReturn; raising is that
        """Raise what is wrong with the words."""
        # Python names the optional overrides among what is missing.
        raise UsageError(f"{message.replace(', dotted.path=value', '')} (see {self.prog} --help)")


def guarded(name: str, command: Callable[[], int]) -> int:
    """Run `command`; tell an error of ours in one sentence on standard error and return its exit code."""
    try:
        return command()
    except AioseedError as error:
        return _told(name, error)
    except FileNotFoundError:
        if _is_somewhere():
            raise
        return _told(name, UsageError(_NOWHERE))
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        return _told(name, _behind(error))
    except KeyboardInterrupt:
        return INTERRUPTED


def _told(name: str, error: AioseedError) -> int:
    lost = isinstance(error.__cause__, FileNotFoundError) and not _is_somewhere()
    sys.stderr.write(f"aioseed {name}: {error}{f'; {_NOWHERE}' if lost else ''}\n")
    return error.exit_code


_NOWHERE = "the current directory itself was removed: go to one that is there"


def _is_somewhere() -> bool:
    """Say whether the current directory is there: it may have been removed, or moved to where it has no path."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _behind(error: BaseException) -> AioseedError:
    """Return the error of ours that came before: closing a loop wants a thread too, and fails on top of it."""
    before = error.__context__
    while before is not None:
        if isinstance(before, AioseedError):
            return before
        before = before.__context__
    return AioseedError("no thread can be started: this user, container or job may have no more of them, or no memory")


_NO_THREAD = "can't start new thread"
"""What Python says in a `RuntimeError` of no kind of its own."""
SAME_S = 0.5
"""Within this time a second signal that is no Ctrl-C is the first one again.

`timeout` sends its SIGTERM to the process and to its group, and a shell the SIGHUP that the kernel sent as well.
"""


def run_until_interrupted(
    main: Callable[[asyncio.Event], Coroutine[object, object, Result]], say: Callable[[str], None]
) -> Result:
    """Run `main` in an event loop of its own.

    The first Ctrl-C or signal of `ending_signals` sets the event that `main` gets, so that it ends in order. A second
    one ends the process at once with code 130, but for a signal other than Ctrl-C within half a second. Local actors
    end by themselves when this process is gone.

    Args:
        say: Told what an interrupt does, in one sentence.
    """

    ending = ending_signals()

    async def body() -> Result:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        first_s = 0.0

        def interrupt(number: signal.Signals) -> None:
            nonlocal first_s
            if stop.is_set():
                if number is not signal.SIGINT and loop.time() - first_s < SAME_S:
                    return
                sys.stderr.write("aioseed: ended at once\n")
                sys.stderr.flush()
                os._exit(INTERRUPTED)
            first_s = loop.time()
            stop.set()
            leave_lost_terminal()
            say("aioseed: ending in order; press Ctrl-C again to end at once")

        for number in (signal.SIGINT, *ending):
            try:
                loop.add_signal_handler(number, interrupt, number)
            except NotImplementedError:
                # Windows: the handler runs between byte codes of the main thread, which the loop's timers keep awake.
                signal.signal(number, lambda got, _: loop.call_soon_threadsafe(interrupt, signal.Signals(got)))
        return await main(stop)

    with children_spared(ending), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(body())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the fastest event loop here: uvloop's, or None for that of Python."""
    if sys.platform == "win32":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class RunLog(logging.Handler):
    """Write the log of a run into its directory, once there is one, and show what a user should know at once.

    Shown are warnings of serving and training, of each kind a few at a time, since a flood of refused actors would push
    everything else off the screen; the file has all. They are held back until `begin`: a command that cannot begin
    says why in one sentence.
    """

    SHOWN_AT_A_TIME = 5
    A_TIME_S = 30.0

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show
        self._held: list[str] | None = []
        self._shown: dict[str, list[float]] = {}
        self._root = logging.getLogger("aioseed")
        self._waiting = logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._file: LogFile | None = None

    def __enter__(self) -> RunLog:
        self._root.setLevel(logging.INFO)
        self._root.propagate = False
        self._root.addHandler(self._waiting)
        self._root.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handler in (self, self._waiting, self._file):
            if handler is not None:
                self._root.removeHandler(handler)
                handler.close()
        self._root.propagate = True

    def begin(self) -> None:
        """Show what was held back, and from now on everything at once."""
        held, self._held = self._held or [], None
        for line in held:
            self._tell(line)

    def write_to(self, path: Path) -> None:
        """Write what was logged so far, and all that follows, to the file at `path`."""
        self._file = LogFile(path, self._tell)
        self._waiting.setTarget(self._file)
        self._waiting.flush()
        self._root.removeHandler(self._waiting)
        self._root.addHandler(self._file)

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning of serving or training."""
        if not record.name.startswith(("aioseed.serving", "aioseed.training")):
            return
        # The clock of a record may have been set back: what seems to be later than now does not count.
        times = [at_s for at_s in self._shown.get(record.msg, []) if 0 <= record.created - at_s < self.A_TIME_S]
        if len(times) < self.SHOWN_AT_A_TIME:
            times.append(record.created)
            if self._held is None:
                self._tell(record.getMessage())
            else:
                self._held.append(record.getMessage())
        self._shown[record.msg] = times

    def _tell(self, line: str) -> None:
        """Show a line if it can be: nobody reads standard error any more, say, and whoever logs cannot help that."""
        with contextlib.suppress(OSError):
            self._show(line)


def print_json(values: dict[str, object]) -> None:
    """Print one JSON object as a line of its own; NaN, which JSON has not, becomes null."""
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    sys.stdout.write(json.dumps(clean) + "\n")


def command_line(*words: object) -> str:
    """Return an ``aioseed`` command to copy, which begins as this one did where ``aioseed`` alone is not found."""
    here, found = Path(sys.argv[0]), shutil.which("aioseed")
    if found is not None and here.exists() and Path(found).samefile(here):
        program = "aioseed"
    elif here.name.startswith("aioseed"):
        program = shlex.quote(str(here))
    else:
        program = f"{shlex.quote(sys.executable)} -m aioseed"
    return " ".join([program, *(shlex.quote(str(word)) for word in words)])


def given_flags(values: Mapping[str, object]) -> list[object]:
    """Return the words of the flags that were given, to say them again; True stands for one without a value."""
    said: list[object] = []
    for flag, value in values.items():
        if value is True:
            said.append(flag)
        elif value is not None and value is not False:
            said += [flag, value]
    return said


def reachable(url: str) -> str:
    """Return an address to dial: this machine's name where a learner listens on all of its addresses."""
    parts = urlsplit(url)
    if parts.hostname in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        return f"{parts.scheme}://{socket.gethostname()}:{parts.port}"
    return url


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Accept ``dotted.path=value`` words."""
    parser.add_argument(
        "overrides", nargs="*", metavar="dotted.path=value", help="change the configuration, e.g. actor.processes=4"
    )


def joining_overrides(words: Sequence[str]) -> list[str]:
    """Return those of `words` that an actor must be given as well: they change what it steps."""
    return [word for word in words if re.match(r"(environment|actor)[.=]", word)]


def split_overrides(words: Sequence[str]) -> list[str]:
    """Return `words`, which must all be of the form ``dotted.path=value``.

    Raises:
        UsageError: One is not.
    """
    for word in words:
        if "=" not in word:
            raise UsageError(f'"{word}" is not of the form dotted.path=value')
    return list(words)
