"""What values and advantages are measured in: moments of what was seen lately.

The network says values in deviations from their mean, as PopArt does (van Hasselt et al. 2016, arXiv:1602.07714) but
without rewriting its last layer: the moments move slowly. So neither the size of rewards nor the discount has a say in
how large gradients are.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

_KEPT = 0.99  # of the moments, at each optimiser step
_LEAST = 0.01  # deviation; where rewards are rare and returns nearly alike, noise must not become the signal


class Scale(NamedTuple):
    """Hold moments of value targets and advantages, each step weighing less the longer ago it was seen."""

    weight: jax.Array  # float32[], of all that was seen, 1 in the end
    mean: jax.Array  # float32[], of the targets
    variance: jax.Array  # float32[], of the targets
    square: jax.Array  # float32[], mean of the squares of the advantages

    @classmethod
    def unknown(cls) -> Scale:
        """Return the scale before anything was seen: values and advantages are as they are."""
        return cls(jnp.float32(0), jnp.float32(0), jnp.float32(1), jnp.float32(1))

    def values(self, said: jax.Array) -> jax.Array:
        """Return values of what the network said."""
        return self.mean + self._deviation * said

    def said(self, values: jax.Array) -> jax.Array:
        """Return what the network should say for values."""
        return (values - self.mean) / self._deviation

    def advantages(self, advantages: jax.Array) -> jax.Array:
        """Return advantages by their usual size. Their mean stays: it is 0 where the values are right."""
        return advantages / jnp.maximum(jnp.sqrt(self.square), _LEAST)

    def after(self, targets: jax.Array, advantages: jax.Array, valid: jax.Array) -> Scale:
        """Return the scale once more was seen, [T, B] each; what is not valid does not count."""
        count = jnp.sum(valid, dtype=jnp.float32)

        def mean_of(numbers: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(valid, numbers, 0.0), dtype=jnp.float32) / jnp.maximum(count, 1.0)

        mean = mean_of(targets)
        variance = mean_of(jnp.square(targets - mean))
        added = jnp.where(count > 0, 1 - _KEPT, 0.0)
        weight = self.weight + added * (1 - self.weight)
        share = added / jnp.maximum(weight, 1 - _KEPT)
        square = mean_of(jnp.square(advantages))
        # By shares of what they differ: equal numbers stay equal, and the first take the place of what was not seen.
        variance_before, square_before = (
            jnp.where(share < 1, before, now) for before, now in ((self.variance, variance), (self.square, square))
        )
        away = mean - self.mean
        return Scale(
            weight,
            self.mean + share * away,
            variance_before + share * (variance - variance_before + (1 - share) * jnp.square(away)),
            square_before + share * (square - square_before),
        )

    @property
    def _deviation(self) -> jax.Array:
        return jnp.maximum(jnp.sqrt(self.variance), _LEAST)
