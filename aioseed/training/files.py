"""The operations on files that durability rests on, one method each, so that tests can fail or stop at any of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Files:
    """Write so that what was finished survives a crash of the machine: contents first, then names."""

    def make_directory(self, path: Path) -> None:
        """Create a directory that only its owner can enter."""
        path.mkdir(mode=0o700)

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file and wait until its contents are on the disk.

        Raises:
            OSError: The file exists, or the disk is full or failing; the file may then be there in part.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            self.sync(file.fileno())

    def sync(self, descriptor: int) -> None:
        """Wait until what was written to `descriptor` is on the disk."""
        os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Wait until the names in a directory are on the disk."""
        if os.name == "nt":
            return  # Windows has no such call and orders these changes itself
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or directory a new name in one step, taking the place of a file that has it."""
        os.replace(old, new)

    def replace(self, path: Path, data: bytes) -> None:
        """Write a file that is there whole or as it was before, also after a crash of the machine.

        Raises:
            OSError: It could not be written.
        """
        unfinished = path.with_name(path.name + ".tmp")
        unfinished.unlink(missing_ok=True)
        self.write(unfinished, data)
        self.rename(unfinished, path)
        self.sync_directory(path.parent)

    def link(self, old: Path, new: Path) -> None:
        """Let a file have a second name; where the file system knows no such thing, copy it."""
        try:
            os.link(old, new)
        except OSError:
            self.write(new, old.read_bytes())

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all in it."""
        shutil.rmtree(path)
