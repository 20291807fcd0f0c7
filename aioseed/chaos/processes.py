"""The real processes of a trial: started, signalled, waited for, and none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path


class Process:
    """Run one command in a process group of its own; what it says goes into a file and is kept.

    Thread: any; `ends` blocks.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.lines: list[str] = []
        # Through a pipe, not into the file: a process whose disk is full shall still be able to say so.
        self._reader = threading.Thread(target=self._read, args=(log,), name="aioseed-chaos-words", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Return True until the process has ended."""
        return self._child.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, as far as it is there."""
        if self.alive:
            try:
                os.killpg(self._child.pid, number)
            except ProcessLookupError:
                return

    def ends(self, timeout_s: float) -> int | None:
        """Wait for the end and return the exit code, None if it does not come within `timeout_s`."""
        try:
            code = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(timeout_s)
        return code

    def end(self, patience_s: float = 10.0) -> None:
        """End the process: in order if it can, by force if not."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self.ends(patience_s) is None:
            self.signal(signal.SIGKILL)
            self.ends(patience_s)

    def _read(self, log: Path) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as stream, log.open("a", encoding="utf-8") as file:
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                self.lines.append(text)
                file.write(f"{time.strftime('%H:%M:%S')} {self.pid} {text}\n")
                file.flush()
