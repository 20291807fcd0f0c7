"""A trained run as it lies on the disk: its configuration, its specs and its newest sound parameters."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax

from aioseed.actor.probe import Description
from aioseed.errors import CheckpointError, ConfigError, SpaceError
from aioseed.host.acting import BuiltAgent, build_agent
from aioseed.host.config import RunConfig
from aioseed.host.rundir import saved_config
from aioseed.training.rundir import CHECKPOINTS
from aioseed.training.store import CheckpointStore
from aioseed.training.trees import restore_arrays, subtree
from aioseed.validation import validate


class SavedRun(NamedTuple):
    """Hold what is needed to act as a run's newest checkpoint does."""

    config: RunConfig
    described: Description
    built: BuiltAgent
    params: object  # a JAX pytree
    version: int  # optimiser steps behind the parameters


def load_run(path: Path) -> SavedRun:
    """Read the newest sound checkpoint of the run in `path`. The run may be going on.

    Raises:
        CheckpointError: There is no run, or none of its checkpoints is sound.
        ConfigError, PluginError, SpaceError: Its agent or network cannot be built here.
    """
    try:
        config = validate(RunConfig, saved_config(path), "")
    except ConfigError as error:
        raise CheckpointError(f"the configuration in {path} cannot be used: {error}", path=str(path)) from error
    checkpoint = CheckpointStore(path / CHECKPOINTS).newest()
    if checkpoint is None:
        raise CheckpointError(f"{path} never completed a save: there is no policy in it", path=str(path))
    form = checkpoint.state.get("environment")
    try:
        described = Description.from_json(form) if isinstance(form, dict) else None
    except (SpaceError, KeyError) as error:
        raise CheckpointError(f"the specs in {checkpoint.path} cannot be read", path=str(path)) from error
    if described is None:
        raise CheckpointError(f"{checkpoint.path} does not say what its environment is", path=str(path))
    built = build_agent(config.agent.section(), config.network.section(), described.spec)
    template = built.agent.init(jax.random.key(0)).params
    params = restore_arrays(template, subtree(checkpoint.arrays, "learner/params"), path=str(checkpoint.path))
    return SavedRun(config, described, built, jax.device_put(params), checkpoint.manifest.step)
