"""A trained run as it lies on the disk: configuration, specs and parameters of one of its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from aioseed.actor.probe import Description
from aioseed.errors import CheckpointError, ConfigError, SpaceError
from aioseed.host.acting import BuiltAgent, build_agent
from aioseed.host.config import RunConfig
from aioseed.host.probe import probe
from aioseed.host.rundir import run_around, tells_of_saves
from aioseed.presets import apply_overrides
from aioseed.specs import first_difference
from aioseed.training.manifest import NAME as MANIFEST
from aioseed.training.rundir import CHECKPOINTS, CONFIG, holds
from aioseed.training.store import Checkpoint, CheckpointStore
from aioseed.training.trees import restore_arrays, subtree
from aioseed.validation import validate

CHANGEABLE = ("environment", "actor", "serving", "transport", "seed")
"""What of a configuration is no part of the policy."""


class SavedRun(NamedTuple):
    """Hold what is needed to act as a checkpoint of a run does."""

    run_dir: Path
    config: RunConfig
    described: Description
    built: BuiltAgent
    params: object  # a JAX pytree: what its agent publishes
    version: int  # optimiser steps behind the parameters


def load_run(path: Path) -> SavedRun:
    """Read the newest sound checkpoint of the run in `path`, or the one that `path` is. The run may be going on.

    Raises:
        CheckpointError: There is no run, none of its checkpoints is sound, or this one is not.
        RunDirectoryError: It cannot be looked into: it is somebody else's.
        ConfigError, PluginError, SpaceError: Its agent or network cannot be built here.
    """
    here = _named(path)
    is_checkpoint = holds(here, MANIFEST) or here.parent.name == CHECKPOINTS
    checkpoint = CheckpointStore(here.parent).at(here.name) if is_checkpoint else _newest(path)
    config, described = _said_in(checkpoint)
    transforms = [section.section() for section in config.transforms]
    built = build_agent(config.agent.section(), config.network.section(), described.spec, transforms)
    # Shapes alone: making the parameters would compile, only for them to be thrown away, and the configuration of a
    # checkpoint from elsewhere may ask for any size.
    shapes = jax.eval_shape(built.agent.init, jax.random.key(0))
    learner = restore_arrays(shapes, subtree(checkpoint.arrays, "learner"), path=str(checkpoint.path))
    params = built.agent.published(learner)
    return SavedRun(run_directory_of(path), config, described, built, jax.device_put(params), checkpoint.manifest.step)


async def with_changes(run: SavedRun, overrides: Sequence[str]) -> SavedRun:
    """Return `run` as its policy is to act elsewhere; an environment that changes is looked at. Safe to cancel.

    Args:
        overrides: Each ``dotted.path=value``, of the sections in `CHANGEABLE`.

    Raises:
        ConfigError: One cannot be used, or changes the policy; or the policy does not fit the environment.
        PluginError, SpaceError, EnvironmentFailed: As from `probe`.
    """
    config = validate(RunConfig, apply_overrides(run.config.model_dump(mode="json"), overrides), "")
    for name in RunConfig.model_fields:
        if name not in CHANGEABLE and getattr(config, name) != getattr(run.config, name):
            can = ", ".join(CHANGEABLE)
            raise ConfigError(f"{name} belongs to the policy, which is measured as it was saved: only {can} can change",
                              path=name, expected=f"one of {can}")  # fmt: skip
    if config.environment == run.config.environment:
        return run._replace(config=config)
    described = await probe(config.environment)
    ours, theirs = (
        {name: form[name] for name in ("observation", "action")}
        for form in (run.described.to_json(), described.to_json())
    )
    difference = first_difference(ours, theirs)
    if difference is not None:
        path, known, found = difference
        raise ConfigError(f"the policy does not fit {config.environment.name} so configured: {path} is {found} there, "
                          f"and the policy was trained with {known}", path="environment")  # fmt: skip
    return run._replace(config=config, described=described)


def run_directory_of(path: Path) -> Path:
    """Return the run's directory where `path` is a checkpoint in it; otherwise `path`."""
    above = _named(path).parent
    return above.parent if above.name == CHECKPOINTS else path


def _named(path: Path) -> Path:
    """Return `path` with the names that ``.`` and ``..`` stand for: a checkpoint is known by its own."""
    return Path(os.path.abspath(path))


def _newest(path: Path) -> Checkpoint:
    if not path.is_dir():
        raise CheckpointError(f"there is no run directory {path}{run_around(path)}", path=str(path))
    checkpoint = CheckpointStore(path / CHECKPOINTS).newest()
    if checkpoint is None:
        what = (
            "never completed a save: there is no policy in it"
            if holds(path, CONFIG)
            else f"holds no run{run_around(path)}"
        )
        if tells_of_saves(path) is not None:
            what = "holds no checkpoint any more, and tells of saves: is the disk of its checkpoints there?"
        raise CheckpointError(f"{path} {what}", path=str(path))
    return checkpoint


def _said_in(checkpoint: Checkpoint) -> tuple[RunConfig, Description]:
    """Return what the checkpoint was written with; the directory's configuration may be that of a later attempt."""
    config, described = checkpoint.state.get("config"), checkpoint.state.get("environment")
    if not isinstance(config, dict) or not isinstance(described, dict):
        raise CheckpointError(f"{checkpoint.path} holds no configuration or no specs", path=str(checkpoint.path))
    try:
        return validate(RunConfig, config, ""), Description.from_json(described)
    except (ConfigError, SpaceError) as error:
        message = f"{checkpoint.path} was saved with what this version cannot use: {error}"
        raise CheckpointError(message, path=str(checkpoint.path)) from error
