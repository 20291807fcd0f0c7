"""The measurement of a learner host, and the environments that play back what they are fed with."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aioseed.bench.host import HostResult, Reading, measure_host
from aioseed.bench.pipeline import Costs
from aioseed.bench.recorded import plugin
from aioseed.bench.train import bench_config
from aioseed.errors import ConfigError
from aioseed.testing.environment_kit import check_env
from aioseed.wire.columns import StepLayout

SMALL = [
    "network.hidden=[8]",
    "actor.processes=1",
    "actor.groups=2",
    "actor.envs_per_group=4",
    "experience.unroll_steps=8",
    "training.batch_unrolls=4",
    "serving.max_environments=8",
    "serving.max_batch_rows=8",
    "serving.buckets=[8]",
]
OPTIONS = {"of": "gymnasium", "steps": 9}


@pytest.mark.may_block("the environments that are recorded read files when imported")
async def test_a_host_without_sockets_yields_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioseed.bench.host.WARM_UP_S", 0.1)
    figures = (await measure_host(bench_config("cartpole", SMALL), 0.3)).figures()
    for name in ("acted_steps_per_s", "trained_steps_per_s", "updates_per_s", "act_share", "train_share"):
        assert figures[name] > 0, name  # type: ignore[operator]
    assert figures["batch_rows"] == 4
    assert set(figures["alone_ns"]) == {"act", "assembly", "train"}  # type: ignore[call-overload]
    json.dumps(figures)


def test_figures_are_of_the_time_between_two_readings() -> None:
    began = Reading(10.0, 1.0, 100, 10, 1.0, 2.0, 0.5, 50, 5, 3.0, 0.0)
    ended = Reading(14.0, 9.0, 900, 30, 2.0, 4.0, 1.5, 450, 25, 5.0, 1.0)
    figures = HostResult(40, Costs(1e-6, 2e-6, 3e-6), began, ended, None).figures()
    assert figures["acted_steps_per_s"] == 200.0 and figures["trained_steps_per_s"] == 100.0
    assert (figures["act_ms"], figures["update_ms"]) == (50.0, 100.0)
    shares = [figures[f"{name}_share"] for name in ("act", "assembly", "blocked", "train", "train_idle")]
    assert shares == [0.25, 0.25, 0.25, 0.5, 0.25]
    assert figures["cpu_s_per_million_steps"] == 10_000.0


def test_what_is_played_back_is_an_environment() -> None:
    check_env(lambda count: plugin.make("CartPole-v1", OPTIONS, count), steps=40)


def test_each_environment_plays_the_same_recording_from_a_place_of_its_own() -> None:
    played = plugin.make("CartPole-v1", OPTIONS, 3)
    columns = StepLayout(played.spec.observation, len(played.metrics)).allocate(3)
    played.reset(np.arange(3), [0, 1, 2], columns)
    seen: list[list[bytes]] = [[], [], []]
    for _ in range(24):
        played.step(np.zeros(3, np.int64), columns)
        for row in range(3):
            seen[row].append(columns.observation[0][row].tobytes())
    assert len(set(seen[0])) == 9
    assert set(seen[0]) == set(seen[1]) == set(seen[2])
    assert seen[0] != seen[1]


def test_a_wrong_option_names_its_path() -> None:
    with pytest.raises(ConfigError, match=r"environment\.options"):
        plugin.make("CartPole-v1", {"of": "gymnasium", "step": 9}, 1)
