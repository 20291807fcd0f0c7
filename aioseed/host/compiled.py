"""The folder of compiled programs, and those in it that cannot be read.

A full disk, a power cut or a process that is killed while it writes leaves half an entry. JAX never replaces one: it
reads it in vain at every start, warns, and compiles anew for as long as the file is there. So it is removed.
"""

from __future__ import annotations

import logging
import os
import sys
import zlib
from pathlib import Path

log = logging.getLogger("aioseed.learner")

STAMP = "looked-through"
"""File whose time says up to when entries have been looked at."""
YOUNG_S = 60.0
"""Age under which an entry may be one that another process is about to write."""

_ENDING = "-cache"
_ZLIB = b"\x78"
_ZSTD = b"\x28\xb5\x2f\xfd"


def remove_damaged(folder: Path) -> list[str]:
    """Remove the entries of `folder` that cannot be read, of those written since the last look, and return their names.

    Blocks: not for the event loop. Several processes may look at once. What is in a form that is not known here stays.
    """
    removed = []
    try:
        for path in _unseen(folder):
            if _is_damaged(path.read_bytes()):
                path.unlink(missing_ok=True)
                removed.append(path.name)
    except OSError as error:  # training needs no cache
        log.warning("the compiled programs in %s cannot be looked through: %s", folder, error)
    if removed:
        log.info("%d compiled programs in %s could not be read and were removed", len(removed), folder)
    return removed


def _unseen(folder: Path) -> list[Path]:
    """Return the entries that nobody has looked at, without the youngest, and count them as looked at."""
    if not folder.is_dir():
        return []
    stamp = folder / STAMP
    seen_s = stamp.stat().st_mtime if stamp.exists() else 0.0
    stamp.touch()  # the clock of the file system
    until_s = stamp.stat().st_mtime - YOUNG_S
    with os.scandir(folder) as entries:
        times = [(Path(entry.path), entry.stat().st_mtime) for entry in entries if entry.name.endswith(_ENDING)]
    os.utime(stamp, (until_s, until_s))
    return [path for path, written_s in times if seen_s <= written_s < until_s]


def _is_damaged(data: bytes) -> bool:
    if not data.strip(b"\0"):
        return True  # what a power cut leaves
    if data.startswith(_ZLIB):
        try:
            zlib.decompress(data)
        except zlib.error:
            return True
    if sys.version_info >= (3, 14) and data.startswith(_ZSTD):
        from compression import zstd

        try:
            zstd.decompress(data)
        except (zstd.ZstdError, EOFError):
            return True
    return False
