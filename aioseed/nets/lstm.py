"""The recurrence of an LSTM layer, with a gradient written by hand.

Differentiating the loop by itself adds up the gradient of the recurrent kernel step by step: a product and a pass over
the kernel at each. Here the loop backwards finds the gradients of the gates alone, and one large product of all steps
makes the kernel's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn

LayerState: TypeAlias = tuple[jax.Array, jax.Array]
"""Cell and output of one LSTM layer, float32[B, units] each."""
STEPS_AT_ONCE = 4
"""Of a loop on an accelerator, where starting a kernel costs as much as a small one takes."""

Carry = TypeVar("Carry")
Row = TypeVar("Row")
Result = TypeVar("Result")


class _Kept(NamedTuple):
    """Hold what the gradient needs of the way forwards."""

    kernel: jax.Array  # [U, 4U]
    state: LayerState  # what entered
    first: jax.Array  # bool[T, B]
    gates: jax.Array  # [T, B, 4U], before the activations
    cells: jax.Array  # [T, B, U], after each step
    outputs: jax.Array  # [T, B, U]


@jax.custom_vjp
def lstm(kernel: jax.Array, state: LayerState, projected: jax.Array, first: jax.Array) -> tuple[jax.Array, LayerState]:
    """Return the outputs [T, B, U] and the state after the last step (Hochreiter and Schmidhuber 1997).

    Args:
        kernel: float32[U, 4U], from outputs to the gates entered, forgotten, proposed, shown (Gers et al. 2000).
        state: What enters step 0; it is zero instead, as at every step, where `first` says so.
        projected: float32[T, B, 4U], what inputs and biases add to the gates.
        first: bool[T, B].
    """

    def step(carry: LayerState, row: tuple[jax.Array, jax.Array]) -> tuple[LayerState, jax.Array]:
        state, _ = _forward(kernel, carry, *row)
        return state, state[1]

    state, outputs = _loop(step, state, (projected, first))
    return outputs, state


def _lstm_forward(
    kernel: jax.Array, state: LayerState, projected: jax.Array, first: jax.Array
) -> tuple[tuple[jax.Array, LayerState], _Kept]:
    def step(carry: LayerState, row: tuple[jax.Array, jax.Array]) -> tuple[LayerState, tuple[jax.Array, LayerState]]:
        state, gates = _forward(kernel, carry, *row)
        return state, (gates, state)

    last, (gates, (cells, outputs)) = _loop(step, state, (projected, first))
    return (outputs, last), _Kept(kernel, state, first, gates, cells, outputs)


def _lstm_backward(
    kept: _Kept, gradients: tuple[jax.Array, LayerState]
) -> tuple[jax.Array, LayerState, jax.Array, None]:
    of_outputs, of_last = gradients
    cells_before = _before(kept.state[0], kept.cells, kept.first)
    outputs_before = _before(kept.state[1], kept.outputs, kept.first)

    def step(carry: LayerState, row: tuple[jax.Array, ...]) -> tuple[LayerState, jax.Array]:
        of_cell, of_output = carry
        of_this, gates, before, cell, starts = row
        of_output = of_output + of_this
        entered, forgotten, proposed, shown = _activated(gates)
        seen = jnp.tanh(cell)
        of_cell = of_cell + of_output * shown * (1 - seen * seen)
        of_gates = jnp.concatenate(
            [
                of_cell * proposed * entered * (1 - entered),
                of_cell * before * forgotten * (1 - forgotten),
                of_cell * entered * (1 - proposed * proposed),
                of_output * seen * shown * (1 - shown),
            ],
            axis=-1,
        )
        return _reset((of_cell * forgotten, of_gates @ kept.kernel.T), starts), of_gates

    rows = (of_outputs, kept.gates, cells_before, kept.cells, kept.first)
    of_state, of_gates = _loop(step, of_last, rows, reverse=True)
    of_kernel = jnp.einsum("tbu,tbg->ug", outputs_before, of_gates)
    return of_kernel, of_state, of_gates, None


lstm.defvjp(_lstm_forward, _lstm_backward)


def _forward(
    kernel: jax.Array, state: LayerState, projected: jax.Array, first: jax.Array
) -> tuple[LayerState, jax.Array]:
    """Return the state after one step and its gates before the activations."""
    cell, output = _reset(state, first)
    gates = projected + output @ kernel
    entered, forgotten, proposed, shown = _activated(gates)
    cell = forgotten * cell + entered * proposed
    return (cell, shown * jnp.tanh(cell)), gates


def _activated(gates: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    entered, forgotten, proposed, shown = jnp.split(gates, 4, axis=-1)
    return nn.sigmoid(entered), nn.sigmoid(forgotten), jnp.tanh(proposed), nn.sigmoid(shown)


def _reset(state: LayerState, first: jax.Array) -> LayerState:
    cell, output = (jnp.where(first[:, None], 0.0, leaf) for leaf in state)
    return cell, output


def _before(entered: jax.Array, after: jax.Array, first: jax.Array) -> jax.Array:
    """Return what each step [T, B, U] began with, of what was there after it."""
    return jnp.where(first[..., None], 0.0, jnp.concatenate([entered[None], after[:-1]]))


def _loop(
    step: Callable[[Carry, Row], tuple[Carry, Result]], carry: Carry, rows: Row, *, reverse: bool = False
) -> tuple[Carry, Result]:
    """Scan, with several steps in one turn of the loop on anything but a CPU, which gains nothing from it."""

    def scan(carry: Carry, rows: Row, unroll: int) -> tuple[Carry, Result]:
        return jax.lax.scan(step, carry, rows, reverse=reverse, unroll=unroll)

    found: tuple[Carry, Result] = jax.lax.platform_dependent(
        carry, rows, cpu=partial(scan, unroll=1), default=partial(scan, unroll=STEPS_AT_ONCE)
    )
    return found
