"""Sinks: where the figures of a run are written. A sink takes flat names and numbers, whatever they mean."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from aioseed.errors import RunDirectoryError
from aioseed.telemetry.files import NamedFile


class MetricsSink(Protocol):
    """Take figures. Thread: one caller at a time."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` as of environment step `step`."""

    def close(self) -> None:
        """Write out what is buffered and let the file go. Idempotent."""


class JsonLinesSink:
    """Write one JSON object a line: ``{"step": ..., "time": seconds since 1970, "name": value, ...}``.

    A resumed run appends to the file of the earlier one. Every line is handed to the operating system at once, so that
    a killed process loses none; one that a full disk cuts short is taken back. Values that are not finite, which JSON
    cannot carry, become null.

    Args:
        path: The file.
        clock: Gives seconds since 1970.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = NamedFile(path)
        try:
            self._file.open()
        except OSError as error:
            raise self._failure(error) from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line.

        Raises:
            RunDirectoryError: The file cannot be written; the next write tries anew.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = (json.dumps({"step": step, "time": round(self._clock(), 3), **finite}) + "\n").encode()
        try:
            self._file.append(line)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()

    def _failure(self, error: OSError) -> RunDirectoryError:
        path = self._file.path
        return RunDirectoryError(f"cannot write metrics to {path}: {error.strerror}", path=str(path))
