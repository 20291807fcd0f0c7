"""The file of a run's log, which neither a flood of lines nor a disk can make trouble with."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from aioseed.telemetry.files import NamedFile
from aioseed.telemetry.throttle import Throttle

PRINTED = "aioseed.actors"
"""Logger of what local actors print. It is whole: the last may tell where an environment brought its process down."""


class LogFile(logging.Handler):
    """Write a log in a thread of its own, so that a file system that hangs holds up no event loop. Thread: any.

    A full disk costs lines, not the run, and that is shown once for each time. Of each kind of line a thousand may
    come at once, and one a second in the long run; how many are left out is told. Fifty actors that a supervisor starts
    again each second would else write half a gigabyte a day.
    """

    LINES_AT_ONCE = 1000
    EVERY_S = 1.0
    WAITING = 10_000
    """Lines that may wait for the disk; further ones are left out."""
    CLOSE_S = 5.0
    """Longest wait for the disk at the end."""

    def __init__(self, path: Path, show: Callable[[str], None]) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._file = NamedFile(path)
        self._show = show
        self._failing = False
        self._throttle = Throttle(self.EVERY_S, self.LINES_AT_ONCE)
        self._waiting: queue.Queue[bytes | None] = queue.Queue(self.WAITING)
        self._lost = 0
        try:
            self._file.open()  # at once, so that it goes where its directory is moved
        except OSError as error:
            self._tell(error)
        self._thread = threading.Thread(target=self._write_all, name="aioseed-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record to the thread that writes."""
        kind = f"{record.name} {record.msg}"
        count = 1 if record.name == PRINTED else self._throttle.ask(kind, time.monotonic())
        if count is None:
            return
        try:
            notes = [_note(record, "%d lines like the next are left out", count - 1)] if count > 1 else []
            if self._lost:
                notes.append(_note(record, "%d lines are left out: the disk was too slow", self._lost))
            lines = "".join(f"{self.format(each)}\n" for each in (*notes, record))
            self._waiting.put_nowait(lines.encode("utf-8", "backslashreplace"))
            self._lost = 0
        except queue.Full:
            self._lost += count
        except Exception:  # a record whose words do not fit its arguments
            self.handleError(record)

    def close(self) -> None:
        """Wait until all is written, but not for a disk that hangs. Idempotent."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=self.CLOSE_S)
            self._thread.join(self.CLOSE_S)
        super().close()

    def _write_all(self) -> None:
        while (lines := self._waiting.get()) is not None:
            try:
                self._file.append(lines)
                self._failing = False
            except OSError as error:
                self._tell(error)
        self._file.close()

    def _tell(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._show(f"the log {self._file.path} cannot be written: {error.strerror}")


def _note(record: logging.LogRecord, words: str, count: int) -> logging.LogRecord:
    """Return a line that stands before `record` for those that are not written."""
    told = {"name": record.name, "levelname": record.levelname, "msg": words, "args": (count,)}
    return logging.makeLogRecord(told)
