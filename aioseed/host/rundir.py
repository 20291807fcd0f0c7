"""Open a run: which directory, which configuration, which checkpoint."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal, NamedTuple

from aioseed.errors import CheckpointError
from aioseed.host.config import RunConfig
from aioseed.training.rundir import CONFIG, RunDirectory
from aioseed.training.store import Checkpoint, CheckpointStore

Resume = Literal["never", "auto", "require"]


class OpenedRun(NamedTuple):
    """Hold a run directory that belongs to this process, and what it goes on from."""

    directory: RunDirectory
    store: CheckpointStore
    generation: int
    restored: Checkpoint | None


def new_run_path(name: str, base: Path = Path("runs")) -> Path:
    """Return a path that nothing has yet: ``runs/<name>-<date>-<time>``."""
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, attempt = base / stem, 1
    while path.exists():
        attempt += 1
        path = base / f"{stem}-{attempt}"
    return path


def open_run(path: Path, config: RunConfig, resume: Resume) -> OpenedRun:
    """Take possession of `path` and find the checkpoint to go on from.

    A run directory is never begun anew in silence: with ``never`` one that holds a run is an error, with ``require``
    one that holds no checkpoint is, and with ``auto`` a directory is begun only if it holds no run or never completed a
    save.

    Raises:
        RunDirectoryInUse: Another learner owns it.
        RunDirectoryError: It cannot be made or written.
        CheckpointError: As above, or none of its checkpoints is sound.
    """
    if resume == "require" and not (path / CONFIG).exists():
        raise CheckpointError(f"{path} holds no run to resume", path=str(path))
    directory = RunDirectory.open(path)
    try:
        if resume == "never" and directory.config.exists():
            raise CheckpointError(
                f"{path} holds a run already: go on with --resume {path}, or name another --run-dir", path=str(path)
            )
        store = CheckpointStore(directory.checkpoints, keep=config.training.checkpoint.keep)
        store.sweep()
        restored = store.newest()
        if resume == "require" and restored is None:
            raise CheckpointError(f"{path} never completed a save: there is nothing to resume", path=str(path))
        generation = directory.next_generation()
        directory.save_config(config.model_dump_json(indent=1))
    except BaseException:
        directory.close()
        raise
    return OpenedRun(directory, store, generation, restored)


def saved_config(path: Path) -> dict[str, object]:
    """Return the configuration that a run directory holds.

    Raises:
        CheckpointError: It holds none, or it cannot be read.
    """
    try:
        data = json.loads((path / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} holds no readable run: {error}", path=str(path)) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path / CONFIG} is not a configuration", path=str(path))
    return data
