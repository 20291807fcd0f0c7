"""The compiled update: columns of unrolls in, a new training state out, the old one's buffers reused.

One call makes `updates_per_call` optimiser steps in a `jax.lax.scan`, each on its own slice of the columns, and with
`passes` does so again in another order. Pieces that fit into a cache (64 to 128 unrolls of 20 to 32 steps for a small
network) train about three times as fast on a CPU as one large piece does. The columns come cut into pieces along the
axis of unrolls, which is a view: leaves [rows, N, P, ...] for N pieces of P unrolls. On several devices each holds its
share of every piece (axis P), so that an optimiser step averages over the same unrolls on however many devices, and all
that they tell one another is sums of gradients. Each takes its share as a piece of its own (`jax.shard_map`): left to
itself, XLA gathers all unrolls on every device where a network folds the axes of rows and unrolls into one, and each
computes everything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from aioseed.agents.agent import Agent, LearnerState, LossOutput, PyTree, Unroll
from aioseed.specs import ArraySpec, ObservationSpec, unflatten
from aioseed.training.config import TrainingConfig
from aioseed.training.device import UNROLLS, Placement, owned, spec
from aioseed.training.inspection import Inspection, named_leaves
from aioseed.training.optimizer import MOST_UPDATES, Optimizer
from aioseed.training.passes import Pass
from aioseed.types import UnrollColumns, UnrollLayout


class TrainState(NamedTuple):
    """Hold all that an update changes. Donated to it: after the call the old one is gone."""

    learner: LearnerState
    opt_state: PyTree
    step: jax.Array  # int32[], optimiser steps applied; after the highest number comes the lowest
    key: jax.Array  # PRNG key[] of the run
    skipped: jax.Array  # int32[], optimiser steps not applied since they were not finite


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["names"])
@dataclass(frozen=True, slots=True)
class Figures:
    """Hold numbers with names as one array, which is read from a device at once and not one by one."""

    names: tuple[str, ...]
    values: jax.Array  # float32[N]

    @classmethod
    def of(cls, numbers: Mapping[str, jax.Array]) -> Figures:
        """Put scalars together."""
        return cls(tuple(numbers), jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers.values()]))

    def __getitem__(self, name: str) -> jax.Array:
        """Return one of them, float32[]."""
        return self.values[self.names.index(name)]

    def to_floats(self) -> dict[str, float]:
        """Return them as Python's numbers; waits for the device."""
        return dict(zip(self.names, np.asarray(self.values).tolist(), strict=True))


class UpdateOutput(NamedTuple):
    """Hold what one call reports."""

    metrics: Figures  # means over the finite steps of the call
    finite: jax.Array  # bool[passes * U], False for a step that was skipped
    aux: PyTree  # of the agent's loss in the first pass, leaves [U * B, ...] in the order of the unrolls
    inspection: Inspection  # of all steps


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
    inspection: Inspection


def init_state(agent: Agent, optimizer: Optimizer, key: jax.Array, placement: Placement) -> TrainState:
    """Return the state before the first update, whole on each device, in buffers that nothing else holds."""
    init_key, run_key = jax.random.split(key)
    # As one program each: op by op, initialisers take seconds.
    learner = jax.jit(agent.init)(init_key)
    opt_state = jax.jit(optimizer.transformation.init)(learner.params)
    return owned(TrainState(learner, opt_state, jnp.int32(0), run_key, jnp.int32(0)), placement)


class Update:
    """Make the optimiser steps of one call; a pure function of (state, columns), to be compiled.

    A step whose loss or gradient norm is not finite, or which would leave a number in the state that is not, changes
    nothing but the count of skipped steps.
    """

    def __init__(
        self, agent: Agent, optimizer: Optimizer, observation: ObservationSpec, config: TrainingConfig
    ) -> None:
        self._agent = agent
        self._optimizer = optimizer
        self._observation = observation
        self._updates = config.updates_per_call
        self._passes = config.passes
        self._unrolls = config.batch_unrolls
        self._piece = config.piece_unrolls
        self._mesh: Mesh | None = None
        is_spec = _is_array_spec
        self._extras_structure = jax.tree.structure(agent.extras(), is_leaf=is_spec)
        self._state_structure = jax.tree.structure(jax.eval_shape(agent.initial_state))

    def on(self, placement: Placement) -> Update:
        """Return this update for the devices of `placement`, each of which sums over its share of a piece."""
        here = copy.copy(self)
        here._mesh = placement.mesh
        return here

    def __call__(self, state: TrainState, columns: UnrollColumns) -> tuple[TrainState, UpdateOutput]:
        """Return the state after all steps and what they report; `columns` hold U * B unrolls, cut into pieces."""
        if self._passes == 1:
            state, steps = self._pass(state, Pass(columns))
            return state, _report(steps, self._updates)

        def one(state: TrainState, number: jax.Array) -> tuple[TrainState, _StepOutput]:
            # A number that is no unroll's: their keys come from those below.
            key = jax.random.fold_in(_next_key(state), self._unrolls)
            return self._pass(state, Pass.of_several(columns, number, key))

        state, steps = jax.lax.scan(one, state, jnp.arange(self._passes))
        return state, _report(_join_leading_axes(steps), self._updates)

    def _pass(self, state: TrainState, over: Pass) -> tuple[TrainState, _StepOutput]:
        """Return the state after U steps and what each reports, leaves [U, ...]."""
        per_step = self._unrolls // self._piece

        def step(state: TrainState, first: jax.Array) -> tuple[TrainState, _StepOutput]:
            return self._step(state, over, first)

        if self._updates == 1:
            # Not as a loop of one turn: on a CPU, XLA computes gradients of convolutions within loops eight times as
            # slowly, and does not take such a loop apart.
            state, only = step(state, jnp.int32(0))
            return state, jax.tree.map(lambda leaf: leaf[None], only)
        return jax.lax.scan(step, state, jnp.arange(self._updates, dtype=jnp.int32) * per_step)

    def _step(self, state: TrainState, over: Pass, first: jax.Array) -> tuple[TrainState, _StepOutput]:
        keys = _unroll_keys(_next_key(state), self._unrolls)
        sums, aux = self._sums(state.learner, over, first, keys)
        weight = _divisor(sums.weight)
        gradient = jax.tree.map(lambda leaf: (leaf / weight).astype(leaf.dtype), sums.gradients)
        squares = {name: _sum_of_squares(leaf) for name, leaf in named_leaves({"params": gradient})}
        norm = jnp.sqrt(sum(squares.values(), start=jnp.float32(0)))

        learner = state.learner
        updates, opt_state = self._optimizer.transformation.update(gradient, state.opt_state, learner.params)
        moved = LearnerState(optax.apply_updates(learner.params, updates), learner.extra)
        moved = self._observe(self._agent.after_update(moved, state.step + 1), over, first)
        # The whole state: a finite loss may leave statistics or moments of the optimiser that are not.
        left = {**moved._asdict(), "opt_state": opt_state}
        inspection = Inspection.of(sums.total, sums.metrics, sums.weight, squares, left)
        finite = jnp.isfinite(sums.total) & jnp.isfinite(norm) & inspection.is_state_finite()
        new = (moved, opt_state, state.step + 1)
        old = (learner, state.opt_state, state.step)
        learner, opt_state, step = jax.tree.map(lambda ours, theirs: jnp.where(finite, ours, theirs), new, old)

        skipped = state.skipped + jnp.where(finite, 0, 1).astype(jnp.int32)
        # As optax counts, which stays at the highest number: a schedule would begin anew at one below 0.
        steps = jnp.where(state.step < 0, MOST_UPDATES, state.step)
        rate = jnp.asarray(self._optimizer.learning_rate(steps), jnp.float32)
        report = _StepOutput(sums.total, sums.weight, sums.metrics, norm, rate, finite, aux, inspection)
        return TrainState(learner, opt_state, step, state.key, skipped), report

    def _observe(self, moved: LearnerState, over: Pass, first: jax.Array) -> LearnerState:
        seen = self._agent.observe(moved, self._unroll(over, first, self._unrolls // self._piece))
        if (is_first := over.is_first) is None:
            return seen
        # What comes again is not counted again.
        return LearnerState(*jax.tree.map(lambda new, old: jnp.where(is_first, new, old), tuple(seen), tuple(moved)))

    def _sums(self, learner: LearnerState, over: Pass, first: jax.Array, keys: jax.Array) -> tuple[_Sums, PyTree]:
        """Return the sums over the B unrolls of the pieces from `first` on, and aux with leaves [B, ...]."""

        def piece(number: jax.Array) -> tuple[_Sums, PyTree]:
            piece_keys = jax.lax.dynamic_slice_in_dim(keys, number * self._piece, self._piece)
            return self._piece_sums(learner, self._unroll(over, first + number, 1), piece_keys)

        if self._piece == self._unrolls:
            return piece(jnp.int32(0))

        def add(so_far: _Sums, number: jax.Array) -> tuple[_Sums, PyTree]:
            sums, aux = piece(number)
            return jax.tree.map(jnp.add, so_far, sums), aux

        numbers = jnp.arange(self._unrolls // self._piece, dtype=jnp.int32)
        shapes, _ = jax.eval_shape(piece, numbers[0])
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        sums, aux = jax.lax.scan(add, nothing, numbers)
        return sums, _join_leading_axes(aux)

    def _piece_sums(self, learner: LearnerState, unroll: Unroll, keys: jax.Array) -> tuple[_Sums, PyTree]:
        if self._mesh is None:
            return self._share_sums(learner, unroll, keys)

        def share(learner: LearnerState, unroll: Unroll, keys: jax.Array) -> tuple[_Sums, PyTree]:
            sums, aux = self._share_sums(learner, unroll, keys)
            return add(sums, UNROLLS), aux

        add: Callable[[_Sums, str], _Sums] = jax.lax.psum
        whole, entries = spec(), spec(UNROLLS)
        unrolls = Unroll(*[spec(None, UNROLLS)] * len(Unroll._fields))  # type: ignore[arg-type]  # a tree of the same form
        unrolls = unrolls._replace(initial_state=entries, importance=entries)  # type: ignore[arg-type]
        shared: Callable[..., tuple[_Sums, PyTree]] = jax.shard_map(
            share,
            mesh=self._mesh,
            in_specs=(whole, unrolls, entries),
            out_specs=(whole, entries),
            check_vma=False,  # else gradients would be summed by themselves, and then once more
        )
        return shared(learner, unroll, keys)

    def _share_sums(self, learner: LearnerState, unroll: Unroll, keys: jax.Array) -> tuple[_Sums, PyTree]:
        def total(params: PyTree) -> tuple[jax.Array, LossOutput]:
            output = self._agent.loss(params, learner.extra, unroll, keys)
            return output.total, output

        (_, output), gradients = jax.value_and_grad(total, has_aux=True)(learner.params)
        weight = jnp.asarray(output.count, jnp.float32)
        return _Sums(output.total, weight, output.metrics, gradients), output.aux

    def _unroll(self, over: Pass, first: jax.Array, pieces: int) -> Unroll:
        """Return the unrolls of some pieces from `first` on, with trees in the place of flat leaves."""
        columns = over.columns

        def rows(column: np.ndarray, axis: int = 1) -> jax.Array:
            cut = over.cut(column, first, pieces, axis)
            return cut.reshape(*cut.shape[:axis], pieces * self._piece, *cut.shape[axis + 2 :])

        entries = partial(rows, axis=0)
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
    update: Update, state: TrainState, layout: UnrollLayout, config: TrainingConfig, placement: Placement
) -> UpdateProgram:
    """Compile `update` ahead for exactly these shapes; the program donates its state and can never recompile.

    Args:
        update: What to compile.
        state: A state of the right shapes, where `placement` says; it is not used up.
        layout: Shape of the unrolls; the program takes columns of ``config.call_unrolls`` of them, not yet cut.
        config: The section `training`.
        placement: Where it runs.
    """
    pieces, piece = config.call_unrolls // config.piece_unrolls, config.piece_unrolls
    shapes = column_shapes(layout, (pieces, piece), placement)
    step = jax.jit(update.on(placement).__call__, donate_argnums=0, out_shardings=placement.replicated)
    compiled = cast("UpdateProgram", step.lower(state, shapes).compile())

    def rows(column: np.ndarray) -> np.ndarray:
        return column.reshape(len(column), pieces, piece, *column.shape[2:])

    def entries(column: np.ndarray) -> np.ndarray:
        return column.reshape(pieces, piece, *column.shape[1:])

    return lambda state, columns: compiled(state, _map_columns(columns, rows, entries))


def column_shapes(layout: UnrollLayout, unrolls: tuple[int, ...], placement: Placement) -> UnrollColumns:
    """Return the shapes of columns to compile for.

    Args:
        layout: Shape of the unrolls.
        unrolls: Sizes of the axes that count unrolls; the last is shared out among the devices.
        placement: Where they lie.
    """
    struct: Callable[..., jax.ShapeDtypeStruct] = jax.ShapeDtypeStruct
    of_rows, of_entries = placement.sharded(len(unrolls)), placement.sharded(len(unrolls) - 1)

    # The same structure holds NumPy columns, JAX arrays and, here, their shapes.
    def rows(spec: ArraySpec) -> np.ndarray:
        shape = (layout.rows, *unrolls, *spec.shape)
        return cast("np.ndarray", struct(shape, np.dtype(spec.dtype), sharding=of_rows))

    def entries(spec: ArraySpec) -> np.ndarray:
        return cast("np.ndarray", struct((*unrolls, *spec.shape), np.dtype(spec.dtype), sharding=of_entries))

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


def _map_columns(
    columns: UnrollColumns, rows: Callable[[np.ndarray], np.ndarray], entries: Callable[[np.ndarray], np.ndarray]
) -> UnrollColumns:
    """Return columns made by `rows` of those that have rows and by `entries` of those with one entry an unroll."""
    one_an_unroll = columns._replace(
        initial_state=tuple(map(entries, columns.initial_state)), importance=entries(columns.importance)
    )
    return one_an_unroll._replace(
        observation=tuple(map(rows, columns.observation)),
        reward=rows(columns.reward),
        flags=rows(columns.flags),
        previous_action=rows(columns.previous_action),
        action=rows(columns.action),
        policy_version=rows(columns.policy_version),
        extras=tuple(map(rows, columns.extras)),
    )


def _report(steps: _StepOutput, first_pass: int) -> UpdateOutput:
    """Return what the steps of a call say together, of which the first so many are the first pass."""

    def mean(values: jax.Array, weights: jax.Array) -> jax.Array:
        total = jnp.sum(jnp.where(steps.finite, values, 0.0), dtype=jnp.float32)
        return total / _divisor(jnp.sum(jnp.where(steps.finite, weights, 0.0)))

    ones = jnp.ones_like(steps.weight)
    metrics = {name: mean(values, steps.weight) for name, values in steps.metrics.items()}
    metrics["loss"] = mean(steps.total, steps.weight)
    metrics["gradient_norm"] = mean(steps.gradient_norm, ones)
    metrics["learning_rate"] = mean(steps.learning_rate, ones)
    aux = jax.tree.map(lambda leaf: leaf[:first_pass], steps.aux)
    return UpdateOutput(Figures.of(metrics), steps.finite, _join_leading_axes(aux), steps.inspection)


def _divisor(weight: jax.Array) -> jax.Array:
    """Return what sums are divided by: sums over nothing are 0 and stay so."""
    return jnp.where(weight > 0, weight, 1.0)


def _next_key(state: TrainState) -> jax.Array:
    """Return the key of the next step: of both counts, so that one that is skipped is followed by another noise."""
    return jax.random.fold_in(state.key, state.step + state.skipped)


def _unroll_keys(key: jax.Array, unrolls: int) -> jax.Array:
    """Return keys[unrolls], each of its unroll's place in the batch alone, into however many pieces that is cut."""
    keys: jax.Array = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(unrolls))
    return keys


def _sum_of_squares(leaf: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(leaf.astype(jnp.float32)))


def _join_leading_axes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def _is_array_spec(node: object) -> bool:
    return isinstance(node, ArraySpec)
