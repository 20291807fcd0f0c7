"""Open a run: which directory, which configuration, which checkpoint."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from aioseed.errors import CheckpointError, RunDirectoryError, RunDirectoryInUse, UsageError
from aioseed.host.changes import changes_said
from aioseed.host.config import RunConfig
from aioseed.host.options import resolved
from aioseed.training.rundir import CHECKPOINTS, CONFIG, GENERATION, LOCK, RunDirectory, holds, is_there
from aioseed.training.store import Checkpoint, CheckpointStore

METRICS = "metrics.jsonl"
_SAVED = re.compile(rb'"checkpoints/saved": [1-9]')

Resume = Literal["never", "auto", "require"]
_WAYS = get_args(Resume)


class OpenedRun(NamedTuple):
    """Hold a run directory that belongs to this process, and what it goes on from."""

    directory: RunDirectory
    store: CheckpointStore
    generation: int
    restored: Checkpoint | None
    config_before: str | None  # the configuration that it held; None if it held none
    made: tuple[Path, ...]  # folders that were not there before, the outermost first
    config: RunConfig  # of this start, with the defaults of its plug-ins
    changes: str  # what is configured otherwise than before, in a sentence; empty for a run that begins


def new_run_path(name: str, base: Path = Path("runs")) -> Path:
    """Return a path that nothing has yet: ``runs/<name>-<date>-<time>-<process>``.

    The process number keeps runs apart that a script starts in the same second.

    Raises:
        RunDirectoryError: That cannot be seen, as in a current directory that is somebody else's.
    """
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    path, attempt = base / stem, 1
    while is_there(path, path):
        attempt += 1
        path = base / f"{stem}-{attempt}"
    return path


def name_of_run(path: Path) -> str:
    """Return what actors call the run in `path`: the folder's name, with a mark for each byte that is not UTF-8."""
    return os.fsencode(path.absolute().name).decode("utf-8", errors="replace")


def open_run(path: Path, config: RunConfig, resume: Resume) -> OpenedRun:
    """Take possession of `path` and find the checkpoint to go on from.

    A run directory is never begun anew in silence: with ``never`` one that holds a run is an error, with ``require``
    one that holds no checkpoint is, and with ``auto`` a directory is begun only if it holds no run or never completed a
    save.

    Raises:
        UsageError: `resume` is none of the three.
        ConfigError, PluginError: An option of a plug-in is wrong, or there is no such plug-in.
        RunDirectoryInUse: Another learner owns it.
        RunDirectoryError: It cannot be made or written.
        CheckpointError: As above, or none of its checkpoints is sound.
    """
    if resume not in _WAYS:
        raise UsageError(f"resume is {resume!r}: expected {', '.join(map(repr, _WAYS[:-1]))} or {_WAYS[-1]!r}")
    if resume == "require" and not holds_run(path):
        raise CheckpointError(f"{path} holds no run to resume{run_around(path)}", path=str(path))
    said = resolved(config, lambda error: None)  # what cannot be imported stops the run when it is built
    made = _missing_folders(path)
    try:
        directory = RunDirectory.open(path)
    except RunDirectoryInUse:
        raise
    except RunDirectoryError:
        _remove_made(path, made)
        raise
    try:
        config_before = _text(directory.config)
        if resume == "never" and holds_run(path):
            raise CheckpointError(
                f"{path} holds a run already: go on with --resume {path}, or name another --run-dir", path=str(path)
            )
        keep = config.training.checkpoint.keep
        store = CheckpointStore(directory.checkpoints, keep=keep, check=directory.check)
        store.sweep()
        restored = store.newest()
        if restored is None and (figures := tells_of_saves(path)) is not None:
            message = (
                f"{directory.checkpoints} holds no checkpoint, and {figures.name} tells of saves: is its disk there?"
            )
            raise CheckpointError(f"{message} To begin anew, name another folder", path=str(path))
        if resume == "require" and restored is None:
            message = f"{path} never completed a save: there is nothing to resume"
            raise CheckpointError(f"{message}; --run-dir {path} --resume auto begins it anew", path=str(path))
        generation = directory.next_generation(0 if restored is None else restored.manifest.generation)
        config_now = said.model_dump_json(indent=1)
        changes = changes_said(config_before, config_now) if restored is not None and config_before is not None else ""
        directory.save_config(config_now)
    except BaseException:
        _remove_made(path, made)
        directory.close()
        raise
    return OpenedRun(directory, store, generation, restored, config_before, made, said, changes)


def discard(opened: OpenedRun) -> None:
    """Take back what `open_run` wrote for a run that never began to train; a run that was there before is as it was.

    Without this a typing error would leave a directory behind that looks like a run, and the next attempt at the same
    ``--run-dir`` would find it taken. Call it before the directory is closed.

    Raises:
        RunDirectoryError: The configuration from before cannot be written.
    """
    if opened.config_before is not None:
        opened.directory.save_config(opened.config_before)
        return
    path = opened.directory.path
    with contextlib.suppress(OSError):
        opened.directory.config.unlink(missing_ok=True)
    _remove_made(path, opened.made)


def tells_of_saves(path: Path) -> Path | None:
    """Return the file of the run in `path` that says that a save was completed once, None if none does.

    Its checkpoints may lie on a disk that is not mounted: then the folder for them is there, and empty.

    Raises:
        RunDirectoryError: The file is there and cannot be read.
    """
    figures = path / METRICS
    try:
        with figures.open("rb") as lines:
            return figures if any(_SAVED.search(line) for line in lines) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunDirectoryError(f"{figures} cannot be read: {error.strerror}", path=str(path)) from error


def _remove_made(path: Path, made: Sequence[Path]) -> None:
    """Remove the folders `made` for a run that did not begin, and what `open_run` wrote there."""
    # Whatever cannot be removed (somebody else's file in the folder, an open file on Windows) does no harm.
    with contextlib.suppress(OSError):
        if made:
            for name in (CONFIG, GENERATION, LOCK):
                (path / name).unlink(missing_ok=True)
                (path / f"{name}.tmp").unlink(missing_ok=True)
            for folder in reversed(made):
                if folder.exists():
                    folder.rmdir()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} cannot be read: {error}; if it is damaged, remove it: it is written anew"
        raise RunDirectoryError(message, path=str(path)) from error


def holds_run(path: Path) -> bool:
    """Say whether a run was begun in `path`: its configuration may be lost, and its checkpoints on a lost disk."""
    return holds(path, CONFIG) or holds(path, CHECKPOINTS)


def run_around(path: Path) -> str:
    """Return what to say where `path` is no run directory: the run that it lies in, as a checkpoint does, if any."""
    for folder in Path(os.path.abspath(path)).parents[:2]:
        with contextlib.suppress(RunDirectoryError):  # it cannot be looked into, and nobody has named it
            if holds_run(folder):
                return f" (did you mean the run {folder}?)"
    return ""


def _missing_folders(path: Path) -> tuple[Path, ...]:
    return tuple(folder for folder in reversed((path, *path.parents)) if not is_there(folder, path))
