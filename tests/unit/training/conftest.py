"""A regression in the place of an agent, a source in the place of experience, and files that fail where told."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.agents.agent import Agent, LearnerState, LossOutput, Unroll
from aioseed.specs import ArraySpec, discrete, spec_leaves
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Account, Ledger, Reason
from aioseed.training.config import CheckpointConfig, OptimizerConfig, TrainingConfig
from aioseed.training.device import Placement
from aioseed.training.files import Files
from aioseed.training.loop import TrainingLoop, TrainingPorts
from aioseed.training.optimizer import make_optimizer
from aioseed.training.publish import PolicyBoard, compile_copy
from aioseed.training.update import TrainState, Update, UpdateProgram, compile_update, init_state
from aioseed.types import EnvironmentSpec, Settled, UnrollBatch, UnrollColumns, UnrollIdentity, UnrollLayout

STEPS = 3
HERE = Placement((jax.devices()[0],))
ENVIRONMENT = EnvironmentSpec({"speed": ArraySpec("float32", ()), "place": ArraySpec("float32", (2,))}, discrete(2))
LAYOUT = UnrollLayout(
    observation=spec_leaves(ENVIRONMENT.observation),
    action=ENVIRONMENT.action.array,
    extras=(ArraySpec("float32", (2,)), ArraySpec("int32", ())),
    state=(ArraySpec("float32", (4,)),),
    unroll_steps=STEPS,
    overlap_steps=0,
)
EXTRAS = {"a": ArraySpec("float32", (2,)), "b": ArraySpec("int32", ())}


def regression_loss(params: Any, extra: Any, unroll: Unroll, keys: jax.Array) -> LossOutput:
    """Predict the reward of the next row from the observation; steps that lead to a FIRST row do not count.

    An error has noise of its unroll's key.
    """
    predicted = unroll.observation["place"] @ params["place"] + unroll.observation["speed"] * params["speed"]
    predicted = predicted + unroll.extras["a"][..., 0] * params["bias"] + unroll.initial_state["memory"][None, :, 0]
    noise = jax.vmap(lambda key: jax.random.normal(key, (STEPS,)), out_axes=1)(keys)
    errors = predicted[:-1] - unroll.reward[1:] + 0.1 * noise
    valid = (unroll.flags[1:] & 1) == 0
    squares = jnp.where(valid, errors**2, 0.0)
    metrics = {"absolute_error": jnp.abs(jnp.where(valid, errors, 0.0)).sum()}
    return LossOutput(
        squares.sum() / 2, valid.sum(dtype=jnp.float32), metrics, {"error": squares.sum(0), "squares": squares.T}
    )


def make_agent() -> Agent:
    """Return the regression; its target is the same arrays as its parameters at first, and follows in steps 2, 5, 8."""

    def init(key: jax.Array) -> LearnerState:
        params = {"place": jax.random.normal(key, (2,)), "speed": jnp.float32(0.5), "bias": jnp.float32(0.1)}
        return LearnerState(params, {"target": params})

    def after_update(state: LearnerState, step: jax.Array) -> LearnerState:
        follow = step % 3 == 2
        target = jax.tree.map(lambda new, old: jnp.where(follow, new, old), state.params, state.extra["target"])
        return LearnerState(state.params, {"target": target})

    return Agent(
        init=init,
        initial_state=lambda: {"memory": jnp.zeros(4)},
        act=lambda params, key, state, rows, greedy: (_ for _ in ()).throw(AssertionError("training never acts")),
        loss=regression_loss,
        after_update=after_update,
        extras=lambda: EXTRAS,
        overlap_steps=0,
    )


def make_columns(seed: int, unrolls: int) -> UnrollColumns:
    rng = np.random.default_rng(seed)

    def rows(spec: ArraySpec) -> np.ndarray:
        return np.asarray(rng.normal(size=(STEPS + 1, unrolls, *spec.shape))).astype(spec.dtype)

    return UnrollColumns(
        observation=tuple(rows(spec) for spec in LAYOUT.observation),
        reward=rows(ArraySpec("float32", ())),
        flags=(rng.random((STEPS + 1, unrolls)) < 0.2).astype(np.uint8),
        previous_action=rows(LAYOUT.action),
        action=rows(LAYOUT.action),
        policy_version=np.zeros((STEPS + 1, unrolls), np.int32),
        extras=tuple(rows(spec) for spec in LAYOUT.extras),
        initial_state=tuple(rng.normal(size=(unrolls, *spec.shape)).astype(spec.dtype) for spec in LAYOUT.state),
        importance=np.ones(unrolls, np.float32),
    )


def make_batch(seed: int, unrolls: int) -> UnrollBatch:
    columns = make_columns(seed, unrolls)
    transitions = (columns.flags[1:] == 0).sum(0).astype(np.int32)
    numbers = np.arange(unrolls, dtype=np.uint32)
    return UnrollBatch(columns, UnrollIdentity(numbers, numbers.astype(np.uint64), numbers, transitions), unrolls)


def poisoned(batch: UnrollBatch) -> UnrollBatch:
    """Return the batch with a reward that makes every loss NaN."""
    batch.columns.reward[1:] = np.nan
    batch.columns.flags[...] = 0
    batch.identity.transitions[...] = STEPS
    return batch


def compiled(config: TrainingConfig) -> UpdateProgram:
    """Return the program of a configuration; those that differ only in what the loop does share one."""
    if config.optimizer.schedule.kind == "constant":
        config = config.model_copy(
            update={"total_steps": None, "max_nonfinite_updates": 10, "checkpoint": CheckpointConfig()}
        )
    return _compiled(config)


@cache
def _compiled(config: TrainingConfig) -> UpdateProgram:
    agent = make_agent()
    optimizer = make_optimizer(config, STEPS)
    update = Update(agent, optimizer, ENVIRONMENT.observation, config)
    return compile_update(update, fresh_state(config), LAYOUT, config, HERE)


def fresh_state(config: TrainingConfig, seed: int = 0) -> TrainState:
    return init_state(make_agent(), make_optimizer(config, STEPS), jax.random.key(seed), HERE)


class Source:
    """Hands out batches and checks that each comes back once (an `UnrollSource`)."""

    def __init__(self, batches: Sequence[UnrollBatch], ledger: Ledger) -> None:
        self.waiting = deque(batches)
        self.lent: list[UnrollBatch] = []
        self.returned: list[UnrollBatch] = []
        self.priorities: list[np.ndarray | None] = []
        self.ledger = ledger
        total = sum(int(batch.identity.transitions.sum()) for batch in batches)
        ledger.accept(total)
        ledger.finish(total)

    def take(self, timeout_s: float) -> UnrollBatch | None:
        if not self.waiting:
            return None
        self.lent.append(self.waiting.popleft())
        self.ledger.begin_training(int(self.lent[-1].identity.transitions.sum()))
        return self.lent[-1]

    def settle(self, batch: UnrollBatch, finite: np.ndarray | None, priorities: np.ndarray | None) -> Settled:
        self.priorities.append(priorities)
        if finite is None:
            self.ledger.drop(int(batch.identity.transitions.sum()), Reason.SHUTDOWN, Account.TRAINING)
            return Settled(0, 0)
        by_step = batch.identity.transitions.reshape(len(finite), -1).sum(axis=1)
        trained, skipped = int(by_step[finite].sum()), int(by_step[~finite].sum())
        self.ledger.consume(trained)
        self.ledger.drop(skipped, Reason.NONFINITE_UPDATE, Account.TRAINING)
        return Settled(trained, skipped)

    def give_back(self, batch: UnrollBatch) -> None:
        self.lent = [lent for lent in self.lent if lent is not batch]
        assert not any(batch is earlier for earlier in self.returned)
        self.returned.append(batch)

    @property
    def ready(self) -> int:
        return len(self.waiting)


class Road:
    """A loop with all that it talks to."""

    def __init__(self, config: TrainingConfig, batches: Sequence[UnrollBatch], **options: Any) -> None:
        self.config = config
        self.ledger = Ledger()
        self.metrics = Metrics()
        self.source = Source(batches, self.ledger)
        self.saved: list[Any] = []
        self.reports: list[Any] = []
        state = options.pop("state", None) or fresh_state(config)
        program = options.pop("program", None) or compiled(config)
        copy = compile_copy(state.learner.params, jax.devices()[0])
        progress = options.get("progress")
        self.board = PolicyBoard(copy, state.learner.params, progress.version if progress else 0)
        save = options.pop("save", None) or self.saved.append
        ports = TrainingPorts(
            self.source, self.board, self.ledger, self.metrics, save, self.reports.append, lambda: {"seed": 7}
        )
        chosen = {name: options.pop(name) for name in ("goal_reached", "published", "save_replay") if name in options}
        ports = ports._replace(**chosen)
        self.loop = TrainingLoop(program, state, ports, config, report_every_s=0.0, **options)


class Kit:
    """What the tests of this folder share."""

    environment, layout, steps, here = ENVIRONMENT, LAYOUT, STEPS, HERE
    agent = staticmethod(make_agent)
    columns = staticmethod(make_columns)
    batch = staticmethod(make_batch)
    poisoned = staticmethod(poisoned)
    program = staticmethod(compiled)
    state = staticmethod(fresh_state)
    road = Road
    loss = staticmethod(regression_loss)

    @staticmethod
    def config(**values: Any) -> TrainingConfig:
        values.setdefault("batch_unrolls", 4)
        values.setdefault("optimizer", OptimizerConfig(learning_rate=0.05, clip_norm=1.0))
        values.setdefault("checkpoint", CheckpointConfig(every_s=None))
        return TrainingConfig(**values)


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


class Killed(BaseException):
    """The process died here."""


class FaultyFiles(Files):
    """Counts operations; at operation `fail_at` it writes half of what it was to write and raises `error`."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.names: list[str] = []
        self.fail_at = fail_at
        self.error = error or Killed()

    @property
    def calls(self) -> int:
        return len(self.names)

    def _fails(self, name: str) -> bool:
        self.names.append(name)
        return self.calls == self.fail_at

    def make_directory(self, path: Path) -> None:
        if self._fails("make_directory"):
            raise self.error
        super().make_directory(path)

    def write(self, path: Path, data: bytes) -> None:
        if self._fails("write"):
            path.write_bytes(data[: len(data) // 2])
            raise self.error
        super().write(path, data)

    def sync(self, descriptor: int) -> None:
        if self._fails("sync"):
            raise self.error
        super().sync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        if self._fails("rename"):
            raise self.error
        super().rename(old, new)

    def remove_tree(self, path: Path) -> None:
        if self._fails("remove_tree"):
            # Half removed: the first file is gone.
            next(entry for entry in sorted(path.iterdir())).unlink()
            raise self.error
        shutil.rmtree(path)


@pytest.fixture
def faulty_files() -> type[FaultyFiles]:
    return FaultyFiles


@pytest.fixture
def killed() -> type[Killed]:
    return Killed
