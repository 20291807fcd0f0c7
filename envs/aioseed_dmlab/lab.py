"""One level of DeepMind Lab behind `aioseed.stepping.SingleEnvironment`."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from aioseed.errors import PluginError
from aioseed.stepping import Leaves, Outcome
from aioseed_dmlab.levels import level_path
from aioseed_dmlab.options import ACTION_SET, DmlabOptions

_PICTURE = "RGB_INTERLEAVED"
_TEST_MIXER_SEED = "1611489005"  # 0x600D5EED: the documented seed of held-out variants
_REMEDY = (
    "DeepMind Lab is not on PyPI: build it with Bazel from github.com/google-deepmind/lab (docs/users/build.md and "
    "python/pip_package there say how) and install the wheel where the actors run"
)


class Engine(Protocol):
    """The part of ``deepmind_lab.Lab`` that is used here, as its documentation describes it."""

    def reset(self, *, seed: int) -> object:
        """Begin an episode."""

    def observations(self) -> dict[str, np.ndarray]:
        """Return the newest observations. Raises once the episode has ended."""

    def step(self, action: np.ndarray, *, num_steps: int) -> float:
        """Take int32[7] for so many frames, or to the end of the episode, and return the sum of rewards."""

    def is_running(self) -> bool:
        """Say whether the episode goes on."""

    def close(self) -> object:
        """Free the engine."""


class Level:
    """Play one level, episode after episode.

    The engine has no observation once an episode has ended: the last one is repeated, and the episode terminates.
    """

    def __init__(self, engine: Engine, action_repeat: int) -> None:
        self._engine = engine
        self._action_repeat = action_repeat
        self._actions = np.array(ACTION_SET, np.intc)
        self._random = np.random.default_rng()
        self._picture: Leaves = ()

    def reset(self, seed: int | None) -> Leaves:
        """Begin an episode; each has a seed of its own, drawn from the stream that `seed` began."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self._engine.reset(seed=int(self._random.integers(2**31 - 1)))
        self._picture = self._look()
        return self._picture

    def step(self, action: np.ndarray) -> Outcome:
        """Take one of the nine actions for as many frames as the preset says."""
        reward = self._engine.step(self._actions[int(action)], num_steps=self._action_repeat)
        running = self._engine.is_running()
        if running:
            self._picture = self._look()
        return Outcome(self._picture, float(reward), not running, False)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _look(self) -> Leaves:
        # The engine may hand out its own buffer.
        return (np.array(self._engine.observations()[_PICTURE], copy=True),)


class LevelCache:
    """Keep compiled maps in a folder: the two methods that the engine asks of a level cache.

    Several actors may share a folder: a map is put there under another name first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fetch(self, key: str, pk3_path: str) -> bool:
        """Copy the map of `key` to `pk3_path` and say whether there is one."""
        try:
            shutil.copyfile(self._path(key), pk3_path)
        except FileNotFoundError:
            return False
        return True

    def write(self, key: str, pk3_path: str) -> None:
        """Keep the map at `pk3_path`."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent)
        os.close(handle)
        shutil.copyfile(pk3_path, unfinished)
        Path(unfinished).replace(path)

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / digest[:3] / digest[3:]


def engine_config(options: DmlabOptions) -> dict[str, str]:
    """Return the settings of the engine, all of them texts."""
    config = {"width": str(options.width), "height": str(options.height), "logLevel": "WARN"}
    if options.dataset_path:
        config["datasetPath"] = options.dataset_path
    if options.test:
        config |= {"allowHoldOutLevels": "true", "mixerSeed": _TEST_MIXER_SEED}
    return {**config, **options.settings}


def lab_builder(name: str, options: DmlabOptions) -> Callable[[], Level]:
    """Return a function that makes one environment of a level.

    Raises:
        PluginError: deepmind_lab cannot be imported.
    """
    try:
        lab = importlib.import_module("deepmind_lab")
    except ImportError as error:
        message = f"deepmind_lab cannot be imported ({error}). {_REMEDY}"
        raise PluginError(message, group="aioseed.envs", name="dmlab") from error
    cache = LevelCache(Path(options.level_cache_dir)) if options.level_cache_dir else None

    def build() -> Level:
        engine = lab.Lab(
            level_path(name, test=options.test),
            [_PICTURE],
            config=engine_config(options),
            renderer=options.renderer,
            level_cache=cache,
        )
        return Level(cast("Engine", engine), options.action_repeat)

    return build
