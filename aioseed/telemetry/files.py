"""Append whole pieces to files, or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
from io import FileIO


def append_whole(file: FileIO, data: bytes) -> None:
    """Append `data` to an unbuffered file; if that fails half-way, take back what was written.

    Raises:
        OSError: It could not be written: the disk is full, say.
    """
    before = file.seek(0, os.SEEK_END)
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(before)
        raise


def ends_with_a_line(file: FileIO) -> bool:
    """Return True if a readable file is empty or its last line is whole: a machine that lost power may have cut it."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
