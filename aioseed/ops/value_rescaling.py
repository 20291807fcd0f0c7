"""Squash values of any size so that one network learns them all (Pohlen et al. 2018, arXiv:1805.11593, section 3.2).

``h`` is monotone and contracts large values; its inverse is exact, in closed form (proposition A.2 there).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aioseed.ops._check import check_kind


def rescale(values: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """Return ``h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x``; float32 of any shape.

    Args:
        values: float32[...].
        epsilon: Above 0; keeps the inverse Lipschitz-continuous.
    """
    check_kind(jnp.floating, values=values)
    magnitude = jnp.abs(values)
    # sqrt(m + 1) - 1 loses every digit of a small m; the same number as a quotient does not.
    return jnp.sign(values) * magnitude / (jnp.sqrt(magnitude + 1.0) + 1.0) + epsilon * values


def unrescale(values: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """Return the x for which ``rescale(x, epsilon)`` is `values`; float32 of any shape.

    With ``s = sqrt(1 + 4 epsilon (|y| + 1 + epsilon))`` the paper's form is ``sign(y) (((s - 1) / 2 epsilon)^2 - 1)``.
    It subtracts nearly equal numbers twice, which costs float32 three of its seven digits. Here both differences are
    expanded: ``q = (s - 1) / 2 epsilon = 2 (|y| + 1 + epsilon) / (s + 1)`` and ``q^2 - 1 = (q - 1) (q + 1)``.

    Args:
        values: float32[...].
        epsilon: As given to `rescale`.
    """
    check_kind(jnp.floating, values=values)
    magnitude = jnp.abs(values)
    root = jnp.sqrt(1.0 + 4.0 * epsilon * (magnitude + 1.0 + epsilon))
    # With the root at 0, which is 1 + 2 epsilon, q - 1 is (2 |y| - (root - (1 + 2 epsilon))) / (root + 1).
    excess = 4.0 * epsilon * magnitude / (root + 1.0 + 2.0 * epsilon)
    below_one = (2.0 * magnitude - excess) / (root + 1.0)
    return jnp.sign(values) * below_one * (below_one + 2.0)
