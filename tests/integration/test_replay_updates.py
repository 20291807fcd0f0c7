"""Updates from a restored replay are those that followed the save, bit for bit: same draws, weights and priorities."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from aioseed.agents.r2d2 import R2d2Config
from aioseed.agents.r2d2 import agent as r2d2
from aioseed.host.acting import BuiltAgent, layout_of
from aioseed.host.config import RunConfig
from aioseed.host.experience import Experience, build_experience
from aioseed.nets.mlp import mlp
from aioseed.specs import ArraySpec, discrete
from aioseed.telemetry.counters import Metrics
from aioseed.training.device import Placement, owned
from aioseed.training.loop import TrainingLoop, TrainingPorts
from aioseed.training.optimizer import make_optimizer
from aioseed.training.progress import Progress
from aioseed.training.publish import PolicyBoard, compile_copy
from aioseed.training.store import Checkpoint, CheckpointStore
from aioseed.training.trees import restore_arrays
from aioseed.training.update import Update, UpdateProgram, compile_update, init_state
from aioseed.types import FIRST, ActColumns, CopiedRows, EnvironmentSpec, StepColumns
from aioseed.validation import validate

SLOTS, MINIMUM = 4, 24
SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(2))
FORM = {
    "environment": {"name": "none"},
    "serving": {"max_environments": SLOTS, "max_batch_rows": SLOTS, "buckets": [SLOTS]},
    "experience": {"unroll_steps": 3},
    "replay": {"capacity_unrolls": 40, "min_unrolls": MINIMUM, "samples_per_insert": None, "insert_unrolls": 8},
    "training": {"batch_unrolls": 4, "updates_per_call": 2, "checkpoint": {"replay": True}},
}
CONFIG = validate(RunConfig, FORM, "")
OPTIONS = R2d2Config(burn_in_steps=2, n_steps=2, target_update_every=3)


class Road:
    """What a learner has between its queue and its checkpoints, without anything that serves."""

    def __init__(self, built: BuiltAgent, program: UpdateProgram | None, restored: Checkpoint | None) -> None:
        layout, device = layout_of(built, 3), jax.devices()[0]
        self.experience: Experience = build_experience(CONFIG, built, layout, restored, Metrics(), device, device)
        optimizer = make_optimizer(CONFIG.training, 3)
        here = Placement((device,))
        state, progress = init_state(built.agent, optimizer, jax.random.key(0), here), Progress()
        if program is None:
            update = Update(built.agent, optimizer, SPEC.observation, CONFIG.training)
            program = compile_update(update, state, layout, CONFIG.training, here)
        if restored is not None:
            arrays = {name: array for name, array in restored.arrays.items() if not name.startswith("replay/")}
            state = owned(restore_arrays(state, arrays), here)
            progress = Progress.from_json(restored.state["training"])
        self.program = program
        board = PolicyBoard(compile_copy(state.learner.params, device), state.learner.params, progress.version)
        ports = TrainingPorts(self.experience.source, board, self.experience.ledger, Metrics())
        ports = ports._replace(save_replay=self.experience.save_replay)
        self.loop = TrainingLoop(program, state, ports, CONFIG.training, progress=progress)

    def fill(self) -> None:
        """Bring as many unrolls in as sampling waits for; the last ones are inserted by the first step."""
        generator, assembler = np.random.default_rng(0), self.experience.assembler
        assembler.begin(np.arange(SLOTS), evaluation=False)
        sequence = 0
        while assembler.batches_finished < MINIMUM // 8:
            assembler.append(*rows(generator, sequence), SLOTS, lambda which: [], CopiedRows(SLOTS))
            sequence += 1
            if assembler.batches_finished < MINIMUM // 8:
                assert self.experience.source.take(0.0) is None

    def steps(self, count: int) -> None:
        assert all(self.loop.step(0.0) for _ in range(count))


def rows(generator: np.random.Generator, sequence: int) -> tuple[StepColumns, ActColumns]:
    first = (generator.random(SLOTS) < 0.2) | (sequence == 0)
    steps = StepColumns(
        slot=np.arange(SLOTS, dtype=np.uint32),
        epoch=np.ones(SLOTS, np.uint64),
        sequence=np.full(SLOTS, sequence, np.uint32),
        flags=np.where(first, FIRST, 0).astype(np.uint8),
        reward=generator.normal(size=SLOTS).astype(np.float32),
        metrics=np.zeros((SLOTS, 0), np.float32),
        observation=(generator.normal(size=(SLOTS, 3)).astype(np.float32),),
    )
    action, before = generator.integers(0, 2, (2, SLOTS)).astype(np.int32)
    return steps, ActColumns(action, before, (generator.normal(size=(SLOTS, 2)).astype(np.float32),), 0)


@pytest.mark.timeout(120)
def test_updates_after_a_restore_are_those_that_followed_the_save(tmp_path: Path) -> None:
    built = BuiltAgent(r2d2.build(OPTIONS, SPEC, partial(mlp, hidden=(4,))), SPEC)
    road, store = Road(built, None, None), CheckpointStore(tmp_path)
    road.fill()
    road.steps(3)
    saved = road.loop.snapshot()
    store.save(saved, 1)
    saved.release(True)
    restored = store.newest()
    assert restored is not None
    other = Road(built, road.program, restored)
    for each in (road, other):
        each.steps(5)
    one, two = road.loop.snapshot(), other.loop.snapshot()
    assert one.arrays.keys() == two.arrays.keys() and any(name.startswith("replay/") for name in one.arrays)
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, two.arrays[name], err_msg=name)
    assert one.state["replay"] == two.state["replay"] and one.state["training"] == two.state["training"]
    assert any(not np.array_equal(array, saved.arrays[name]) for name, array in one.arrays.items())
