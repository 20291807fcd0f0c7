"""The TensorBoard sink; the only module that imports tensorboardX, and only when a sink is made."""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path

from aioseed.errors import PluginError, RunDirectoryError
from aioseed.telemetry.files import append_whole


class TensorBoardSink:
    """Write scalars as TensorBoard events into a directory.

    Not by tensorboardX's `SummaryWriter`: its thread ends at the first failed write, after which calls to it never
    return. Here whoever writes is told, and the next write tries anew.

    Args:
        directory: Made where it is missing.
        clock: Seconds since the epoch, which events carry.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        try:
            from tensorboardX import record_writer
        except ImportError as error:
            raise PluginError(
                'TensorBoard events need tensorboardX: pip install "aioseed[learner]"',
                name="tensorboard",
                extra="learner",
            ) from error
        self._checksum: Callable[[bytes], int] = record_writer.masked_crc32c
        self._directory = directory
        self._clock = clock
        self._file: FileIO | None = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record each finite value under its name as of environment step `step`; others are left out.

        Raises:
            RunDirectoryError: The file cannot be written; the next write tries anew.
        """
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        now_s = self._clock()
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in finite.items()]
        event = Event(wall_time=now_s, step=step, summary=Summary(value=scalars))
        records = self._record(event.SerializeToString())
        try:
            if self._file is None:
                self._file = self._new_file(now_s)
            if self._file.seek(0, os.SEEK_END) == 0:
                version = Event(wall_time=now_s, file_version="brain.Event:2")
                # TensorBoard then drops what an earlier process wrote from that step on: a resumed run went back to
                # `step`, and figures of `step` itself, which the checkpoint was taken with, stay.
                start = Event(wall_time=now_s, step=step + 1, session_log=SessionLog(status=SessionLog.START))
                records = b"".join(self._record(begun.SerializeToString()) for begun in (version, start)) + records
            append_whole(self._file, records)
        except OSError as error:
            message = f"cannot write TensorBoard events to {self._directory}: {error.strerror}"
            raise RunDirectoryError(message, path=str(self._directory)) from error

    def close(self) -> None:
        """Close the event file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _new_file(self, now_s: float) -> FileIO:
        """Begin a file. TensorBoard reads them in the order of their names, whatever the clock was set back to."""
        self._directory.mkdir(parents=True, exist_ok=True)
        moments = (path.name.split(".")[3] for path in self._directory.glob("events.out.tfevents.*"))
        later_s = 1 + max((int(moment) for moment in moments if moment.isdecimal()), default=-1)
        name = f"events.out.tfevents.{max(int(now_s), later_s):010d}.{socket.gethostname()}.{os.getpid()}"
        return (self._directory / name).open("xb", buffering=0)

    def _record(self, data: bytes) -> bytes:
        """Return `data` as a TFRecord: its length, the length's checksum, itself, its own checksum."""
        length = struct.pack("<Q", len(data))
        return b"".join(
            (length, struct.pack("<I", self._checksum(length)), data, struct.pack("<I", self._checksum(data)))
        )
