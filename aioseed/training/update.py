"""The compiled update: columns of unrolls in, a new training state out, the old one's buffers reused.

One call makes `updates_per_call` optimiser steps in a `jax.lax.scan`, each on its own slice of the columns. Pieces that
fit into a cache (64 to 128 unrolls of 20 to 32 steps for a small network) train about three times as fast on a CPU as
one large piece does; slices are cut out along axis 1 inside the scan, which is no slower than transposing beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aioseed.agents.agent import Agent, LearnerState, LossOutput, PyTree, Unroll
from aioseed.specs import ArraySpec, ObservationSpec, unflatten
from aioseed.training.config import TrainingConfig
from aioseed.training.device import owned
from aioseed.training.optimizer import Optimizer
from aioseed.types import UnrollColumns, UnrollLayout


class TrainState(NamedTuple):
    """Hold all that an update changes. Donated to it: after the call the old one is gone."""

    learner: LearnerState
    opt_state: PyTree
    step: jax.Array  # int32[], optimiser steps applied
    key: jax.Array  # PRNG key[] of the run
    skipped: jax.Array  # int32[], optimiser steps not applied since they were not finite


class UpdateOutput(NamedTuple):
    """Hold what one call reports."""

    metrics: dict[str, jax.Array]  # float32[] each, means over the finite steps of the call
    finite: jax.Array  # bool[U], False for a step that was skipped
    aux: PyTree  # of the agent's loss, leaves [U * B, ...] in the order of the unrolls


UpdateProgram: TypeAlias = Callable[[TrainState, UnrollColumns], tuple[TrainState, UpdateOutput]]


class _Sums(NamedTuple):
    total: jax.Array
    weight: jax.Array  # what the sums are divided by: `LossOutput.count`
    metrics: dict[str, jax.Array]
    gradients: PyTree


class _StepOutput(NamedTuple):
    total: jax.Array
    weight: jax.Array
    metrics: dict[str, jax.Array]  # sums
    gradient_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array
    aux: PyTree


def init_state(agent: Agent, optimizer: Optimizer, key: jax.Array, device: jax.Device) -> TrainState:
    """Return the state before the first update, on `device`, in buffers that nothing else holds."""
    init_key, run_key = jax.random.split(key)
    # As one program each: op by op, initialisers take seconds.
    learner = jax.jit(agent.init)(init_key)
    opt_state = jax.jit(optimizer.transformation.init)(learner.params)
    return owned(TrainState(learner, opt_state, jnp.int32(0), run_key, jnp.int32(0)), device)


class Update:
    """Make the optimiser steps of one call; a pure function of (state, columns), to be compiled.

    A step whose loss or gradient norm is not finite changes nothing but the count of skipped steps.
    """

    def __init__(
        self, agent: Agent, optimizer: Optimizer, observation: ObservationSpec, config: TrainingConfig
    ) -> None:
        self._agent = agent
        self._optimizer = optimizer
        self._observation = observation
        self._updates = config.updates_per_call
        self._unrolls = config.batch_unrolls
        self._piece = config.micro_unrolls or config.batch_unrolls
        is_spec = _is_array_spec
        self._extras_structure = jax.tree.structure(agent.extras(), is_leaf=is_spec)
        self._state_structure = jax.tree.structure(jax.eval_shape(agent.initial_state))

    def __call__(self, state: TrainState, columns: UnrollColumns) -> tuple[TrainState, UpdateOutput]:
        """Return the state after U steps and what they report; `columns` hold U * B unrolls."""

        def step(state: TrainState, start: jax.Array) -> tuple[TrainState, _StepOutput]:
            return self._step(state, columns, start)

        starts = jnp.arange(self._updates, dtype=jnp.int32) * self._unrolls
        state, steps = jax.lax.scan(step, state, starts)
        return state, _report(steps)

    def _step(self, state: TrainState, columns: UnrollColumns, start: jax.Array) -> tuple[TrainState, _StepOutput]:
        # Both counts, so that a step that was skipped is followed by another noise.
        keys = _unroll_keys(jax.random.fold_in(state.key, state.step + state.skipped), self._unrolls)
        sums, aux = self._sums(state.learner, columns, start, keys)
        weight = jnp.where(sums.weight > 0, sums.weight, 1.0)
        gradient = jax.tree.map(lambda leaf: (leaf / weight).astype(leaf.dtype), sums.gradients)
        norm = _global_norm(gradient)
        finite = jnp.isfinite(sums.total) & jnp.isfinite(norm)

        learner = state.learner
        updates, opt_state = self._optimizer.transformation.update(gradient, state.opt_state, learner.params)
        moved = LearnerState(optax.apply_updates(learner.params, updates), learner.extra)
        moved = self._agent.observe(
            self._agent.after_update(moved, state.step + 1), self._unroll(columns, start, self._unrolls)
        )
        new = (moved, opt_state, state.step + 1)
        old = (learner, state.opt_state, state.step)
        learner, opt_state, step = jax.tree.map(lambda ours, theirs: jnp.where(finite, ours, theirs), new, old)

        skipped = state.skipped + jnp.where(finite, 0, 1).astype(jnp.int32)
        rate = jnp.asarray(self._optimizer.learning_rate(state.step), jnp.float32)
        report = _StepOutput(sums.total, sums.weight, sums.metrics, norm, rate, finite, aux)
        return TrainState(learner, opt_state, step, state.key, skipped), report

    def _sums(
        self, learner: LearnerState, columns: UnrollColumns, start: jax.Array, keys: jax.Array
    ) -> tuple[_Sums, PyTree]:
        """Return the sums over the B unrolls from `start` on, added up piece by piece, and aux with leaves [B, ...]."""

        def piece(offset: jax.Array) -> tuple[_Sums, PyTree]:
            piece_keys = jax.lax.dynamic_slice_in_dim(keys, offset, self._piece)
            return self._piece_sums(learner, self._unroll(columns, start + offset, self._piece), piece_keys)

        if self._piece == self._unrolls:
            return piece(jnp.int32(0))

        def add(so_far: _Sums, offset: jax.Array) -> tuple[_Sums, PyTree]:
            sums, aux = piece(offset)
            return jax.tree.map(jnp.add, so_far, sums), aux

        offsets = jnp.arange(0, self._unrolls, self._piece, dtype=jnp.int32)
        shapes, _ = jax.eval_shape(piece, offsets[0])
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        sums, aux = jax.lax.scan(add, nothing, offsets)
        return sums, _join_leading_axes(aux)

    def _piece_sums(self, learner: LearnerState, unroll: Unroll, keys: jax.Array) -> tuple[_Sums, PyTree]:
        def total(params: PyTree) -> tuple[jax.Array, LossOutput]:
            output = self._agent.loss(params, learner.extra, unroll, keys)
            return output.total, output

        (_, output), gradients = jax.value_and_grad(total, has_aux=True)(learner.params)
        weight = jnp.asarray(output.count, jnp.float32)
        return _Sums(output.total, weight, output.metrics, gradients), output.aux

    def _unroll(self, columns: UnrollColumns, start: jax.Array, count: int) -> Unroll:
        """Return `count` unrolls from `start` on, with trees in the place of flat leaves."""

        def rows(column: np.ndarray) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(column), start, count, axis=1)

        def entries(column: np.ndarray) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(jnp.asarray(column), start, count, axis=0)

        return Unroll(
            observation=unflatten(self._observation, [rows(leaf) for leaf in columns.observation]),
            reward=rows(columns.reward),
            flags=rows(columns.flags),
            previous_action=rows(columns.previous_action),
            action=rows(columns.action),
            policy_version=rows(columns.policy_version),
            extras=jax.tree.unflatten(self._extras_structure, [rows(leaf) for leaf in columns.extras]),
            initial_state=jax.tree.unflatten(self._state_structure, [entries(leaf) for leaf in columns.initial_state]),
            importance=entries(columns.importance),
        )


def compile_update(
    update: Update, state: TrainState, layout: UnrollLayout, config: TrainingConfig, device: jax.Device
) -> UpdateProgram:
    """Compile `update` ahead for exactly these shapes; the program donates its state and can never recompile.

    Args:
        update: What to compile.
        state: A state of the right shapes; it is not used up.
        layout: Shape of the unrolls; the program takes ``config.call_unrolls`` of them.
        config: The section `training`.
        device: Where it runs.
    """
    columns = column_shapes(layout, config.call_unrolls, device)
    compiled = jax.jit(update.__call__, donate_argnums=0).lower(state, columns).compile()
    return cast("UpdateProgram", compiled)


def column_shapes(layout: UnrollLayout, unrolls: int, device: jax.Device) -> UnrollColumns:
    """Return the shapes of the columns of `unrolls` unrolls on `device`, to compile for."""
    sharding = jax.sharding.SingleDeviceSharding(device)

    def shaped(leading: tuple[int, ...], spec: ArraySpec) -> np.ndarray:
        struct: Callable[..., jax.ShapeDtypeStruct] = jax.ShapeDtypeStruct
        # The same structure holds NumPy columns, JAX arrays and, here, their shapes.
        return cast("np.ndarray", struct(leading + spec.shape, np.dtype(spec.dtype), sharding=sharding))

    def rows(spec: ArraySpec) -> np.ndarray:
        return shaped((layout.rows, unrolls), spec)

    def entries(spec: ArraySpec) -> np.ndarray:
        return shaped((unrolls,), spec)

    return UnrollColumns(
        observation=tuple(rows(spec) for spec in layout.observation),
        reward=rows(ArraySpec("float32", ())),
        flags=rows(ArraySpec("uint8", ())),
        previous_action=rows(layout.action),
        action=rows(layout.action),
        policy_version=rows(ArraySpec("int32", ())),
        extras=tuple(rows(spec) for spec in layout.extras),
        initial_state=tuple(entries(spec) for spec in layout.state),
        importance=entries(ArraySpec("float32", ())),
    )


def _report(steps: _StepOutput) -> UpdateOutput:
    def mean(values: jax.Array, weights: jax.Array) -> jax.Array:
        total = jnp.sum(jnp.where(steps.finite, values, 0.0), dtype=jnp.float32)
        return total / jnp.maximum(jnp.sum(jnp.where(steps.finite, weights, 0.0)), 1.0)

    ones = jnp.ones_like(steps.weight)
    metrics = {name: mean(values, steps.weight) for name, values in steps.metrics.items()}
    metrics["loss"] = mean(steps.total, steps.weight)
    metrics["gradient_norm"] = mean(steps.gradient_norm, ones)
    metrics["learning_rate"] = mean(steps.learning_rate, ones)
    return UpdateOutput(metrics, steps.finite, _join_leading_axes(steps.aux))


def _unroll_keys(key: jax.Array, unrolls: int) -> jax.Array:
    """Return keys[unrolls], each of its unroll's place in the batch alone, into however many pieces that is cut."""
    keys: jax.Array = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(unrolls))
    return keys


def _global_norm(gradient: PyTree) -> jax.Array:
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradient)]
    return jnp.sqrt(sum(squares, start=jnp.float32(0)))


def _join_leading_axes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def _is_array_spec(node: object) -> bool:
    return isinstance(node, ArraySpec)
