"""Append whole pieces to files, or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
from io import FileIO
from pathlib import Path

_BY_FOLDER = {os.open, os.stat} <= os.supports_dir_fd


class NamedFile:
    """Append to the file of a name in a folder, wherever that folder is moved.

    A file that was removed, or moved as what rotates logs does, is begun anew: written on, it would have no name, and
    its space would not be free before the process ends. (Windows moves no open file, and cannot look by folder.)

    Thread: one at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder: int | None = None
        self._file: FileIO | None = None

    def open(self) -> None:
        """Open the file if it is not; a last line that a power cut left in part is ended.

        Raises:
            OSError: It cannot be opened.
        """
        if _BY_FOLDER and self._folder is None:
            self._folder = os.open(self.path.parent, os.O_RDONLY)
        if self._file is None:
            self._file = open(self.path, "a+b", buffering=0, opener=self._opened)
            try:
                if not _ends_with_a_line(self._file):
                    append_whole(self._file, b"\n")
            except OSError:
                self._let_go()  # or the next line, once there is room, would be written behind that part
                raise

    def append(self, data: bytes) -> None:
        """Append `data` whole, or nothing.

        Raises:
            OSError: It could not be written, and the next is tried anew: the disk is full, say.
        """
        if self._file is not None and not self._has_its_name(self._file):
            self._let_go()
        self.open()
        assert self._file is not None
        append_whole(self._file, data)

    def close(self) -> None:
        """Let the file go. Idempotent."""
        self._let_go()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a network's file system may say so late that it took not all
                self._file.close()
            self._file = None

    def _opened(self, path: str, flags: int) -> int:
        if self._folder is None:
            return os.open(path, flags, 0o666)
        return os.open(self.path.name, flags, 0o666, dir_fd=self._folder)

    def _has_its_name(self, file: FileIO) -> bool:
        if self._folder is None:
            return True
        try:
            return os.path.samestat(os.stat(self.path.name, dir_fd=self._folder), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False


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


def _ends_with_a_line(file: FileIO) -> bool:
    """Return True if a readable file is empty or its last line is whole."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
