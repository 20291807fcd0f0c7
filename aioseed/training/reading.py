"""Read the files of a checkpoint without trusting them: no links, no devices, sizes before contents."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from aioseed.training import manifest as manifests
from aioseed.training.manifest import FileEntry, Manifest, Unsound

MANIFEST_LIMIT_BYTES = 64 * 2**20
"""About 400,000 segments of replay."""


def read_manifest(directory: Path) -> Manifest:
    """Return the manifest of the checkpoint in `directory`.

    Raises:
        Unsound: The directory is a link, or the manifest is not what was written.
        OSError: It cannot be read.
    """
    if directory.is_symlink():
        raise Unsound("it is a symbolic link")
    with _regular(directory / manifests.NAME) as (file, size):
        if size > MANIFEST_LIMIT_BYTES:
            raise Unsound(f"{manifests.NAME} has {size} bytes")
        return manifests.decode(file.read(MANIFEST_LIMIT_BYTES + 1))


def read_file(path: Path, entry: FileEntry, limit_bytes: int) -> bytes:
    """Return the contents of the file at `path`, which are those that `entry` describes.

    Raises:
        Unsound: They are others, or more than `limit_bytes`; nothing was read for the sake of its size.
        OSError: It cannot be read.
    """
    with _regular(path) as (file, size):
        if size != entry.size:
            raise Unsound(f"{path.name} is not what was written: it has {size} bytes instead of {entry.size}")
        if size > limit_bytes:
            raise Unsound(f"{path.name} has {size} bytes, more than the {limit_bytes} that are read")
        data = file.read(size)
    if manifests.entry(data) != entry:
        raise Unsound(f"{path.name} is not what was written")
    return data


def check_file(path: Path, entry: FileEntry) -> None:
    """Compare the file at `path` with its entry, in pieces instead of in memory.

    Raises:
        Unsound: It is not what was written.
        OSError: It cannot be read.
    """
    with _regular(path) as (file, size):
        if size != entry.size or hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
            raise Unsound(f"{path.name} is not what was written")


@contextmanager
def _regular(path: Path) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file and yield it with its size; a link would lead out of the checkpoint, a pipe would block."""
    if path.is_symlink():  # for systems without O_NOFOLLOW
        raise Unsound(f"{path.name} is a symbolic link")
    flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, os.O_RDONLY | flags)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unsound(f"{path.name} is no file")
        yield file, status.st_size
