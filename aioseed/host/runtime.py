"""Build everything that a run consists of, once the specs are known.

This is the one place where the rooms meet: experience, serving and training know one another only through the ports in
`aioseed.types`. Building compiles, so it happens in a thread of its own while actors wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from aioseed.experience.assembler import UnrollAssembler
from aioseed.experience.layout import aligned_zeros
from aioseed.host.acting import acting_of, build_agent, layout_of
from aioseed.host.config import RunConfig
from aioseed.host.experience import build_experience
from aioseed.host.goal import Goal
from aioseed.host.page_locked import page_locked
from aioseed.host.sink import RunSink
from aioseed.host.threads import begun
from aioseed.serving.handshake import Contract
from aioseed.serving.inference import EngineOptions, InferenceEngine, action_table
from aioseed.serving.intake import ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.slots import SlotTable
from aioseed.specs import Json
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Ledger
from aioseed.telemetry.returns import EpisodeTracker
from aioseed.training.device import devices_may_fail, find_device, find_devices, owned
from aioseed.training.loop import TrainingLoop, TrainingPorts
from aioseed.training.optimizer import Optimizer, make_optimizer
from aioseed.training.progress import Progress, TrainingReport
from aioseed.training.publish import PolicyBoard, compile_copy
from aioseed.training.store import Checkpoint, Snapshot
from aioseed.training.trees import restore_arrays
from aioseed.training.update import Update, compile_update, init_state
from aioseed.types import Episodes, UnrollSource
from aioseed.wire.columns import ActionLayout, StepLayout


@dataclass(frozen=True, slots=True)
class Hooks:
    """Name whom the rooms call; each returns at once."""

    submit: Callable[[ClosedBatch], None]  # event loop: a batch has closed
    expel: Callable[[np.ndarray, np.ndarray], None]  # inference thread: slots, epochs that sent what is not finite
    answer: Callable[[ClosedBatch, bytes, int], None]  # inference thread: actions are on the host
    episodes: Callable[[Episodes], None]  # inference thread: episodes ended
    updated: Callable[[TrainingReport], None]  # training thread
    save: Callable[[Snapshot], None]  # training thread: a checkpoint is due
    run_state: Callable[[], dict[str, Json]]  # training thread: what else the checkpoint holds


@dataclass(frozen=True, slots=True)
class Runtime:
    """Hold the parts of a run that is ready to start."""

    contract: Contract
    table: SlotTable
    intake: Intake
    engine: InferenceEngine
    board: PolicyBoard
    ledger: Ledger
    episodes: EpisodeTracker
    assembler: UnrollAssembler
    source: UnrollSource
    goal: Goal
    loop: TrainingLoop
    notes: tuple[str, ...]  # what a user should know before it begins


@devices_may_fail("the learner cannot be built")
def build_runtime(
    config: RunConfig, contract: Contract, generation: int, restored: Checkpoint | None, metrics: Metrics, hooks: Hooks
) -> Runtime:
    """Build and compile. Thread: any one; the parts are handed to their threads afterwards.

    Args:
        restored: The checkpoint that the run goes on from, or None for a fresh one.

    Raises:
        ConfigError, PluginError, SpaceError: The configuration cannot be built for these specs.
        CheckpointError: The checkpoint does not fit the configuration.
        TrainingFailed: A device failed, or memory does not suffice.
    """
    transforms = [section.section() for section in config.transforms]
    built = build_agent(config.agent.section(), config.network.section(), contract.spec, transforms)
    layout = layout_of(built, config.experience.unroll_steps)
    lockstep_rows = config.local_environments if config.mode == "lockstep" else 0
    placement = find_devices(config.training.devices)
    inference_device = find_device(config.serving.device, "serving.device")

    optimizer = optimizer_of(config)
    state = init_state(built.agent, optimizer, jax.random.key(config.seed), placement)
    progress = Progress()
    if restored is not None:
        arrays = {name: array for name, array in restored.arrays.items() if not name.startswith("replay/")}
        state = owned(restore_arrays(state, arrays, path=str(restored.path)), placement)
        progress = Progress.from_json(_section(restored, "training"))
    update = Update(built.agent, optimizer, contract.spec.observation, config.training)
    # The longest compilation beside all the others: XLA lets go of the interpreter's lock while it compiles.
    program = begun("aioseed-compile", lambda: compile_update(update, state, layout, config.training, placement))
    published = built.agent.published(state.learner)
    board = PolicyBoard(compile_copy(published, inference_device), published, progress.version)

    slots = config.serving.max_environments
    experience = build_experience(config, built, layout, restored, metrics, inference_device, placement.devices[0])
    assembler, ledger = experience.assembler, experience.ledger
    episodes = EpisodeTracker(slots, contract.metrics, window_episodes=config.stop.episodes)
    source, goal = experience.source, Goal(episodes, config.stop)
    table = SlotTable(slots, generation)
    steps = StepLayout(contract.spec.observation, len(contract.metrics))
    actions = action_table(slots, contract.spec.action.array)
    # Aligned, a CPU reads them where they are.
    zeros = page_locked(inference_device, aligned_zeros) if config.experience.page_locked else aligned_zeros
    limits = Limits(
        config.serving.max_batch_rows,
        config.serving.max_batches_in_flight,
        config.serving.batch_deadline_s,
        lockstep_rows,
    )
    intake = Intake(
        steps,
        ActionLayout(contract.spec.action),
        table,
        actions,
        limits,
        hooks.submit,
        zeros,
        at_once=zeros is not aligned_zeros,
    )
    options = EngineOptions(
        slots,
        (lockstep_rows,) if lockstep_rows else config.serving.bucket_sizes(),
        config.seed,
        experience.versions_after if lockstep_rows else None,
    )
    engine = InferenceEngine(
        acting_of(built, greedy="evaluating"),
        contract.spec.action.array,
        steps,
        board,
        actions,
        RunSink(episodes, assembler, hooks.episodes),
        hooks.expel,
        hooks.answer,
        options,
        inference_device,
    )
    engine.compile()
    ports = TrainingPorts(source, board, ledger, metrics, hooks.save, hooks.updated, hooks.run_state, goal.reached)
    ports = ports._replace(published=built.agent.published)
    if experience.save_replay is not None:
        ports = ports._replace(save_replay=experience.save_replay)
    loop = TrainingLoop(program.result(), state, ports, config.training, progress=progress)
    notes = experience.notes
    return Runtime(contract, table, intake, engine, board, ledger, episodes, assembler, source, goal, loop, notes)


def optimizer_of(config: RunConfig) -> Optimizer:
    """Return the optimiser of a run; where its schedule follows `total_steps`, it falls over the steps of that run."""
    steps, replay = config.experience.unroll_steps, config.replay
    if replay is None:
        return make_optimizer(config.training, steps)
    stored_steps = replay.stored_steps(steps)
    return make_optimizer(config.training, stored_steps, replay.samples_per_insert, replay.min_unrolls)


def _section(checkpoint: Checkpoint, name: str) -> dict[str, Json]:
    section = checkpoint.state.get(name)
    return section if isinstance(section, dict) else {}
