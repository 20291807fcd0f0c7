from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aioseed.experience.queue import QueueStatistics
from aioseed.host.statistics import Statistics, digest_of, progress_values
from aioseed.serving.session import Afar
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Account, Ledger, Reason
from aioseed.training.progress import TrainingReport


@pytest.fixture
def runtime() -> Any:
    queue = QueueStatistics(*([0] * len(QueueStatistics._fields)))
    return SimpleNamespace(
        ledger=Ledger(),
        loop=SimpleNamespace(busy_s=0.0, summary=lambda: SimpleNamespace(busy_s=0.0)),
        engine=SimpleNamespace(times=SimpleNamespace(act_s=0.0, append_s=0.0)),
        assembler=SimpleNamespace(statistics=lambda: queue),
        table=SimpleNamespace(leased=8),
        episodes=SimpleNamespace(
            return_mean=20.0, evaluation_return_mean=30.0, episodes=3, metric_means={"score": 0.5}
        ),
        board=SimpleNamespace(current=lambda: SimpleNamespace(version=12)),
    )


def train(ledger: Ledger, accepted: int, consumed: int) -> None:
    ledger.accept(accepted)
    ledger.finish(consumed)
    ledger.begin_training(consumed)
    ledger.consume(consumed)


def test_rates_and_quantiles_are_over_the_time_since_the_report_before(runtime: Any, small: Any) -> None:
    metrics = Metrics()
    train(runtime.ledger, 500, 400)  # by an earlier start of the run
    statistics = Statistics(small("training.total_steps=4000"), runtime, metrics, 10.0)
    train(runtime.ledger, 1000, 800)
    metrics.quantiles("serving/batch_rows").observe_many(np.full(9, 64.0))
    first = statistics.progress(12.0, None, 2)
    assert (first.env_steps, first.trained_steps, first.held_steps) == (1500, 1200, 300)
    assert (first.env_steps_per_s, first.trained_steps_per_s) == (500.0, 400.0)
    assert first.batch_rows == pytest.approx(64.0, rel=0.05)
    assert (first.wall_s, first.share_done, first.environments, first.actors) == (2.0, 0.3, 8, 2)
    metrics.quantiles("serving/batch_rows").observe_many(np.full(9, 8.0))
    second = statistics.progress(13.0, None, 2)
    assert (second.env_steps_per_s, second.trained_steps_per_s) == (0.0, 0.0)
    assert second.batch_rows == pytest.approx(8.0, rel=0.05)


def test_without_an_end_there_is_no_share(runtime: Any, small: Any) -> None:
    assert Statistics(small(), runtime, Metrics(), 0.0).progress(1.0, None, 0).share_done is None


def test_sinks_get_the_ledger_with_its_reasons_and_its_formula_holds(runtime: Any, small: Any) -> None:
    ledger = runtime.ledger
    train(ledger, 100, 50)
    ledger.accept(0, evaluated=7)
    ledger.drop(2, Reason.LEASE_ENDED, Account.OPEN)
    ledger.finish(30)
    ledger.begin_training(20)
    ledger.remember(11)
    ledger.consume(4, Account.REPLAY)
    ledger.lose_after_checkpoint(3)
    progress = Statistics(small(), runtime, Metrics(), 0.0).progress(1.0, None, 0)
    values = progress_values(progress)
    assert (values["ledger/accepted"], values["ledger/consumed"], values["ledger/evaluated"]) == (107, 54, 7)
    assert (values["ledger/replay"], values["ledger/held"], values["ledger/lost_after_checkpoint"]) == (7, 44, 3)
    dropped = {name: value for name, value in values.items() if name.startswith("ledger/dropped_")}
    assert dropped == {"ledger/dropped_lease_ended": 2}
    held = values["ledger/held"]
    assert values["ledger/accepted"] == values["ledger/consumed"] + values["ledger/evaluated"] + held + 2
    assert values["environment/score"] == 0.5


def test_what_training_reports_stands_beside_what_environments_tell(runtime: Any, small: Any) -> None:
    statistics = Statistics(small(), runtime, Metrics(), 0.0)
    assert (statistics.progress(1.0, None, 0).policy_lag, statistics.progress(2.0, None, 0).metrics) == (
        0.0,
        {"environment/score": 0.5},
    )
    report = TrainingReport(12, 400, 0, {"loss/total": 1.5}, 3.0, 9.0, 1.0, 0.0, 0.0)
    told = statistics.progress(3.0, report, 0)
    assert (told.policy_lag, told.metrics) == (3.0, {"loss/total": 1.5, "environment/score": 0.5})


def test_shares_and_latency_are_over_the_time_since_the_report_before(runtime: Any, small: Any) -> None:
    def stand(training_s: float, act_s: float, append_s: float, blocked_s: float) -> None:
        runtime.loop.summary = lambda: SimpleNamespace(busy_s=training_s)
        runtime.engine.times = SimpleNamespace(act_s=act_s, append_s=append_s)
        runtime.assembler.statistics = lambda: QueueStatistics(0, 0, 0, 0, 1, blocked_s)

    metrics = Metrics()
    latency = metrics.quantiles("serving/action_latency_ms", low=1e-3, high=1e5)
    latency.observe_many(np.full(99, 700.0))
    stand(3.0, 2.0, 1.0, 0.5)
    statistics = Statistics(small(), runtime, metrics, 0.0)
    stand(7.0, 4.0, 3.0, 1.5)
    latency.observe_many(np.full(9, 0.02))
    progress = statistics.progress(10.0, None, 0)
    shares = progress.shares
    assert shares[1:4] == pytest.approx((0.4, 0.3, 0.1))
    assert shares.action_latency_ms == progress.action_latency_ms == pytest.approx(0.02, rel=0.1)


def test_no_more_than_all_is_done(runtime: Any, small: Any) -> None:
    statistics = Statistics(small("training.total_steps=1000"), runtime, Metrics(), 0.0)
    train(runtime.ledger, 1100, 1064)  # the last batch goes beyond
    assert statistics.progress(1.0, None, 0).share_done == 1.0


def test_the_digest_depends_on_names_dtypes_shapes_and_bytes_and_on_nothing_else() -> None:
    arrays = {"b": np.arange(6, dtype=np.int32).reshape(2, 3), "a": np.ones(2)}
    digest = digest_of(arrays)
    assert digest == digest_of({"a": arrays["a"], "b": np.asfortranarray(arrays["b"])})
    changed = [
        {**arrays, "c": np.ones(1)},
        {"a": arrays["a"], "c": arrays["b"]},
        {**arrays, "b": arrays["b"].reshape(3, 2)},
        {**arrays, "b": arrays["b"].view(np.uint32)},
        {**arrays, "a": np.nextafter(arrays["a"], 2)},
    ]
    assert len({digest, *map(digest_of, changed)}) == 6


def test_the_way_to_the_actors_stands_beside_the_time_between_two_steps(runtime: Any, small: Any) -> None:
    statistics = Statistics(small(), runtime, Metrics(), 0.0)
    train(runtime.ledger, 100, 0)
    far = statistics.progress(10.0, None, 2, Afar(600.0, math.nan))  # 8 environments make 10 steps a second
    assert (far.shares.cycle_ms, far.shares.round_trip_ms) == (800.0, 600.0)
    assert far.verdict.startswith("distance-bound: of the 800 ms")
    idle = statistics.progress(11.0, None, 2, Afar(600.0, math.nan))
    assert math.isnan(idle.shares.cycle_ms) and idle.verdict.startswith("actor-bound")


def test_inference_is_busy_with_acting_and_with_unrolls_but_not_while_it_waits(runtime: Any, small: Any) -> None:
    statistics = Statistics(small(), runtime, Metrics(), 0.0)
    runtime.engine.times.act_s, runtime.engine.times.append_s = 5.0, 4.0
    runtime.assembler.statistics = lambda: QueueStatistics(0, 0, 0, 0, blocked=1, blocked_s=0.4)
    assert statistics.progress(10.0, None, 2).verdict.startswith("inference-bound: 86 % busy")


def test_the_loop_is_busy_with_what_its_thread_takes_of_a_processor(
    runtime: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_s = iter([1.0, 9.5])
    monkeypatch.setattr("aioseed.host.statistics.time.thread_time", lambda: next(taken_s))
    statistics = Statistics(small(), runtime, Metrics(), 0.0)
    assert statistics.progress(10.0, None, 2).verdict.startswith("network-bound: the event loop is 85 % busy")
