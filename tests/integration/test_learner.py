"""Whole runs inside one process: a learner, actors over in-memory channels, real CartPole, real training."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from aioseed import load_policy, run_actor
from aioseed.errors import (
    CheckpointError,
    ConfigError,
    RefusedError,
    RunDirectoryInUse,
    SpaceError,
    TrainingFailed,
    UsageError,
)
from aioseed.host.config import RunConfig
from aioseed.host.doctor import imbalance
from aioseed.host.events import Finished, Listening, Progress, Ready
from aioseed.host.learner import Learner
from aioseed.host.listen import Listeners
from aioseed.host.rundir import open_run
from aioseed.host.train import train
from aioseed.plugins import environment_plugin
from aioseed.presets import apply_overrides, read
from aioseed.training.loop import TrainingLoop
from aioseed.transport.channel import DialOptions
from aioseed.transport.memory import MemoryTransport
from aioseed.types import BatchEnvironment, StepColumns
from aioseed.validation import validate

pytestmark = [pytest.mark.timeout(120)]

SMALL = [
    "transport.name=memory",
    "actor.processes=1",
    "actor.groups=2",
    "actor.envs_per_group=4",
    "serving.max_environments=32",
    "serving.max_batch_rows=16",
    "serving.buckets=[16]",
    "experience.unroll_steps=8",
    "training.batch_unrolls=8",
    "network={name: mlp, hidden: [16]}",
    "stop.return_mean=null",
    "telemetry.every_s=0.2",
    "telemetry.tensorboard=false",
]


CARTPOLE = read("cartpole")


def small(*overrides: str) -> RunConfig:
    return validate(RunConfig, apply_overrides(CARTPOLE, [*SMALL, *overrides]), "")


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def config_of(run_dir: Path) -> bytes:
    return (run_dir / "config.json").read_bytes()


async def test_lockstep_gives_the_same_parameters_run_after_run(tmp_path: Path) -> None:
    config = small("mode=lockstep", "training.total_steps=2000")
    results = [await train(config, run_dir=tmp_path / name) for name in "ab"]
    assert results[0].params_sha256 == results[1].params_sha256
    assert results[0].trained_steps == results[1].trained_steps >= 2000
    other = await train(small("mode=lockstep", "training.total_steps=2000", "seed=1"), run_dir=tmp_path / "c")
    assert other.params_sha256 != results[0].params_sha256


async def test_every_accepted_step_is_accounted_for(tmp_path: Path) -> None:
    events: list[object] = []
    result = await train(small("training.total_steps=4000"), run_dir=tmp_path / "run", on_event=events.append)
    assert result.imbalance == 0
    assert result.held_steps == 0
    assert result.env_steps == result.trained_steps + sum(result.dropped.values())
    assert isinstance(events[0], Listening)
    assert any(isinstance(event, Ready) for event in events)
    assert isinstance(events[-1], Finished)
    assert set(result.dropped) <= {"shutdown", "partial_unroll"}


async def test_a_run_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    first = await train(small("training.total_steps=2000"), run_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds a run already"):
        await train(small(), run_dir=tmp_path / "run")
    figures = tmp_path / "run" / "metrics.jsonl"
    so_far = len(figures.read_text().splitlines())
    events: list[object] = []
    more = small("training.total_steps=4000")
    second = await train(more, run_dir=tmp_path / "run", resume="auto", on_event=events.append)
    (ready,) = (event for event in events if isinstance(event, Ready))
    assert "training.total_steps is 4000 (was 2000)" in ready.notes[0]
    assert second.trained_steps >= 4000 > first.trained_steps
    assert second.imbalance == 0
    # Readers see from where on the figures go on: the next report may be beyond the last one from before.
    began = json.loads(figures.read_text().splitlines()[so_far])
    assert (began["step"], began["ledger/accepted"]) == (first.trained_steps, first.env_steps)
    before = config_of(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"this configuration needs float32\[8, 2\]"):
        await train(small("network={name: mlp, hidden: [8]}"), run_dir=tmp_path / "run", resume="auto")
    assert config_of(tmp_path / "run") == before
    policy = await asyncio.to_thread(load_policy, tmp_path / "run")
    assert policy.version > 0
    assert int(await asyncio.to_thread(policy, np.zeros(4))) in (0, 1)


async def test_resuming_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        await train(small(), run_dir=tmp_path / "none", resume="require")


async def test_a_checkpoint_that_does_not_fit_is_told_with_what_was_changed(tmp_path: Path) -> None:
    await train(small("training.total_steps=500"), run_dir=tmp_path / "run")
    changed = r"'learner/.*; configured otherwise than before: network.hidden is \[8\] \(was \[16\]\)"
    with pytest.raises(CheckpointError, match=changed):
        await train(small("network={name: mlp, hidden: [8]}"), run_dir=tmp_path / "run", resume="require")


async def test_resuming_equals_not_having_stopped_twice(tmp_path: Path) -> None:
    """Two resumes of one checkpoint are bit-equal in lockstep mode."""
    await train(small("mode=lockstep", "training.total_steps=1000"), run_dir=tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    again = [
        await train(small("mode=lockstep", "training.total_steps=2000"), run_dir=tmp_path / name, resume="auto")
        for name in ("run", "copy")
    ]
    assert again[0].params_sha256 == again[1].params_sha256


async def test_observations_that_no_message_carries_are_told_before_anything_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed.host.learner.build_runtime", None)
    spec = (
        "{observation: {dtype: float32, shape: [300]}, action: {kind: discrete, dtype: int32, shape: [], sizes: [2]}}"
    )
    config = small(f"environment={{plugin: described, name: far, options: {spec}}}", "transport.max_message_bytes=1024")
    with pytest.raises(
        ConfigError, match=r"one step .* is 1,248 bytes, and messages carry 1,024: .* or raise transport"
    ):
        async with Learner(
            config, listen=["memory://x"], run_dir=tmp_path / "run", transports=[MemoryTransport()]
        ) as learner:
            await learner.wait()
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("override", "error"), [("environment.name=CartPol-v1", ConfigError), ("agent={name: sac}", SpaceError)]
)
async def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path, override: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await train(small(override), run_dir=tmp_path / "runs" / "run")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("fails", "error", "said"),
    [
        ("compile_update", JaxRuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), "9 bytes.*smaller training.micro_unrolls"),
        ("InferenceEngine.compile", JaxRuntimeError("INTERNAL: no compiler"), "JaxRuntimeError: INTERNAL: no compiler"),
        (
            "build_experience",
            MemoryError("Unable to allocate 3 TiB"),
            "too little memory .*3 TiB.*smaller serving.max_env",
        ),
    ],
)
async def test_a_device_that_fails_at_the_start_is_a_failure_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, error: Exception, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"aioseed.host.runtime.{fails}", fail)
    with pytest.raises(TrainingFailed, match=f"^the learner cannot be built: .*{said}"):
        await train(small(), run_dir=tmp_path / "run")
    assert left_in(tmp_path) == []


async def test_stopping_during_the_start_ends_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    stop = asyncio.Event()

    def interrupt(event: object) -> None:
        if isinstance(event, Listening):
            stop.set()

    finished = await train(small(), run_dir=tmp_path / "runs" / "run", stop=stop, on_event=interrupt)
    assert (finished.reason, finished.saved, finished.solved) == ("stopped", False, False)
    assert left_in(tmp_path) == []


def test_one_address_instead_of_a_list_is_not_taken_apart() -> None:
    with pytest.raises(UsageError, match="expected a list of addresses"):
        Learner(small(), listen="ws://127.0.0.1:0")


async def test_one_learner_a_run_directory(tmp_path: Path) -> None:
    memory = MemoryTransport()
    async with Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run", transports=[memory]):
        with pytest.raises(RunDirectoryInUse):
            async with Learner(small(), listen=["memory://b"], run_dir=tmp_path / "run", resume="auto"):
                pass


async def test_a_learner_is_entered_once_and_ends_all_the_same(tmp_path: Path) -> None:
    learner = Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run", transports=[MemoryTransport()])
    await learner.__aenter__()
    (second,) = await asyncio.gather(learner.__aenter__(), return_exceptions=True)
    leaving = asyncio.ensure_future(learner.__aexit__(None, None, None))
    ended, _ = await asyncio.wait({leaving}, timeout=10.0)
    assert ended, "the learner listens to the event of the second entering"
    assert isinstance(second, UsageError)
    assert "entered once: make another one" in str(second)


async def test_an_actor_with_other_specs_is_refused_with_the_field(tmp_path: Path) -> None:
    memory = MemoryTransport()
    async with Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run", transports=[memory]) as learner:
        from aioseed import EnvironmentConfig

        with pytest.raises(RefusedError) as caught:
            await run_actor(
                learner.urls[0],
                EnvironmentConfig(name="Acrobot-v1"),
                environments=2,
                groups=1,
                transport=memory,
                wait_s=60.0,
            )
        assert caught.value.field.startswith("observation")
        assert caught.value.ours != caught.value.theirs


class Poisoned:
    """Pass a batch of environments on, but for the numbers of row 1: every 7th of them is no number."""

    def __init__(self, inner: BatchEnvironment) -> None:
        self._inner = inner
        self._steps = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def step(self, actions: np.ndarray, columns: StepColumns) -> None:
        self._inner.step(actions, columns)
        self._steps += 1
        if self._steps % 7 == 0:
            columns.observation[0][1, 2] = np.nan


async def test_what_is_not_finite_costs_one_environment_its_episode_and_nobody_else_anything(tmp_path: Path) -> None:
    memory = MemoryTransport()
    config = small("training.total_steps=3000")

    def poisoned(count: int) -> BatchEnvironment:
        made = environment_plugin("gymnasium").make("CartPole-v1", {}, count)
        return cast("BatchEnvironment", Poisoned(made))

    run_dir = tmp_path / "run"
    async with Learner(config, listen=["memory://a"], run_dir=run_dir, transports=[memory]) as learner:
        url = learner.urls[0]
        actor = asyncio.create_task(run_actor(url, poisoned, environments=4, groups=1, transport=memory, wait_s=60.0))
        async for event in learner.events():
            finished = event
        await actor
    assert isinstance(finished, Finished) and finished.imbalance == 0
    assert 0 < finished.return_episodes <= 100
    assert finished.trained_steps >= 3000
    # Of the 7 steps at a time that row 1 takes all are dropped; an unroll of 8 steps is never full.
    assert 3000 / 3 / 2 < finished.dropped["nonfinite"] < 3000
    assert "nonfinite_update" not in finished.dropped  # no update saw any of it


async def test_leaving_early_saves_and_a_cancelled_consumer_ends_the_run(tmp_path: Path) -> None:
    memory = MemoryTransport()

    async def watch() -> None:
        async with Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run", transports=[memory]) as learner:
            async for event in learner.events():
                if isinstance(event, Progress):
                    seen.set()

    seen = asyncio.Event()
    task = asyncio.create_task(watch())
    await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert "run/env_steps" in json.dumps(json.loads(lines[-1]))


async def test_a_cancellation_while_the_learner_leaves_costs_no_checkpoint(tmp_path: Path) -> None:
    memory = MemoryTransport()

    async def leave() -> None:
        async with Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run", transports=[memory]) as learner:
            async for event in learner.events():
                if isinstance(event, Ready):
                    break
            await memory.dial(learner.urls[0], DialOptions())  # somebody who says nothing: leaving takes a while
            asyncio.get_running_loop().call_soon(task.cancel)

    task = asyncio.create_task(leave())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name == "aioseed-inference"]


def test_a_loop_that_ends_with_every_task_cancelled_saves_all_the_same(tmp_path: Path) -> None:
    config = small("transport.name=websocket")

    async def in_the_background(seen: asyncio.Event) -> None:
        async with Learner(config, run_dir=tmp_path / "run") as learner:
            url, token = learner.urls[0], learner.token
            actor = run_actor(url, config.environment, environments=4, groups=1, token=token, wait_s=60.0)
            background.append(asyncio.create_task(actor))
            async for event in learner.events():
                if isinstance(event, Progress) and event.trained_steps > 0:
                    seen.set()

    async def forgetful() -> None:
        seen = asyncio.Event()
        background.append(asyncio.create_task(in_the_background(seen)))
        await seen.wait()

    background: list[asyncio.Task[object]] = []
    asyncio.run(forgetful())  # which cancels the run's own tasks too, all at once
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["run/env_steps"] > 0 and imbalance(last) == 0


async def test_a_device_that_fails_at_the_last_save_is_a_failure_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(loop: TrainingLoop) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(TrainingLoop, "snapshot", fail)
    with pytest.raises(TrainingFailed, match="RuntimeError: the device is gone"):
        async with Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run") as learner:
            async for event in learner.events():
                if isinstance(event, Ready):
                    break


async def test_a_watch_over_tokens_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(listeners: Listeners) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(Listeners, "_keep_tokens", fail)
    with pytest.raises(TrainingFailed, match=r"^the learner failed: RuntimeError: can't start new thread$"):
        async with Learner(small(), listen=["ws://127.0.0.1:0"], run_dir=tmp_path / "run") as learner:
            async with asyncio.timeout(60.0):
                async for _ in learner.events():
                    pass


async def test_a_cancellation_while_the_run_directory_is_opened_leaves_it_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slowly(*args: object) -> object:
        loop.call_soon_threadsafe(opening.set)
        go_on.wait()
        return open_run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("aioseed.host.learner.open_run", slowly)
    task = asyncio.create_task(Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run").__aenter__())
    await opening.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_in(tmp_path) == []


async def test_cancelled_again_while_what_was_opened_is_let_go_of_a_learner_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, closing = asyncio.Event(), asyncio.Event()

    async def open_for_ever(*args: object) -> None:
        opening.set()
        await asyncio.Event().wait()

    async def close_slowly(*args: object) -> None:
        closing.set()
        await asyncio.sleep(0.01)

    monkeypatch.setattr("aioseed.host.learner.Listeners.open", open_for_ever)
    monkeypatch.setattr("aioseed.host.learner.Listeners.close", close_slowly)
    task = asyncio.create_task(Learner(small(), listen=["memory://a"], run_dir=tmp_path / "run").__aenter__())
    for reached in (opening, closing):
        await reached.wait()
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_in(tmp_path) == []


def test_box_actions_travel_and_are_trained_on(tmp_path: Path) -> None:
    config = small(
        "environment.name=Pendulum-v1", "agent.action.squash=clip", "network.name=lstm", "training.total_steps=1000"
    )
    result = asyncio.run(train(config, run_dir=tmp_path / "run"))
    assert (result.imbalance, result.held_steps) == (0, 0) and result.trained_steps >= 1000
    action = load_policy(tmp_path / "run")([1.0, 0.0, 0.0])
    assert np.shape(action) == (1,) and -2 <= float(action[0]) <= 2
