"""Dealing episodes: what is measured does not depend on how long an episode takes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from aioseed.errors import EnvironmentFailed, TrainingFailed, UsageError
from aioseed.host.config import RunConfig
from aioseed.host.evaluate import (
    NOBODY_S,
    TELL_EVERY_S,
    EpisodeDealer,
    Evaluation,
    FixedPolicy,
    _end,
    _local_actors,
    _result,
    _until_done,
    evaluate,
    tell_how_far,
    tell_of_nobody,
)
from aioseed.presets import read
from aioseed.specs import ArraySpec
from aioseed.telemetry.returns import EpisodeTracker
from aioseed.types import FIRST, TERMINATED, ActColumns, CopiedRows, Policy, StepColumns
from aioseed.wire.columns import StepLayout

LAYOUT = StepLayout(ArraySpec("float32", (1,)), 0)
CARTPOLE = RunConfig.model_validate(read("cartpole"))
NO_ACTS = ActColumns(np.zeros(0), np.zeros(0), (), 0)


class Game:
    """Environments whose episodes give 1 a step and end with a probability of 1/mean at each."""

    def __init__(self, environments: int, mean: float, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.mean = mean
        self.rows = LAYOUT.allocate(environments)
        self.rows.slot[:] = np.arange(environments)
        self.over = np.ones(environments, bool)

    def step(self) -> StepColumns:
        ends = self.random.random(self.over.size) < 1 / self.mean
        self.rows.flags[:] = np.where(self.over, FIRST, np.where(ends, TERMINATED, 0))
        self.rows.reward[:] = np.where(self.over, 0.0, 1.0)
        self.over = ~self.over & ends
        return self.rows


def measured(episodes: int, environments: int, mean: float, seed: int) -> list[float]:
    done: list[bool] = []
    dealer = EpisodeDealer(episodes, environments, EpisodeTracker(environments), lambda: done.append(True))
    game = Game(environments, mean, seed)
    while not done:
        dealer.append(game.step(), NO_ACTS, environments, lambda rows: (), CopiedRows(environments))
    assert len(dealer.returns) == episodes and done == [True]
    assert dealer.lengths_steps == [int(value) for value in dealer.returns]
    return dealer.returns


def first_to_finish(episodes: int, environments: int, mean: float, seed: int) -> list[float]:
    game, tracker, returns = Game(environments, mean, seed), EpisodeTracker(environments), []
    while len(returns) < episodes:
        returns += tracker.append(game.step(), environments).episode_return.tolist()
    return returns[:episodes]


@pytest.mark.parametrize(("episodes", "environments"), [(100, 100), (100, 64), (100, 7)])
def test_the_mean_is_that_of_all_episodes_and_not_of_those_that_end_first(episodes: int, environments: int) -> None:
    """Lengths are geometric with a mean of 50; the error of the mean of 20 x 100 of them is about 1.1."""
    means = [np.mean(measured(episodes, environments, 50.0, seed)) for seed in range(20)]
    assert np.mean(means) == pytest.approx(50.0, abs=4.0)
    biased = [np.mean(first_to_finish(episodes, environments, 50.0, seed)) for seed in range(20)]
    assert environments < episodes / 2 or np.mean(biased) < 42.0


def rows(*row: tuple[int, int, float]) -> StepColumns:
    columns = LAYOUT.allocate(len(row))
    for index, (slot, flags, reward) in enumerate(row):
        columns.slot[index], columns.flags[index], columns.reward[index] = slot, flags, reward
    return columns


def play(dealer: EpisodeDealer, *batches: tuple[tuple[int, int, float], ...]) -> None:
    for batch in batches:
        dealer.append(rows(*batch), NO_ACTS, len(batch), lambda rows: (), CopiedRows(len(batch)))


@pytest.fixture
def done() -> list[bool]:
    return []


@pytest.fixture
def dealer(done: list[bool]) -> EpisodeDealer:
    return EpisodeDealer(2, 4, EpisodeTracker(4), lambda: done.append(True))


def test_no_more_episodes_are_dealt_than_wanted(dealer: EpisodeDealer, done: list[bool]) -> None:
    play(dealer, ((0, FIRST, 0), (1, FIRST, 0), (2, FIRST, 0)), ((2, TERMINATED, 9), (0, TERMINATED, 1)))
    assert dealer.returns == [1.0] and not done
    play(dealer, ((1, 0, 1), (0, FIRST, 0)), ((0, TERMINATED, 5),), ((1, TERMINATED, 1),))
    assert dealer.returns == [1.0, 2.0] and done == [True]


def test_an_episode_of_a_lost_environment_is_dealt_again(dealer: EpisodeDealer, done: list[bool]) -> None:
    play(dealer, ((0, FIRST, 0), (1, FIRST, 0)), ((0, 0, 1), (1, 0, 1)))
    dealer.drop(np.array([0]), "lease_ended")
    dealer.begin(np.array([0]), evaluation=True)
    play(dealer, ((1, TERMINATED, 1), (0, FIRST, 0)), ((0, TERMINATED, 7),))
    assert dealer.returns == [2.0, 7.0] and done == [True]


def test_an_episode_of_an_environment_that_is_lost_for_good_goes_to_another(
    dealer: EpisodeDealer, done: list[bool]
) -> None:
    play(dealer, ((0, FIRST, 0), (1, FIRST, 0)), ((0, 0, 1), (1, 0, 1)))
    dealer.drop(np.array([0]), "lease_ended")
    play(dealer, ((1, TERMINATED, 1),), ((1, FIRST, 0),), ((1, TERMINATED, 5),))
    assert dealer.returns == [2.0, 5.0] and done == [True]
    play(dealer, ((1, FIRST, 0),), ((1, TERMINATED, 9),))
    assert dealer.returns == [2.0, 5.0] and done == [True]  # told once


def test_rows_are_given_back_as_soon_as_they_are_seen(dealer: EpisodeDealer) -> None:
    class Lent(CopiedRows):
        releases = 0

        def release(self) -> None:
            Lent.releases += 1

    dealer.append(rows((0, FIRST, 0)), NO_ACTS, 1, lambda rows: (), Lent(1))
    assert Lent.releases == 1


def test_an_episode_in_which_an_environment_broke_is_dealt_again(dealer: EpisodeDealer, done: list[bool]) -> None:
    play(dealer, ((0, FIRST, 0),), ((0, 0, 3),), ((0, FIRST, 0),), ((0, TERMINATED, 4),))
    assert dealer.returns == [4.0] and not done
    play(dealer, ((0, FIRST, 0),), ((0, TERMINATED, 5),))
    assert dealer.returns == [4.0, 5.0] and done == [True]


def test_an_episode_in_which_an_environment_broke_may_go_to_another(dealer: EpisodeDealer, done: list[bool]) -> None:
    play(dealer, ((0, FIRST, 0), (1, FIRST, 0), (2, FIRST, 0)), ((0, 0, 1), (1, 0, 1), (2, TERMINATED, 9)))
    play(dealer, ((2, FIRST, 0), (0, FIRST, 0), (1, 0, 1)), ((2, TERMINATED, 6), (0, TERMINATED, 9)))
    assert dealer.returns == [6.0] and not done
    play(dealer, ((1, TERMINATED, 1),))
    assert dealer.returns == [6.0, 3.0] and done == [True]


def test_an_environment_that_was_rebuilt_before_its_first_step_is_dealt_one_episode(
    dealer: EpisodeDealer, done: list[bool]
) -> None:
    play(dealer, ((0, FIRST, 0),), ((0, FIRST, 0),), ((0, TERMINATED, 4),), ((0, FIRST, 0),), ((0, TERMINATED, 5),))
    assert dealer.returns == [4.0, 5.0] and done == [True]


def test_one_policy_is_offered_for_ever() -> None:
    policy = FixedPolicy(Policy(7, None))
    assert policy.current().version == 7
    assert policy.wait_for(7, 0.0) and not policy.wait_for(8, 0.0)


@pytest.mark.parametrize(("fails", "said"), [("load_run", "loaded"), ("SlotTable", "compiled")])
def test_a_device_that_fails_at_the_start_is_a_failure_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fails: str, said: str
) -> None:
    def fail(*_: object) -> None:
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: 9 bytes")

    described = SimpleNamespace(spec=SimpleNamespace(observation=ArraySpec("float32", (1,))), metrics=())
    run = SimpleNamespace(config=CARTPOLE, run_dir=tmp_path, described=described, built=described)
    monkeypatch.setattr("aioseed.host.evaluate.prepare", lambda cache: None)
    monkeypatch.setattr("aioseed.host.evaluate.load_run", lambda path: run)
    monkeypatch.setattr(f"aioseed.host.evaluate.{fails}", fail)
    with pytest.raises(TrainingFailed, match=f"^the policy cannot be {said}: a device ran out of memory"):
        asyncio.run(evaluate(tmp_path, episodes=1))


@pytest.mark.virtual_time
async def test_that_nobody_steps_is_told_once_each_time() -> None:
    server, told = SimpleNamespace(environments=0), []
    telling = asyncio.create_task(tell_of_nobody(server, lambda trouble: told.append(trouble.message)))

    async def looks(count: int, environments: int) -> int:
        server.environments = environments
        await asyncio.sleep(NOBODY_S * count)
        return len(told)

    assert await looks(1, 0) == 0  # actors are being started
    assert await looks(9, 0) == 1
    assert await looks(9, 4) == 1
    assert [await looks(1, 0), await looks(1, 4)] == [1, 1]  # one goes, one comes
    assert await looks(9, 0) == 2
    assert "no environment is connected" in told[1]
    telling.cancel()


@pytest.mark.virtual_time
async def test_how_far_it_is_is_told_again_and_again_of_the_episodes_that_are_measured(dealer: EpisodeDealer) -> None:
    told: list[tuple[int, ...]] = []
    telling = asyncio.create_task(tell_how_far(dealer, lambda progress: told.append(tuple(progress))))
    await asyncio.sleep(TELL_EVERY_S + 1)
    play(dealer, ((0, FIRST, 0), (1, FIRST, 0)), ((2, FIRST, 0), (0, 0, 1)), ((2, 0, 1), (0, 0, 1)), ((2, 0, 1),))
    play(dealer, ((2, 0, 1), (1, TERMINATED, 1)))  # slot 2 steps longest, and is not measured
    await asyncio.sleep(TELL_EVERY_S)
    assert told == [(0, 2, 0), (1, 2, 2)]
    telling.cancel()


def test_the_report_is_of_the_episodes_that_were_wanted_and_of_no_other() -> None:
    dealer = EpisodeDealer(3, 4, EpisodeTracker(4), lambda: None)
    dealer.returns, dealer.lengths_steps = [1.0, 3.0, 8.0, 999.0], [2, 4, 3, 999]  # one ended with the last
    report = _result(dealer, 3, 7)
    assert report == Evaluation(4.0, pytest.approx(np.sqrt(26 / 3)), 3, 3.0, 7)


@pytest.mark.parametrize(("episodes", "processes"), [(1, 1), (8, 1), (12, 1), (24, 3), (1000, 4)])
def test_no_more_local_processes_step_than_there_are_episodes_for(episodes: int, processes: int) -> None:
    config = CARTPOLE.model_copy(
        update={"actor": CARTPOLE.actor.model_copy(update={"processes": 4, "groups": 2, "envs_per_group": 4})}
    )
    listeners = SimpleNamespace(urls=("ws://127.0.0.1:1", "grpc://127.0.0.1:2"), token=None)
    made = Mock()
    with patch("aioseed.host.evaluate.LocalActors", made):
        _local_actors(config, listeners, episodes, print)  # type: ignore[arg-type]
    fewer, url, _, _, role = made.call_args.args
    assert (fewer.actor.processes, fewer.actor.groups, fewer.actor.envs_per_group) == (processes, 2, 4)
    assert (url, role) == ("ws://127.0.0.1:1", "evaluate")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def failing(error: Exception) -> None:
    raise error


async def test_it_is_over_when_every_episode_has_ended_and_who_steps_is_told_to_end() -> None:
    outcome = asyncio.get_running_loop().create_future()
    beside = asyncio.create_task(for_ever())
    cancelled: list[bool] = []

    async def steps() -> None:
        try:
            await for_ever()
        finally:
            cancelled.append(True)

    waiting = asyncio.create_task(_until_done(outcome, (beside,), steps()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    _end(outcome, None)
    _end(outcome, OSError("too late"))
    await waiting
    assert cancelled == [True] and not beside.done()
    beside.cancel()


async def test_what_keeps_it_from_ending_is_raised() -> None:
    async def until(
        error: Exception | None = None, beside: asyncio.Task[None] | None = None, steps: Any = None
    ) -> None:
        outcome = asyncio.get_running_loop().create_future()
        if error is not None:
            _end(outcome, error)
        await _until_done(outcome, () if beside is None else (beside,), steps or for_ever())

    watch = asyncio.create_task(failing(UsageError("a token file")))
    with pytest.raises(UsageError, match="a token file"):
        await until(beside=watch)
    with pytest.raises(EnvironmentFailed, match="no process"):
        await until(steps=failing(EnvironmentFailed("no process could be started")))
    with pytest.raises(EnvironmentFailed, match="ended before the evaluation was over"):
        await until(steps=asyncio.sleep(0))
    ours, foreign = EnvironmentFailed("not finite"), ValueError("9 bytes")
    ours.__cause__ = foreign
    with pytest.raises(EnvironmentFailed) as caught:
        await until(ours)
    assert caught.value is ours and ours.__cause__ is foreign
    with pytest.raises(TrainingFailed, match=r"^inference failed: .*9 bytes") as failed:
        await until(foreign)
    assert failed.value.__cause__ is foreign


def test_inference_is_never_held_up_by_a_dealer(dealer: EpisodeDealer) -> None:
    assert dealer.has_room(np.arange(4)) and dealer.batches_finished == 0
