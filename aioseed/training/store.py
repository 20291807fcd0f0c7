"""The checkpoint store: directories ``<step>`` that are either whole and verified, or not there.

A checkpoint is written to ``<step>.tmp``, every file and the directory are synced, the directory is renamed, its parent
synced, and the result read back and verified. At whatever moment the process or the machine dies, the newest verified
checkpoint is the one before or the new one. Which one is newest is found by looking at all of them; no clock is asked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, TypedDict

import ml_dtypes
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from aioseed.errors import CheckpointError, RunDirectoryError, SaveFailed
from aioseed.specs import Json
from aioseed.training import manifest as manifests
from aioseed.training.files import Files
from aioseed.training.manifest import FileEntry, Manifest, Unsound
from aioseed.training.reading import check_file, read_file, read_manifest
from aioseed.types import Segment

ARRAYS = "arrays.safetensors"
STATE = "state.json"

SEGMENT_ENDING = ".safetensors"

ARRAYS_LIMIT_BYTES = 2**38
STATE_LIMIT_BYTES = 2**28
"""Far more than anything that is saved; a checkpoint from elsewhere must not ask for more."""

_LOOKS = 5  # times that a reader looks for what came in the place of checkpoints that went while they were read
_LIMITS_BYTES = {ARRAYS: ARRAYS_LIMIT_BYTES, STATE: STATE_LIMIT_BYTES}
_SEGMENT = re.compile(r"replay-\d+-\d+\.safetensors", re.ASCII)
_NAME = re.compile(r"\d{12,}(\.\d+)?", re.ASCII)
_LIBRARIES = ("aioseed", "jax", "jaxlib", "flax", "optax", "numpy", "safetensors")
# The reader of safetensors' own NumPy module knows no bfloat16; the file format does.
_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}

_log = logging.getLogger(__name__)


class _Tensor(TypedDict):
    dtype: str
    shape: list[int]
    data: bytearray


class Snapshot(NamedTuple):
    """Hold a copy of all that a checkpoint holds; nobody changes it any more."""

    step: int  # optimiser steps made: `Progress.version`
    arrays: dict[str, np.ndarray]
    state: dict[str, Json]
    segments: tuple[Segment, ...] = ()  # of replay, oldest first
    release: Callable[[bool], None] = lambda saved: None  # called once: True if all of it was saved


class Checkpoint(NamedTuple):
    """Hold a verified checkpoint as read."""

    path: Path
    manifest: Manifest
    arrays: dict[str, np.ndarray]
    state: dict[str, Json]

    def segment(self, name: str) -> dict[str, np.ndarray]:
        """Read a segment of replay.

        Raises:
            CheckpointError: There is none of that name, or it is not what was written.
        """
        path = self.path / (name + SEGMENT_ENDING)
        try:
            return _arrays_from_bytes(read_file(path, self.manifest.files[path.name], ARRAYS_LIMIT_BYTES))
        except (OSError, Unsound, KeyError, ValueError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}", path=str(path)) from error


class Finding(NamedTuple):
    """Say what one checkpoint is worth."""

    path: Path
    checkpoint: Checkpoint | None  # None if it is not sound
    fault: str  # what is wrong with it; empty if it is sound


class CheckpointStore:
    """Save, find, verify and remove the checkpoints of one directory.

    A segment of replay is written once, by the first checkpoint that holds it; later ones share the file by a hard
    link, so that every directory is whole by itself and removing one harms no other.

    Thread: one at a time. Only the owner of the run directory may call `save` and `sweep`; reading needs no ownership.
    """

    def __init__(
        self, directory: Path, *, keep: int = 2, files: Files | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        """Use `directory`, which `save` creates where it is missing.

        Args:
            directory: ``<run directory>/checkpoints``.
            keep: Verified checkpoints that are kept; older ones go.
            files: How files are written.
            check: Raises RunDirectoryError where the directory is the caller's no longer; asked before each save.
        """
        self._directory = directory
        self._keep = keep
        self._files = files or Files()
        self._check = check
        self._segments: dict[str, tuple[Path, FileEntry]] = {}  # where a segment lies that is known to be sound
        self._abandoned: set[Path] = set()  # failed saves that could not be removed: their contents may not last
        self._named = False  # whether the name of the directory is on the disk

    def save(self, snapshot: Snapshot, generation: int) -> Path:
        """Write a checkpoint, verify it, remove those that are no longer kept, and return its directory.

        Raises:
            SaveFailed: It could not be written (a full disk, say) or does not verify. Nothing of it is left, earlier
                ones are untouched, and a later attempt uses other names.
        """
        final = self._directory / f"{snapshot.step:012d}"
        try:
            self._check()
            final = self._free_path(snapshot.step)
        except (RunDirectoryError, OSError) as error:
            message = f"checkpoint {final.name} could not be saved: {_words(error)}"
            raise SaveFailed(message, path=str(final)) from error
        unfinished = final.with_name(final.name + ".tmp")
        try:
            self._write(snapshot, generation, unfinished, final)
            self._verify(final)
            self._abandoned.discard(final)  # an earlier attempt, which had left nothing there
        except CheckpointError:
            self._abandon(unfinished, final)
            raise
        except (OSError, Unsound, safetensors.SafetensorError, ValueError, TypeError) as error:
            self._abandon(unfinished, final)
            message = f"checkpoint {final.name} could not be saved: {_words(error)}"
            raise SaveFailed(message, path=str(final)) from error
        self._retain()
        self._segments = {name: known for name, known in self._segments.items() if known[0].exists()}
        return final

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that verifies; None if no save was ever completed here.

        Later generations count as newer, then later steps. Those that do not verify are skipped with a warning.

        Raises:
            CheckpointError: There are checkpoints, but none is sound, or none lasts until it is read; or their
                directory cannot be listed.
        """
        for _ in range(_LOOKS):
            unsound, vanished = 0, False
            for path in self._listed():
                try:
                    return self._read(path)
                except (OSError, Unsound) as error:
                    if not path.exists():
                        vanished = True  # its owner goes on saving, and has removed it since
                        continue
                    unsound += 1
                    _log.warning("checkpoint %s is skipped: %s", path, error)
            if vanished:
                continue
            if unsound:
                message = f"none of the {unsound} checkpoints in {self._directory} is sound"
                raise CheckpointError(message, path=str(self._directory))
            return None
        message = f"the checkpoints in {self._directory} are removed faster than they can be read: keep more of them"
        raise CheckpointError(f"{message}, training.checkpoint.keep=20", path=str(self._directory))

    def _listed(self) -> list[Path]:
        try:
            return self._newest_first()
        except OSError as error:
            message = f"{self._directory} cannot be listed: {_words(error)}; is it yours, and is its disk there?"
            raise CheckpointError(message, path=str(self._directory)) from error

    def at(self, name: str) -> Checkpoint:
        """Return the checkpoint in the folder `name`.

        Raises:
            CheckpointError: There is none, or it does not verify.
        """
        path = self._directory / name
        if not _NAME.fullmatch(name):
            raise CheckpointError(
                f"{path} is called otherwise than a checkpoint: a copy keeps its name", path=str(path)
            )
        try:
            return self._read(path)
        except (OSError, Unsound) as error:
            raise CheckpointError(f"{path} is no sound checkpoint: {_words(error)}", path=str(path)) from error

    def findings(self) -> Iterator[Finding]:
        """Read every checkpoint, newest first, and say what each is worth. Changes nothing, needs no ownership.

        Raises:
            OSError: The directory cannot be listed.
        """
        for path in self._newest_first():
            try:
                yield Finding(path, self._read(path), "")
            except (OSError, Unsound) as error:
                if path.exists():  # else its owner has just removed it
                    yield Finding(path, None, str(error))

    def sweep(self) -> None:
        """Remove what interrupted saves and removals left behind."""
        for path in self._directory.glob("*.tmp"):
            try:
                self._files.remove_tree(path)
            except OSError as error:
                _log.warning("%s could not be removed: %s", path, error)

    def _write(self, snapshot: Snapshot, generation: int, unfinished: Path, final: Path) -> None:
        if not self._directory.is_dir():
            self._files.make_directory(self._directory)
        if not self._named:
            # Whoever made it may have died before its name was on the disk.
            self._files.sync_directory(self._directory.parent)
            self._named = True
        contents = {
            ARRAYS: _arrays_to_bytes(snapshot.arrays),
            STATE: json.dumps(snapshot.state, indent=1, sort_keys=True).encode(),
        }
        entries = {name: manifests.entry(data) for name, data in contents.items()}
        self._files.make_directory(unfinished)
        entries |= {segment.name + SEGMENT_ENDING: self._add(segment, unfinished) for segment in snapshot.segments}
        manifest = Manifest(snapshot.step, generation, _versions(), entries)
        for name, data in contents.items():
            self._files.write(unfinished / name, data)
        self._files.write(unfinished / manifests.NAME, manifests.encode(manifest))
        self._files.sync_directory(unfinished)
        self._files.rename(unfinished, final)
        self._files.sync_directory(self._directory)

    def _add(self, segment: Segment, directory: Path) -> FileEntry:
        """Write a segment, or link it from the checkpoint that has it."""
        name = segment.name + SEGMENT_ENDING
        known = self._segments.get(name)
        if known is not None and known[0].exists():
            self._files.link(known[0], directory / name)
            return known[1]
        with segment.read() as arrays:
            data = _arrays_to_bytes(arrays)
        self._files.write(directory / name, data)
        return manifests.entry(data)

    def _abandon(self, unfinished: Path, final: Path) -> None:
        """Remove a save that failed. What a failed fsync was about is never trusted again, here or after a restart."""
        with contextlib.suppress(OSError):
            self._files.remove_tree(unfinished)
        self._abandoned.add(final)  # as long as nobody can tell whether it is there
        with contextlib.suppress(OSError):
            if final.exists():
                self._remove(final)
            self._abandoned.discard(final)

    def _read(self, path: Path) -> Checkpoint:
        """Return the checkpoint at `path`. What is parsed are the very bytes that were verified."""
        manifest = _manifest(path)
        contents: dict[str, bytes] = {}
        for name, entry in manifest.files.items():
            if _SEGMENT.fullmatch(name):
                self._check_segment(path / name, entry)
                continue
            contents[name] = read_file(path / name, entry, _LIMITS_BYTES[name])
        try:
            arrays = _arrays_from_bytes(contents[ARRAYS])
            state = json.loads(contents[STATE])
        except (KeyError, ValueError, RecursionError, safetensors.SafetensorError) as error:
            raise Unsound(f"it was written by other rules: {error}") from error
        if not isinstance(state, dict):
            raise Unsound(f"it was written by other rules: {STATE} is no object")
        return Checkpoint(path, manifest, arrays, state)

    def _verify(self, path: Path) -> None:
        """Raise Unsound unless every file is what was written; reads in pieces, not into memory."""
        for name, entry in _manifest(path).files.items():
            if _SEGMENT.fullmatch(name):
                self._check_segment(path / name, entry)
            else:
                check_file(path / name, entry)

    def _check_segment(self, path: Path, entry: FileEntry) -> None:
        """Verify a segment unless it is a file that this process has verified: replay may have many gigabytes."""
        known = self._segments.get(path.name)
        if known is None or known[1] != entry or not (known[0].exists() and known[0].samefile(path)):
            check_file(path, entry)
        # The name seen last is the one to link from: what is removed is not looked at before.
        self._segments[path.name] = (path, entry)

    def _retain(self) -> None:
        """Remove what is older than the newest `keep` that verify."""
        verified = 0
        try:
            paths = self._newest_first()
        except OSError as error:
            _log.info("no checkpoint is removed: %s", error)
            return
        for path in paths:
            try:
                if verified >= self._keep:
                    self._remove(path)
                elif path in self._abandoned:
                    self._abandon(path.with_name(path.name + ".tmp"), path)
                else:
                    self._verify(path)
                    verified += 1
            except (OSError, Unsound) as error:
                _log.info("checkpoint %s is not counted: %s", path, error)

    def _remove(self, path: Path) -> None:
        # Renamed first: one that is half removed must not look like one that is corrupt.
        doomed = path.with_name(path.name + ".old.tmp")
        self._files.rename(path, doomed)
        self._files.remove_tree(doomed)

    def _newest_first(self) -> list[Path]:
        # A link to a disk that is not mounted is not nothing: whoever began anew would replace what lies there.
        if not os.path.lexists(self._directory):
            return []
        paths = [path for path in self._directory.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
        generations = {path: _generation(path) for path in paths}
        # One whose manifest cannot be read takes its place by its step among the newest, so that it is reported.
        latest = max((known for known in generations.values() if known is not None), default=0)

        def age(path: Path) -> tuple[int, int, int]:
            generation = generations[path]
            return latest if generation is None else generation, *_numbers(path)

        return sorted(paths, key=age, reverse=True)

    def _free_path(self, step: int) -> Path:
        """Return a name for a checkpoint of `step` that none has yet: a resumed run may come by the same step again."""
        path = self._directory / f"{step:012d}"
        attempt = 0
        while path.exists() or path.with_name(path.name + ".tmp").exists():  # of a save that failed and could not go
            attempt += 1
            path = self._directory / f"{step:012d}.{attempt}"
        return path


def _manifest(path: Path) -> Manifest:
    manifest = read_manifest(path)
    if _numbers(path)[0] != manifest.step:
        raise Unsound(f"it is the checkpoint of step {manifest.step} under another name")
    if {name for name in manifest.files if not _SEGMENT.fullmatch(name)} != {ARRAYS, STATE}:
        raise Unsound("its manifest names other files")
    return manifest


def _generation(path: Path) -> int | None:
    try:
        return _manifest(path).generation
    except (OSError, Unsound):
        return None


def _words(error: Exception) -> str:
    """Return the system's words, without the numbers that Python puts around them, or the error's own."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _numbers(path: Path) -> tuple[int, int]:
    """Return step and attempt from the name of a checkpoint."""
    step, _, attempt = path.name.partition(".")
    return int(step), int(attempt or 0)


def _arrays_to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    for name, array in arrays.items():
        if array.dtype not in _DTYPES.values():
            raise ValueError(f"array {name!r} has dtype {array.dtype}, which cannot be saved")
    # The library writes memory as it lies: an array in Fortran order would come back as another one.
    return safetensors_numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def _arrays_from_bytes(data: bytes) -> dict[str, np.ndarray]:
    deserialize: Callable[[bytes], list[tuple[str, _Tensor]]] = safetensors.deserialize
    return {
        name: np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in deserialize(data)
    }


def _versions() -> dict[str, str]:
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return versions
