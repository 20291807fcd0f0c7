"""The training measurement: how its figures follow from what a run reports, and that a real run yields them."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest

from aioseed.bench.stages import StageCosts
from aioseed.bench.train import WARM_UP_S, Span, _Follower, bench_config, measure_training
from aioseed.errors import AioseedError, ConfigError
from aioseed.host.events import Progress
from aioseed.telemetry.verdict import RunShares, explain

TINY = [
    "network.hidden=[8]",
    "actor.processes=1",
    "actor.groups=2",
    "actor.envs_per_group=4",
    "experience.unroll_steps=8",
    "training.batch_unrolls=8",
    "serving.max_environments=8",
    "serving.max_batch_rows=8",
    "serving.buckets=[8]",
    "transport.name=memory",
]


CALM = RunShares(
    environments=8,
    training_busy=0.1,
    inference_busy=0.2,
    inference_blocked=0.0,
    loop_busy=0.1,
    action_latency_ms=1.0,
    cycle_ms=5.0,
    round_trip_ms=0.5,
    stepping_share=0.5,
)


def report(wall_s: float, steps: int, dropped: int = 0, **more: object) -> Progress:
    values = dict.fromkeys(Progress._fields, 0)
    filled = {"env_steps": steps, "trained_steps": steps - 10, "dropped": {"nonfinite": dropped}, "wall_s": wall_s}
    return Progress(**{**values, **filled, "shares": CALM, **more})  # type: ignore[arg-type]


def test_rates_and_shares_are_of_the_span_between_two_reports() -> None:
    before, after = {"training/idle_ready_s": 1.0}, {"training/idle_ready_s": 1.5}
    span = Span((report(2.0, 100, 1), report(4.0, 300, 5)), before, after)
    assert span.seconds == 2.0
    assert span.per_s("env_steps") == 100.0
    assert span.share_of_time("training/idle_ready_s") == 0.25
    assert span.dropped_share() == 4 / 200


def test_medians_and_verdict_are_of_all_the_time_and_not_of_its_last_report() -> None:
    reports = (
        report(2.0, 100, policy_lag=900.0, action_latency_ms=900.0, shares=CALM._replace(inference_busy=1.0)),
        report(4.0, 200, policy_lag=5.0, action_latency_ms=3.0, shares=CALM._replace(training_busy=1.0)),
        report(5.0, 300, policy_lag=6.0, action_latency_ms=math.nan, shares=CALM._replace(training_busy=0.7)),
        report(
            6.0,
            400,
            policy_lag=70.0,
            action_latency_ms=5.0,
            shares=CALM._replace(environments=16, training_busy=0.6, round_trip_ms=0.75),
        ),
    )
    span = Span(reports, {}, {})
    assert span.median("policy_lag") == 6.0
    whole = span.shares()
    assert whole.training_busy == pytest.approx((2 * 1.0 + 0.7 + 0.6) / 4)
    assert whole.inference_busy == pytest.approx(0.2)
    assert (whole.environments, whole.action_latency_ms, whole.round_trip_ms) == (16, 4.0, 0.75)
    assert whole.cycle_ms == pytest.approx(1000 * 16 / 75)
    assert explain(whole).startswith("learner-bound: 82 % busy; actors wait 4 ms")


def test_a_median_without_any_number_is_none() -> None:
    span = Span((report(2.0, 100), report(4.0, 200, action_latency_ms=math.nan)), {}, {})
    assert math.isnan(span.median("action_latency_ms"))


def test_the_limit_is_the_cores_divided_by_all_costs() -> None:
    costs = StageCosts(1e-6, 2e-6, 3e-6, 4e-6)
    assert costs.limit_steps_per_s(2) == pytest.approx(200_000)
    assert costs.figures() == {"environment_ns": 1000, "act_ns": 2000, "assembly_ns": 3000, "train_ns": 4000}


def test_the_span_begins_after_the_warm_up(tmp_path: Path) -> None:
    follower = _Follower(1.0)
    for event in (report(0.5, 20), report(WARM_UP_S, 40), report(WARM_UP_S + 1, 90)):
        follower(event)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "x": step}) + "\n" for step in (10, 30, 80)))
    span = follower.span(path)
    assert (span.began.env_steps, span.ended.env_steps) == (40, 90)
    assert (span.began_values["x"], span.ended_values["x"]) == (30, 80)


def test_a_run_that_ends_at_once_was_not_measured(tmp_path: Path) -> None:
    follower = _Follower(1.0)
    follower(report(WARM_UP_S + 1, 20))
    with pytest.raises(AioseedError):
        follower.span(tmp_path / "metrics.jsonl")


def test_the_measured_run_has_no_end_of_its_own() -> None:
    config = bench_config("cartpole", ["stop.return_mean=100", "training.total_steps=5"])
    assert config.stop.return_mean is None
    assert config.training.total_steps is not None and config.training.total_steps > 1e9  # schedules need a length
    assert not config.telemetry.tensorboard
    with pytest.raises(ConfigError):
        bench_config("cartpole", ["actor.wings=2"])


@pytest.mark.may_block("the environments of the memory transport run in this process and read files when imported")
async def test_a_real_run_yields_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioseed.bench.train.WARM_UP_S", 0.2)
    # More environments than the queue has room for unrolls: they fill at once, which once stopped the stages for good.
    config = bench_config("cartpole", [*TINY, "training.batch_unrolls=1", "experience.queue_batches=1"])
    result = await measure_training(config, 0.5, asyncio.Event(), stages_s=0.2)
    figures = result.figures()
    for name in ("env_steps_per_s", "trained_steps_per_s", "share_of_limit", "limit_steps_per_s"):
        assert figures[name] > 0, name  # type: ignore[operator]
    assert set(figures["stages"]) == {"environment_ns", "act_ns", "assembly_ns", "train_ns"}  # type: ignore[call-overload]
    assert all(cost > 0 for cost in figures["stages"].values())  # type: ignore[attr-defined]
    assert figures["dropped_share"] == 0
    assert figures["ledger_imbalance"] == 0
    json.dumps(figures)
