"""In which order the passes of one call of the update take its unrolls.

Columns come cut into N pieces of P unrolls, along two axes of their own. A pass after the first fills each place of a
piece from that place of any piece, at random: so unrolls meet others in an optimiser step, and on several devices, each
of which holds some places of every piece, none has to leave its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.types import UnrollColumns


class Pass(NamedTuple):
    """Hold the unrolls of a call in the order of one pass."""

    columns: UnrollColumns  # as they came, cut into pieces
    is_first: jax.Array | None = None  # bool[]; None where there is one pass
    order: jax.Array | None = None  # int[N, P], the piece that each place is filled from; None: as they came

    @classmethod
    def of_several(cls, columns: UnrollColumns, number: jax.Array, key: jax.Array) -> Pass:
        """Return pass `number`, int32[]: the first takes unrolls as they came, others in an order drawn from `key`."""
        is_first, pieces = number == 0, columns.importance.shape
        if pieces[0] == 1:
            return cls(columns, is_first)
        as_they_came = jnp.broadcast_to(jnp.arange(pieces[0])[:, None], pieces)
        drawn = jnp.argsort(jax.random.uniform(key, pieces), axis=0)
        return cls(columns, is_first, jnp.where(is_first, as_they_came, drawn))

    def cut(self, column: np.ndarray, first: jax.Array, pieces: int, axis: int) -> jax.Array:
        """Return some pieces of a column from `first` on, [..., pieces, P, ...]; N is its axis `axis`."""
        whole = jnp.asarray(column)
        if self.order is None:
            return jax.lax.dynamic_slice_in_dim(whole, first, pieces, axis)
        chosen = jax.lax.dynamic_slice_in_dim(self.order, first, pieces)
        chosen = chosen.reshape((1,) * axis + chosen.shape + (1,) * (whole.ndim - axis - 2))
        return jnp.take_along_axis(whole, chosen, axis)
