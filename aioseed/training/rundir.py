"""The run directory: one learner at a time, a generation that only grows, and the resolved configuration.

::

    <run directory>/            0700
      learner.lock              locked by the operating system while a learner lives; names it
      generation                how many learners have opened the directory, and a digest of that
      config.json               the resolved configuration
      checkpoints/<step>/       see `aioseed.training.store`
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from aioseed.errors import RunDirectoryError, RunDirectoryInUse
from aioseed.training.files import Files

LOCK = "learner.lock"
GENERATION = "generation"
CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
_TRIES = 4
_TRY_AGAIN_S = 0.05  # whoever looks whether there is an owner holds the lock for far less
_LOCKED_BYTE = 2**30  # Windows locks ranges and hides what they hold; this one is beyond the text


class RunDirectory:
    """Own a run directory from `open` to `close`. Thread: one at a time."""

    def __init__(self, path: Path, lock: int, files: Files) -> None:
        """Hold what `open` has made sure of; call that instead."""
        self.path = path
        self._lock: int | None = lock
        self._files = files

    @classmethod
    def open(cls, path: Path, *, create: bool = True, files: Files | None = None) -> RunDirectory:
        """Take possession of the run directory at `path`.

        Args:
            path: The directory.
            create: Make it (0700) and its parents where it is missing.
            files: How files are written.

        Raises:
            RunDirectoryInUse: Another learner owns it; the message names its process and host.
            RunDirectoryError: It is missing, or cannot be made or written.
        """
        files = files or Files()
        with _as_run_directory_error(path):
            if create and not path.is_dir():
                _make(path, files)
            if not path.is_dir():
                raise RunDirectoryError(f"there is no run directory at {path}", path=str(path))
            return cls(path, _locked(path), files)

    @property
    def checkpoints(self) -> Path:
        """Return the directory of the checkpoint store."""
        return self.path / CHECKPOINTS

    @property
    def config(self) -> Path:
        """Return the file of the resolved configuration."""
        return self.path / CONFIG

    def next_generation(self, restored: int = 0) -> int:
        """Count up the generation, wait until it is on the disk, and return it: 1 in a new directory.

        Epochs of leases begin with it, so call this before listening: no two learners of a run ever share one.

        Args:
            restored: Generation of the checkpoint that the run goes on from; what is returned is larger, even if the
                file is lost.

        Raises:
            RunDirectoryError: The file is damaged or cannot be written.
        """
        path = self.path / GENERATION
        with _as_run_directory_error(self.path):
            generation = max(read_generation(path), restored) + 1
            self._files.replace(path, _generation_line(generation))
        return generation

    def save_config(self, text: str) -> None:
        """Write the resolved configuration (JSON), replacing the one there.

        Raises:
            RunDirectoryError: It cannot be written.
        """
        with _as_run_directory_error(self.path):
            self._files.replace(self.config, text.encode())

    def check(self) -> None:
        """Make sure that the path still leads to what was opened: meanwhile another run may have come to lie there.

        A lock file that somebody removed is made anew.

        Raises:
            RunDirectoryError: The directory was moved or removed, or another is in its place.
        """
        if self._lock is None:
            raise RunDirectoryError(f"the run directory {self.path} was given up", path=str(self.path))
        with _as_run_directory_error(self.path):
            if not self.path.is_dir():
                message = f"the run directory {self.path} was moved or removed; move it back, and saving goes on"
                raise RunDirectoryError(message, path=str(self.path))
            try:
                is_ours = os.path.samestat(os.stat(self.path / LOCK), os.fstat(self._lock))
            except FileNotFoundError:
                former, self._lock = self._lock, _locked(self.path)
                os.close(former)
                return
            if is_ours:
                return
            who = f" (of {owner})" if (owner := owner_of(self.path)) else ""
            message = (
                f"another run directory{who} lies at {self.path} than was opened; "
                "move it away and the right one back, and saving goes on"
            )
            raise RunDirectoryError(message, path=str(self.path))

    def close(self) -> None:
        """Give the directory up. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)  # which also unlocks
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def owner_of(path: Path) -> str | None:
    """Return who owns the run directory at `path`, as it names itself; None if nobody does.

    Looks by taking the lock for an instant, which `RunDirectory.open` waits out.

    Raises:
        OSError: The lock cannot be looked at.
    """
    try:
        lock = os.open(path / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(lock) else _owner(lock)
    finally:
        os.close(lock)


def holds(path: Path, name: str) -> bool:
    """Say whether there is something called `name` in the run directory `path`, be it a link to nowhere.

    Raises:
        RunDirectoryError: That cannot be seen: a run directory is its owner's alone, and what is hidden is not nothing.
    """
    return is_there(path / name, path)


def is_there(path: Path, run_directory: Path) -> bool:
    """Say whether there is something at `path`, in or around a run directory, be it a link to nowhere.

    Raises:
        RunDirectoryError: That cannot be seen: a folder is somebody else's, or its disk does not answer.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        hint = "; is it yours?" if isinstance(error, PermissionError) else ""
        message = f"the run directory {run_directory} cannot be looked into: {error.strerror}{hint}"
        raise RunDirectoryError(message, path=str(run_directory)) from error
    return True


def read_generation(path: Path) -> int:
    """Return the number in the file of the generation, 0 if there is none.

    Raises:
        RunDirectoryError: The file does not hold what was written.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            line = file.read(200)
    except FileNotFoundError:
        return 0
    number = line.partition(b" ")[0]
    if not number.isdigit() or line != _generation_line(int(number)):
        message = f"{path} is damaged: it holds {line[:40]!r}; remove it, and restart the actors with the learner"
        raise RunDirectoryError(message, path=str(path))
    return int(number)


def _generation_line(generation: int) -> bytes:
    # With one digit changed it would be a number still, and leases of an earlier learner would be valid again.
    digest = hashlib.sha256(str(generation).encode()).hexdigest()
    return f"{generation} {digest[:16]}\n".encode()


def _make(path: Path, files: Files) -> None:
    """Make a directory (0700) and its parents, and wait until their names are on the disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    for folder in missing:
        files.sync_directory(folder.parent)


def _locked(path: Path) -> int:
    """Return the lock file of the directory at `path`, open and locked."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(lock, path)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _take(lock: int, path: Path) -> None:
    """Lock the open file `lock`, or say who has it. The text is for people; what counts is the lock itself."""
    for _ in range(_TRIES):
        if _try_lock(lock):
            break
        time.sleep(_TRY_AGAIN_S)
    else:
        who = f" ({owner})" if (owner := _owner(lock)) else ""
        raise RunDirectoryInUse(f"the run directory {path} is in use by another learner{who}", path=str(path))
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _owner(lock: int) -> str:
    return os.pread(lock, 200, 0).decode(errors="replace").strip() if hasattr(os, "pread") else ""


if sys.platform == "win32":
    import msvcrt

    def _try_lock(lock: int) -> bool:
        os.lseek(lock, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        finally:
            os.lseek(lock, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def _as_run_directory_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = "" if error.filename in (None, str(path)) else f" ({error.filename})"
        said = f"the run directory {path} cannot be used: {error.strerror or error}{where}"
        raise RunDirectoryError(said, path=str(path)) from error
