"""A disk that forgets: the file operations of a real save, recorded, and what a crash may leave of them.

The model is what POSIX promises and no more. The contents of a file last from its fsync on; a name lasts from the fsync
of its directory on. Until then each operation may be lost by itself, in any combination, and of contents any part may
be there, or zeros in their place.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from aioseed.training.files import Files

CHUNKS = 3
"""Pieces in which the contents of a file are written, so that crashes fall in between."""


class Operation(NamedTuple):
    """One change, or one promise that changes last. Paths are below the recorded folder."""

    name: Literal["mkdir", "create", "write", "rename", "link", "unlink", "rmdir", "sync", "sync_directory"]
    path: Path
    other: Path = Path()  # the new name of rename and link
    data: bytes = b""

    @property
    def directory(self) -> Path:
        """The directory whose fsync makes a change of names last."""
        return (self.other if self.name in ("rename", "link") else self.path).parent


class Recorder(Files):
    """Write files as always, and keep what was done below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._syncing = Operation("sync", Path())
        self.operations: list[Operation] = []

    def _note(self, name, path: Path, other: Path | None = None, data: bytes = b"") -> None:
        below = Path() if other is None else other.relative_to(self._folder)
        self.operations.append(Operation(name, path.relative_to(self._folder), below, data))

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        self._note("mkdir", path)

    def write(self, path: Path, data: bytes) -> None:
        self._note("create", path)
        size = max(1, -(-len(data) // CHUNKS))
        for begin in range(0, len(data), size):
            self._note("write", path, data=data[begin : begin + size])
        self._syncing = Operation("sync", path.relative_to(self._folder))
        super().write(path, data)

    def sync_directory(self, path: Path) -> None:
        # Above the folder nothing is recorded: it is there.
        below = path.is_relative_to(self._folder)
        self._syncing = Operation("sync_directory", path.relative_to(self._folder) if below else Path("/"))
        super().sync_directory(path)

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        self.operations.append(self._syncing)

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._note("rename", old, new)

    def link(self, old: Path, new: Path) -> None:
        os.link(old, new)
        self._note("link", old, new)

    def remove_tree(self, path: Path) -> None:
        for file in sorted(path.iterdir()):
            file.unlink()
            self._note("unlink", file)
        path.rmdir()
        self._note("rmdir", path)


def losable(operations: Sequence[Operation]) -> list[int]:
    """Return the indices of those that a crash right after the last one may undo."""
    lasting_files: set[Path] = set()
    lasting_names: set[Path] = set()
    found = []
    for index in reversed(range(len(operations))):
        one = operations[index]
        if one.name == "sync":
            lasting_files.add(one.path)
        elif one.name == "sync_directory":
            lasting_names.add(one.path)
        elif one.path not in lasting_files if one.name == "write" else one.directory not in lasting_names:
            found.append(index)
    return found


def rebuild(before: Path, operations: Sequence[Operation], lost: set[int], folder: Path, choose: random.Random) -> None:
    """Make `folder` what a crash leaves: `before`, and `operations` but those that are `lost`."""
    shutil.copytree(before, folder)
    for index, one in enumerate(operations):
        # Whatever rests on something that is lost is lost with it.
        with contextlib.suppress(FileNotFoundError, FileExistsError, NotADirectoryError, OSError):
            _apply(one, folder, None if index not in lost else choose)


def _apply(one: Operation, folder: Path, choose: random.Random | None) -> None:
    path, other = folder / one.path, folder / one.other
    if one.name == "write":
        data = one.data if choose is None else _rest(one.data, choose)
        with path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(data)
    elif choose is not None:
        return
    elif one.name == "create":
        path.touch(exist_ok=False)
    elif one.name == "mkdir":
        path.mkdir()
    elif one.name == "rename":
        path.rename(other)
    elif one.name == "link":
        os.link(path, other)
    elif one.name == "unlink":
        path.unlink()
    elif one.name == "rmdir":
        path.rmdir()


def _rest(data: bytes, choose: random.Random) -> bytes:
    """Return what may be there of contents that were never synced."""
    return choose.choice([b"", data[: choose.randrange(len(data) + 1)], bytes(len(data))])
