"""The manifest of a checkpoint: what belongs to it, and digests that tell whether it is what was written.

The manifest covers itself too: it ends with the digest of all before it, and only the exact bytes that `encode` makes
are read. So any changed byte of a checkpoint is noticed.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from aioseed.specs import Json

FORMAT = 1
NAME = "MANIFEST.json"


class FileEntry(NamedTuple):
    """Describe one file."""

    size: int
    sha256: str


class Manifest(NamedTuple):
    """Describe one checkpoint."""

    step: int
    generation: int
    versions: dict[str, str]  # library -> version that wrote it
    files: dict[str, FileEntry]
    format: int = FORMAT


class Unsound(Exception):
    """Say what is wrong with a checkpoint. Never leaves the store."""


def entry(data: bytes) -> FileEntry:
    """Return the entry of a file with these contents."""
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


def encode(manifest: Manifest) -> bytes:
    """Return the bytes of the manifest."""
    body: dict[str, Json] = {
        "format": manifest.format,
        "step": manifest.step,
        "generation": manifest.generation,
        "versions": dict[str, Json](manifest.versions),
        "files": {name: {"size": file.size, "sha256": file.sha256} for name, file in manifest.files.items()},
    }
    return _json({**body, "sha256": hashlib.sha256(_json(body)).hexdigest()})


def decode(data: bytes) -> Manifest:
    """Return the manifest that `encode` turned into `data`.

    Raises:
        Unsound: Nothing that `encode` makes, or another format.
    """
    try:
        form = json.loads(data)
        if form["format"] != FORMAT:
            raise Unsound(f"its format is {form['format']!r}, this version of aioseed reads {FORMAT}")
        files = {name: FileEntry(file["size"], file["sha256"]) for name, file in form["files"].items()}
        manifest = Manifest(form["step"], form["generation"], form["versions"], files)
        sound = encode(manifest) == data and type(manifest.step) is int and type(manifest.generation) is int
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unsound(f"{NAME} cannot be read") from error
    if not sound:
        raise Unsound(f"{NAME} is not what was written")
    return manifest


def _json(form: dict[str, Json]) -> bytes:
    return (json.dumps(form, indent=1, sort_keys=True) + "\n").encode()
