"""Look at the installation and at a run directory: whether a run can go on from it here, and what to do if not.

Nothing is changed. A learner may be at work on the directory meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal, NamedTuple

from aioseed.errors import CheckpointError, ConfigError, PluginError, RunDirectoryError
from aioseed.host.config import RunConfig
from aioseed.host.options import resolved
from aioseed.host.rundir import METRICS, holds_run, run_around, tells_of_saves
from aioseed.lookup import INSTALL_ANEW, LEARNER_PACKAGES, is_reference, sentence_of
from aioseed.plugins import jax_plugins
from aioseed.specs import Json
from aioseed.telemetry.ledger import Ledger
from aioseed.training.progress import Progress
from aioseed.training.rundir import CHECKPOINTS, CONFIG, GENERATION, owner_of, read_generation
from aioseed.training.store import Checkpoint, CheckpointStore
from aioseed.validation import validate

LOG = "learner.log"
INSTALLATION = "installation"

Level = Literal["sound", "note", "trouble"]


class Found(NamedTuple):
    """Hold one thing that was found."""

    level: Level
    subject: str  # file or folder below the run directory, or `INSTALLATION`
    text: str
    advice: str = ""


class Diagnosis(NamedTuple):
    """Hold all that was found."""

    run_dir: Path | None  # None where only the installation was looked at
    found: tuple[Found, ...]

    @property
    def sound(self) -> bool:
        """Return True if nothing needs anybody's hand."""
        return all(one.level != "trouble" for one in self.found)


def examine(run_dir: Path | None) -> Diagnosis:
    """Look at the installation and, if given, at everything in `run_dir`. Blocks: not for the event loop.

    Raises:
        RunDirectoryError: There is no such directory, or it cannot be looked into.
    """
    if run_dir is None:
        return Diagnosis(None, tuple(_installation()))
    around = "" if holds_run(run_dir) else run_around(run_dir)
    if around or not run_dir.is_dir():
        raise RunDirectoryError(f"there is no run directory {run_dir}{around}", path=str(run_dir))
    found = [*_installation(), *_directory(run_dir), *_configuration(run_dir), *_owner(run_dir)]
    sound: list[Checkpoint] = []
    found += _checkpoints(run_dir, sound)
    found += [*_generation(run_dir, sound), *_metrics(run_dir), *_log(run_dir), *_space(run_dir)]
    return Diagnosis(run_dir, tuple(found))


def _installation() -> Iterator[Found]:
    """Load what a learner needs, but start no backend: one on an accelerator would take memory from whoever trains."""
    loaded: list[str] = []
    broken: dict[str, list[str]] = {}  # what is wrong -> with which: of one that is broken, others are in vain
    for package in sorted(LEARNER_PACKAGES):
        try:
            import_module(package)
            loaded.append(f"{package} {metadata.version(package)}")
        except Exception as error:
            broken.setdefault(sentence_of(error), []).append(package)
    for wrong, packages in broken.items():
        yield Found("trouble", INSTALLATION, f"{', '.join(packages)} cannot be loaded: {wrong}", INSTALL_ANEW)
    for plugin in jax_plugins():
        try:
            plugin.load()
            loaded.append(plugin.name)
        except Exception as error:
            text = f"JAX's plugin {plugin.name} cannot be loaded, and JAX passes it over: {sentence_of(error)}"
            yield Found("trouble", INSTALLATION, text, "install the one that fits your jaxlib, or remove it")
    yield Found("sound", INSTALLATION, f"these can be loaded: {', '.join(loaded)}")


def _directory(run_dir: Path) -> Iterator[Found]:
    mode = stat.S_IMODE(run_dir.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        yield Found("note", ".", f"others than its owner may enter it ({mode:04o})", f"run: chmod 700 {run_dir}")
    for name in (".", CHECKPOINTS):
        if (run_dir / name).is_dir() and not os.access(run_dir / name, os.W_OK | os.X_OK):
            if _is_read_only(run_dir / name):
                text = "is mounted read-only: a learner here could not save"
                yield Found("trouble", name, text, "mount it for writing, or look where it trains")
                continue
            text = "cannot be written by this user: a learner of this user could not save"
            yield Found("trouble", name, text, "give it to whoever trains (chown, chmod u+rwx), or look as that user")


def _is_read_only(path: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _configuration(run_dir: Path) -> Iterator[Found]:
    path = run_dir / CONFIG
    elsewhere: list[PluginError] = []
    own: list[str] = []
    try:
        config = validate(RunConfig, json.loads(path.read_text(encoding="utf-8")), "")
        sections = (config.agent, config.network, *config.transforms)
        own += filter(is_reference, (config.environment.plugin, *(section.name for section in sections)))
        if not own:
            resolved(config, elsewhere.append)
    except FileNotFoundError:
        if (run_dir / CHECKPOINTS).exists():
            yield Found("trouble", CONFIG, "is missing", _COPY_CONFIG)
        else:
            yield Found("trouble", CONFIG, "is missing: no learner takes this folder for a run", "name another folder")
    except (OSError, ValueError, RecursionError) as error:
        yield Found("trouble", CONFIG, f"cannot be read: {error}", _COPY_CONFIG)
    except (ConfigError, PluginError) as error:
        advice = "resume with the version of aioseed that wrote it, or change what the sentence names"
        yield Found("trouble", CONFIG, f"is not a configuration of this version: {error}", advice)
    else:
        yield Found("sound", CONFIG, "is a configuration that this version can use")
        for name in own:
            # Whoever looks at a run that is not theirs need not run what it names.
            yield Found("note", CONFIG, f"names {name}, which is not imported here: options are not looked at", _RESUME)
        for missing in elsewhere:
            yield Found(
                "note", CONFIG, f"names what cannot be looked at here: {missing}", "look where the run was made"
            )


_RESUME = "resume the run: its learner imports that, and says what is wrong"
_COPY_CONFIG = 'name the preset again when you resume, or take it from the key "config" of a checkpoint\'s state.json'


def _owner(run_dir: Path) -> Iterator[Found]:
    try:
        owner = owner_of(run_dir)
    except OSError as error:
        text = f"whether a learner owns it cannot be seen: {error.strerror}"
        if error.errno == errno.EROFS:  # which is told
            yield Found("note", ".", text)
        else:
            yield Found("trouble", ".", text, "look as its owner")
        return
    said = "no learner is at work on it" if owner is None else f"a learner is at work on it: {owner or 'unnamed'}"
    yield Found("sound", ".", said)


def _checkpoints(run_dir: Path, sound: list[Checkpoint]) -> Iterator[Found]:
    """Say what each checkpoint is worth, and add the sound ones to `sound`, newest first, without their arrays."""
    directory, unsound = run_dir / CHECKPOINTS, 0
    try:
        for path, checkpoint, fault in CheckpointStore(directory).findings():
            name = f"{CHECKPOINTS}/{path.name}"
            if checkpoint is None:
                unsound += 1
                yield Found("trouble", name, f"is not sound: {fault}", f"it is passed over; remove {path}")
                continue
            yield from _contents(name, checkpoint)
            sound.append(checkpoint._replace(arrays={}))
        left_over = sorted(path.name for path in directory.glob("*.tmp"))
    except OSError as error:
        yield Found(
            "trouble", CHECKPOINTS, f"cannot be listed: {error.strerror}", "look as its owner, its disk mounted"
        )
        return
    for name in left_over:
        yield Found("note", f"{CHECKPOINTS}/{name}", "is a save that is under way or was interrupted; no one reads it")
    if unsound and not sound:
        yield Found("trouble", CHECKPOINTS, "holds no sound checkpoint: the run cannot go on", "begin another run")
    elif not sound and _saved_before(run_dir):
        text = f"holds no checkpoint, and {METRICS} tells of saves"
        yield Found("trouble", CHECKPOINTS, text, "look whether its disk is mounted; or begin another run")
    elif not sound:
        yield Found("note", CHECKPOINTS, "no save was completed yet: --resume auto begins anew")
    else:
        yield Found("sound", CHECKPOINTS, f"the run goes on from {sound[0].path.name}")
        yield from _versions(sound[0])


def _saved_before(run_dir: Path) -> bool:
    try:
        return tells_of_saves(run_dir) is not None
    except RunDirectoryError:
        return False  # that the file cannot be read is told where it is looked at


def _contents(name: str, checkpoint: Checkpoint) -> Iterator[Found]:
    """Look for what training and ledger need, which digests cannot tell."""
    path, sections = str(checkpoint.path), checkpoint.state
    try:
        Progress.from_json(_section(sections, "training"), path=path)
        Ledger.from_json(_section(sections, "ledger"), path=path)
    except CheckpointError as error:
        yield Found("trouble", name, f"is what was written, but {error}", "report it: aioseed wrote something wrong")
    else:
        manifest = checkpoint.manifest
        size = sum(file.size for file in manifest.files.values())
        yield Found("sound", name, f"generation {manifest.generation}, {len(manifest.files) + 1} files, {size:,} bytes")


def _section(state: Mapping[str, Json], name: str) -> dict[str, Json]:
    section = state.get(name)
    return section if isinstance(section, dict) else {}


def _versions(checkpoint: Checkpoint) -> Iterator[Found]:
    for library, written in sorted(checkpoint.manifest.versions.items()):
        try:
            here = metadata.version(library)
        except metadata.PackageNotFoundError:
            here = "none"
        if here != written:
            text = f"was written with {library} {written}, here is {here}"
            yield Found(
                "note", f"{CHECKPOINTS}/{checkpoint.path.name}", text, "going on is possible, equal bits are not"
            )


def _generation(run_dir: Path, sound: list[Checkpoint]) -> Iterator[Found]:
    newest = max((checkpoint.manifest.generation for checkpoint in sound), default=0)
    try:
        generation = read_generation(run_dir / GENERATION)
    except (OSError, RunDirectoryError) as error:
        yield Found("trouble", GENERATION, f"cannot be used: {error}", _LOST_GENERATION)
        return
    if generation < newest or not generation:
        text = f"says {generation or 'nothing'}, the checkpoints were written by generation {newest}"
        level: Level = "trouble" if newest else "note"
        yield Found(level, GENERATION, text, _LOST_GENERATION if newest else "")
    else:
        yield Found("sound", GENERATION, f"{generation}, one more with each learner that opens the directory")


_LOST_GENERATION = "remove the file if it is there, end all actors, and resume: it is counted on from the checkpoints"


def _metrics(run_dir: Path) -> Iterator[Found]:
    path = run_dir / METRICS
    lines = torn = unbalanced = 0
    try:
        with path.open("rb") as file:
            for line in file:
                lines += 1
                values = _line(line)
                torn += values is None
                unbalanced += values is not None and imbalance(values) != 0
    except FileNotFoundError:
        yield Found("note", METRICS, "is not there: no figure was written yet")
        return
    except OSError as error:
        yield Found("trouble", METRICS, f"cannot be read: {error.strerror}", "look as its owner")
        return
    if unbalanced:
        text = f"the ledger does not balance in {unbalanced} of {lines} lines"
        yield Found("trouble", METRICS, text, "report it: steps were lost or counted twice")
    if torn:
        yield Found("note", METRICS, f"{torn} of {lines} lines are cut short, by a power cut or a full disk")
    if not unbalanced:
        yield Found("sound", METRICS, f"the ledger balances in all {lines - torn} lines")


def _line(line: bytes) -> dict[str, float] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def imbalance(values: Mapping[str, float]) -> float:
    """Return accepted minus all that is accounted for in one line of the figures; 0 where it has no ledger."""
    dropped = sum(value for name, value in values.items() if name.startswith("ledger/dropped_"))
    accounted = sum(values.get(f"ledger/{term}", 0) for term in ("consumed", "evaluated", "held"))
    return values.get("ledger/accepted", 0) - accounted - dropped


def _log(run_dir: Path) -> Iterator[Found]:
    path, errors, last = run_dir / LOG, 0, ""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if " ERROR " in line:
                    errors, last = errors + 1, line.strip()[:200]
    except FileNotFoundError:
        return
    except OSError as error:
        yield Found("trouble", LOG, f"cannot be read: {error.strerror}", "look as its owner")
        return
    if errors:
        yield Found("note", LOG, f"has {errors} errors, the last one: {last}", f"read {path}")
    else:
        yield Found("sound", LOG, "has no errors")


def _space(run_dir: Path) -> Iterator[Found]:
    free = shutil.disk_usage(run_dir).free
    size = max((_size(path) for path in (run_dir / CHECKPOINTS).glob("*[0-9]")), default=0)
    text = f"{free / 2**20:,.0f} MiB are free, the largest checkpoint takes {size / 2**20:,.1f} MiB"
    if free < 2 * size or not free:
        yield Found("trouble", ".", text, "free some space: the next save will fail (training goes on all the same)")
    else:
        yield Found("sound", ".", text)


def _size(directory: Path) -> int:
    try:
        return sum(path.lstat().st_size for path in directory.iterdir())
    except OSError:
        return 0  # removed just now, or reported above
