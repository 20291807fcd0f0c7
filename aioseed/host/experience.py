"""Between inference and training: the assembler alone (on-policy), or the assembler and replay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from aioseed.agents.agent import Unroll
from aioseed.errors import ConfigError
from aioseed.experience.assembler import UnrollAssembler
from aioseed.experience.copies import Copier, usual_threads
from aioseed.experience.hindsight import Hindsight
from aioseed.experience.layout import aligned_zeros
from aioseed.experience.replay.config import ReplayConfig
from aioseed.experience.replay.limiter import SamplesPerInsert
from aioseed.experience.replay.memory import check_memory
from aioseed.experience.replay.replay import SPARE_SHARE, Replay
from aioseed.experience.replay.saving import number_of
from aioseed.experience.replay.source import ReplaySource
from aioseed.host.acting import BuiltAgent
from aioseed.host.config import RunConfig
from aioseed.host.page_locked import page_locked
from aioseed.specs import ArraySpec, Json, unflatten
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Ledger
from aioseed.training.device import Placement, processor_beside
from aioseed.training.store import Checkpoint
from aioseed.training.trees import subtree
from aioseed.training.update import column_shapes
from aioseed.types import Allocate, SavedReplay, UnrollColumns, UnrollLayout, UnrollSource


@dataclass(frozen=True, slots=True)
class Experience:
    """Hold what lies between inference and training."""

    ledger: Ledger
    assembler: UnrollAssembler
    source: UnrollSource  # where training takes from: the assembler itself on-policy
    save_replay: Callable[[], SavedReplay] | None  # None where checkpoints keep nothing of it
    notes: tuple[str, ...]  # what a user should know of replay before it begins
    # Batches of the assembler -> versions that training publishes for them; None where that depends on speed.
    versions_after: Callable[[int], int] | None


def build_experience(
    config: RunConfig,
    built: BuiltAgent,
    layout: UnrollLayout,
    restored: Checkpoint | None,
    metrics: Metrics,
    device: jax.Device,
    trains_on: jax.Device,
) -> Experience:
    """Build what the section ``replay`` asks for, and the ledger that goes with it.

    Args:
        layout: Shape of the unrolls that are learned from; those that are stored may be longer.
        device: Where inference runs.
        trains_on: What reads the batches, or the first of those that do.

    Raises:
        CheckpointError: The replay or the ledger in `restored` cannot be gone on with.
        ConfigError: The agent needs replay and there is none or the other way round, it does not fit into memory, or
            both sides of it would wait for each other for ever.
    """
    _check_match(config, built)
    ledger = _ledger(restored, goes_on=config.replay is not None)
    threads = config.experience.copy_threads
    copier = Copier(usual_threads() if threads is None else threads)
    zeros = page_locked(trains_on, aligned_zeros) if config.experience.page_locked else aligned_zeros
    chosen, per_call = config.replay, config.training.call_updates
    if chosen is None:
        assembler = _assembler(config, layout, config.training.call_unrolls, ledger, copier, zeros)
        return Experience(ledger, assembler, assembler, None, (), lambda batches: batches * per_call)
    stored = layout._replace(unroll_steps=chosen.stored_steps(layout.unroll_steps))
    saves = config.training.checkpoint.replay
    memory = check_memory(chosen.capacity_unrolls, stored, chosen.max_bytes, SPARE_SHARE if saves else 0.0)
    chunk = chosen.chunk_unrolls(config.training.call_unrolls)
    first = first_priorities(built, stored, chosen, chunk, processor_beside(device))
    assembler = _assembler(config, stored, chunk, ledger, copier, aligned_zeros, first)
    limiter = SamplesPerInsert(
        chosen.samples_per_insert,
        min_unrolls=chosen.min_unrolls,
        insert_unrolls=chunk,
        sample_unrolls=config.training.call_unrolls,
        slack=chosen.slack_unrolls,
    )
    hindsight = chosen.hindsight
    replay = ReplaySource(
        stored,
        assembler,
        Replay(stored, chosen, config.seed, copier, is_saved=saves),
        limiter,
        ledger,
        metrics,
        sample_unrolls=config.training.call_unrolls,
        sample_batches=per_call,
        samples_first=config.mode == "lockstep",
        zeros=zeros,
        relabel=None if hindsight is None else Hindsight(hindsight, built.spec.observation, layout),
    )
    if restored is not None and (state := _saved_replay(restored)) is not None:
        replay.restore(state, subtree(restored.arrays, "replay"), restored.segment, str(restored.path))
    save = replay.save if saves else None
    # Without a ratio nothing bounds the updates: they could not be counted beforehand.
    allowed = None if chosen.samples_per_insert is None else UpdatesAllowed(limiter, per_call)
    notes = (memory, *_fills_late(chosen, stored, config.training.total_steps if restored is None else None))
    return Experience(ledger, assembler, replay, save, notes, allowed)


def _fills_late(chosen: ReplayConfig, stored: UnrollLayout, total_steps: int | None) -> list[str]:
    """Say so if a run of `total_steps` hardly learns, since it takes as many until replay has its minimum."""
    steps = chosen.min_unrolls * stored.unroll_steps
    if total_steps is None or steps < total_steps:
        return []
    late = (
        f"replay: nothing is learned before it has {chosen.min_unrolls:,} unrolls (replay.min_unrolls), {steps:,} "
        f"steps; with training.total_steps at {total_steps:,} the run ends at the first update"
    )
    return [late]


def _assembler(
    config: RunConfig,
    layout: UnrollLayout,
    unrolls: int,
    ledger: Ledger,
    copier: Copier,
    zeros: Allocate,
    priorities: Callable[[UnrollColumns], np.ndarray] | None = None,
) -> UnrollAssembler:
    return UnrollAssembler(
        layout,
        max_environments=config.serving.max_environments,
        batch_unrolls=unrolls,
        queue_batches=config.experience.queue_batches,
        ledger=ledger,
        priorities=priorities,
        copier=copier,
        zeros=zeros,
    )


def first_priorities(
    built: BuiltAgent, layout: UnrollLayout, config: ReplayConfig, unrolls: int, device: jax.Device
) -> Callable[[UnrollColumns], np.ndarray] | None:
    """Return the agent's function for first priorities, compiled for batches of `unrolls`; None where none is wanted.

    Thread: inference, which waits for the answer: the columns are read by nobody once it is there.
    """
    agent, spec = built
    priorities = agent.priorities
    if priorities is None or config.sampling == "uniform":
        return None
    extras = jax.tree.structure(agent.extras(), is_leaf=lambda node: isinstance(node, ArraySpec))
    state = jax.tree.structure(jax.eval_shape(agent.initial_state))

    def of(columns: UnrollColumns) -> jax.Array:
        return priorities(
            Unroll(
                **{
                    **columns._asdict(),
                    "observation": unflatten(spec.observation, list(columns.observation)),
                    "extras": jax.tree.unflatten(extras, columns.extras),
                    "initial_state": jax.tree.unflatten(state, columns.initial_state),
                }
            )
        )

    program = jax.jit(of).lower(column_shapes(layout, (unrolls,), Placement((device,)))).compile()
    return lambda columns: np.array(program(columns))


class UpdatesAllowed:
    """Say how many versions training publishes for so many inserted batches, where it samples whenever it may."""

    def __init__(self, limiter: SamplesPerInsert, updates_per_call: int) -> None:
        """Begin where `limiter` stands; it stays as it is."""
        self._limiter = copy.copy(limiter)
        self._updates_per_call = updates_per_call
        self._batches = 0
        self._calls = 0
        self._sample()

    def __call__(self, batches: int) -> int:
        """Return the versions for `batches`, which never falls from one call to the next."""
        while self._batches < batches:
            self._limiter.insert()
            self._batches += 1
            self._sample()
        return self._calls * self._updates_per_call

    def _sample(self) -> None:
        while self._limiter.may_sample():
            self._limiter.sample()
            self._calls += 1


def _ledger(restored: Checkpoint | None, *, goes_on: bool) -> Ledger:
    form = None if restored is None else restored.state.get("ledger")
    if restored is None or not isinstance(form, dict):
        return Ledger()
    path, state = str(restored.path), _saved_replay(restored)
    held = number_of(state, "transitions", path) if state is not None and goes_on else 0
    return Ledger.from_json(form, path=path, replay=held)


def _saved_replay(restored: Checkpoint) -> dict[str, Json] | None:
    state = restored.state.get("replay")
    return state if isinstance(state, dict) else None


def _check_match(config: RunConfig, built: BuiltAgent) -> None:
    name = config.agent.name
    if built.agent.replay == "required" and config.replay is None:
        raise ConfigError(f"the agent {name} learns from replay: give the section replay", path="replay")
    if config.replay is None:
        return
    if built.agent.replay == "never":
        raise ConfigError(
            f"the agent {name} learns from what was just played: leave the section replay out",
            path="replay",
            value=name,
        )
    if config.training.passes > 1:
        message = "unrolls come back from replay by themselves: leave training.passes at 1, and set samples_per_insert"
        raise ConfigError(message, path="training.passes", value=str(config.training.passes))
    if config.mode == "lockstep" and config.replay.samples_per_insert is None:
        message = "lockstep needs replay.samples_per_insert: without it the number of updates depends on speed"
        raise ConfigError(message, path="replay.samples_per_insert")
