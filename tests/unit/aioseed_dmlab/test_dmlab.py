"""DeepMind Lab through a stand-in of its documented interface."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from aioseed_dmlab import dmlab30, plugin
from aioseed_dmlab.lab import LevelCache
from aioseed_dmlab.levels import LEVELS, level_path
from aioseed_dmlab.options import ACTION_SET

from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.probe import describe
from aioseed.errors import ConfigError, PluginError
from aioseed.host.config import load_config
from aioseed.specs import ArraySpec, discrete
from aioseed.testing.environment_kit import check_env
from aioseed.types import FIRST, TERMINATED, EnvironmentSpec, KnowsSpecs, StepColumns

LEVEL = "explore_goal_locations_small"


def columns_of(env):
    leaf = env.spec.observation
    return StepColumns(
        *(np.zeros(env.count, dtype) for dtype in ("u4", "u8", "u4", "u1", "f4")),
        np.zeros((env.count, 0), np.float32),
        (np.zeros((env.count, *leaf.shape), leaf.dtype),),
    )


def test_the_kit_finds_nothing_wrong(lab):
    check_env(lambda count: plugin.make(LEVEL, {"width": 8, "height": 6}, count))


def test_the_published_settings_reach_the_engine(lab):
    env = plugin.make(LEVEL, {}, 1)
    (engine,) = lab.made
    assert engine.level == "contributed/dmlab30/explore_goal_locations_small"
    assert engine.config == {"width": "96", "height": "72", "logLevel": "WARN"}
    assert (engine.renderer, engine.level_cache) == ("software", None)
    assert env.spec == EnvironmentSpec(ArraySpec("uint8", (72, 96, 3)), discrete(9))


def test_every_action_is_legal_and_repeated_four_times(lab):
    env = plugin.make(LEVEL, {"width": 8, "height": 6}, 1)
    columns = columns_of(env)
    for action in range(9):
        env.reset(np.array([0]), [action], columns)
        env.step(np.array([action], np.int32), columns)
    assert lab.made[0].actions == [(list(numbers), 4) for numbers in ACTION_SET]


def test_an_episode_ends_with_the_last_picture_again_and_the_next_one_has_another_seed(lab):
    env = plugin.make(LEVEL, {"width": 8, "height": 6}, 1)
    columns = columns_of(env)
    env.reset(np.array([0]), [3], columns)
    rows = []
    for _ in range(4):
        env.step(np.array([0], np.int32), columns)
        rows.append((int(columns.flags[0]), float(columns.reward[0]), int(columns.observation[0][0, 0, 0, 0])))
    assert [row[:2] for row in rows] == [(0, 4.0), (0, 4.0), (TERMINATED, 2.0), (FIRST, 0.0)]
    assert rows[2][2] == rows[1][2]
    first, second = lab.made[0].seeds
    assert first != second
    env.reset(np.array([0]), [3], columns)
    assert lab.made[0].seeds[2] == first


def test_held_out_variants_are_played_with_their_own_seed(lab):
    plugin.make("rooms_collect_good_objects_train", {"test": True, "settings": {"skymazeSize": "3"}}, 1)
    (engine,) = lab.made
    assert engine.level == "contributed/dmlab30/rooms_collect_good_objects_test"
    assert engine.config["allowHoldOutLevels"] == "true"
    assert engine.config["mixerSeed"] == str(0x600D5EED)
    assert engine.config["skymazeSize"] == "3"


def test_paths_of_a_machine_are_no_part_of_the_task(lab, tmp_path):
    local = {"level_cache_dir": str(tmp_path), "dataset_path": "/data", "renderer": "hardware", "max_rebuilds": 0}
    assert plugin.task(LEVEL, local) == plugin.task(LEVEL, {})
    assert plugin.task(LEVEL, {"action_repeat": 1}) != plugin.task(LEVEL, {})
    plugin.make(LEVEL, local, 1)
    assert isinstance(lab.made[0].level_cache, LevelCache)
    assert lab.made[0].config["datasetPath"] == "/data"


def test_a_level_cache_gives_back_what_it_was_given(tmp_path):
    cache = LevelCache(tmp_path / "cache")
    map_file, copy = tmp_path / "made.pk3", tmp_path / "copy.pk3"
    map_file.write_bytes(b"a map")
    assert not cache.fetch("key", str(copy))
    cache.write("key", str(map_file))
    assert cache.fetch("key", str(copy))
    assert copy.read_bytes() == b"a map"
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1


def test_without_the_engine_specs_are_known_and_making_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepmind_lab", None)
    assert isinstance(plugin, KnowsSpecs)
    described = describe(EnvironmentConfig(plugin="dmlab", name=LEVEL))
    assert described.spec.observation == ArraySpec("uint8", (72, 96, 3))
    with pytest.raises(PluginError, match="not on PyPI: build it with Bazel"):
        plugin.make(LEVEL, {}, 1)


def test_a_level_that_is_none_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match='did you mean "rooms_watermaze"'):
        plugin.specs("rooms_watermaz", {})
    assert level_path("tests/empty_room_test", test=True) == "tests/empty_room_test"


def test_the_suite_has_the_thirty_levels_and_its_settings_are_settings():
    assert len(dmlab30.tasks) == len(LEVELS) == 30
    assert dmlab30.capped
    for task in dmlab30.tasks:
        config = load_config("dmlab", task.overrides)
        assert config.environment.name == task.name
    tuned = next(task for task in dmlab30.tasks if task.name == "rooms_watermaze")
    assert load_config("dmlab", tuned.overrides).agent.section()["entropy_cost"] == 1e-5
