"""The worlds of the extras, in their real engines: each preset's environment keeps the rules and learns its specs.

A world that is missing is told with the extra that brings it; that is tried in a process that finds none of them.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from aioseed_gymnasium import plugin

from aioseed import presets
from aioseed.actor.config import EnvironmentConfig
from aioseed.host.config import load_config
from aioseed.presets import list_presets
from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec, discrete, multi_discrete
from aioseed.testing.environment_kit import check_env
from aioseed.validation import validate

SIX_NUMBERS = ActionSpec("box", ArraySpec("float32", (6,)), low=(-1.0,) * 6, high=(1.0,) * 6)
WORLDS: dict[str, tuple[ObservationSpec, ActionSpec]] = {
    "acrobot": (ArraySpec("float32", (6,)), discrete(3)),
    "halfcheetah-vtrace": (ArraySpec("float32", (17,)), SIX_NUMBERS),
    "minigrid-memory": ({"direction": ArraySpec("int8", (4,)), "image": ArraySpec("int8", (7, 7, 21))}, discrete(3)),
    "vizdoom-basic": (ArraySpec("uint8", (30, 40, 3)), discrete(4)),
}

MISSING = """
import importlib.abc, json, sys

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("minigrid", "mujoco", "vizdoom"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
from aioseed import plugins, presets
from aioseed.errors import PluginError

said = {}
for preset in ("minigrid-memory", "halfcheetah-vtrace", "vizdoom-basic"):
    section = presets.read(preset)["environment"]
    try:
        plugins.environment_plugin("gymnasium").make(section["name"], section["options"], 1)
    except PluginError as error:
        said[error.extra] = str(error)
print(json.dumps(said))
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Return a function that makes environments of a preset, in an empty folder: engines write into the current one."""
    monkeypatch.chdir(tmp_path)

    def make(preset: str, count: int):
        section = validate(EnvironmentConfig, presets.read(preset)["environment"], "environment")
        return plugin.make(section.name, section.options, count)

    return make


@pytest.mark.parametrize("preset", WORLDS)
def test_the_environment_of_a_preset_has_the_specs_that_its_network_is_made_for(preset, world):
    made = world(preset, 1)
    try:
        assert (made.spec.observation, made.spec.action) == WORLDS[preset]
    finally:
        made.close()


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore::aioseed.testing.environment_kit.EnvironmentKitWarning")
@pytest.mark.parametrize("preset", ["minigrid-memory", "halfcheetah-vtrace"])
def test_the_environment_of_a_preset_keeps_the_rules_of_the_kit(preset, world):
    check_env(lambda count: world(preset, count), steps=20)


@pytest.mark.timeout(180)
def test_doom_shows_a_screen_that_changes_with_what_is_done(world, group):
    run = group(world("vizdoom-basic", 1))
    try:
        run.reset()
        before = run.columns.observation[0].copy()
        for _ in range(3):
            run.step(1)
        assert before.std() > 0 and not np.array_equal(before, run.columns.observation[0])
        assert run.rewards == [-13.0]  # eight tics, and a shot that missed
    finally:
        run.env.close()


def test_half_cheetah_may_choose_among_values():
    wrappers = [{"name": "discretize_actions", "kwargs": {"choices": 11, "spacing": "log", "ratio": 30}}]
    made = plugin.make("HalfCheetah-v5", {"wrappers": wrappers}, 1)
    made.close()
    assert made.spec.action == multi_discrete([11] * 6)


def test_a_world_that_is_not_installed_is_told_with_its_extra():
    done = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert sorted(said) == ["minigrid", "mujoco", "vizdoom"]
    for extra, sentence in said.items():
        assert sentence.endswith(f'; pip install "aioseed[{extra}]"') and "\n" not in sentence


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets()])
def test_a_preset_is_a_whole_configuration(preset):
    assert load_config(preset).stop.episodes > 0
