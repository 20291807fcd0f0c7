"""The optimisers against loops from their papers in float64: clipping, rule, schedule, and where epsilon is added."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aioseed.training.config import OptimizerConfig, TrainingConfig
from aioseed.training.optimizer import make_optimizer

RATE, LENGTH, STEPS = 0.1, 6, 9
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, 3)) * [1.0, 1e-2, 1e-4]
FALLING = {"kind": "linear", "updates": LENGTH, "end_value": 0.02}
CASES = {
    "adam": {"name": "adam", "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3},
    "rmsprop": {"name": "rmsprop", "decay": 0.8, "epsilon": 1e-3},
    "rmsprop with momentum": {"name": "rmsprop", "decay": 0.8, "epsilon": 1e-3, "momentum": 0.7},
    "sgd": {"name": "sgd"},
    "sgd with momentum": {"name": "sgd", "momentum": 0.7},
    "adam that clips": {"name": "adam", "epsilon": 1e-3, "clip_norm": 0.5},
}


def rate_at(step: int) -> float:
    return RATE + (0.02 - RATE) * min(step / LENGTH, 1.0)


def literal(config: OptimizerConfig) -> np.ndarray:
    """Return float64[STEPS, 3], where the parameters are after each step from 0.

    Adam as in algorithm 1 of Kingma and Ba 2015. RMSProp in TensorFlow's form: epsilon is added to the mean of squares,
    below the root, and momentum is of the scaled steps. That mean begins at 0; in TensorFlow 1, which trained IMPALA,
    it began at 1.
    """
    place, path = np.zeros(3), []
    mean, square, speed = np.zeros(3), np.zeros(3), np.zeros(3)
    for step, raw in enumerate(GRADIENTS):
        norm = np.sqrt(np.sum(raw**2))
        bound = config.clip_norm or np.inf
        gradient = raw * min(1.0, bound / norm)
        rate = rate_at(step)
        if config.name == "adam":
            mean = config.beta1 * mean + (1 - config.beta1) * gradient
            square = config.beta2 * square + (1 - config.beta2) * gradient**2
            unbiased = square / (1 - config.beta2 ** (step + 1))
            place = place - rate * mean / (1 - config.beta1 ** (step + 1)) / (np.sqrt(unbiased) + config.epsilon)
        elif config.name == "rmsprop":
            square = config.decay * square + (1 - config.decay) * gradient**2
            speed = config.momentum * speed + rate * gradient / np.sqrt(square + config.epsilon)
            place = place - speed
        else:
            speed = config.momentum * speed + gradient
            place = place - rate * speed
        path.append(place)
    return np.array(path)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_an_optimiser_makes_the_steps_of_its_paper(options) -> None:
    config = OptimizerConfig.model_validate({**options, "learning_rate": RATE, "schedule": FALLING})
    optimizer = make_optimizer(TrainingConfig(optimizer=config), unroll_steps=20)
    rule = optimizer.transformation

    @jax.jit
    def step(place, state, gradient):
        updates, state = rule.update(gradient, state, place)
        return optax.apply_updates(place, updates), state

    place = jnp.zeros(3)
    state, path = rule.init(place), []
    for number, gradient in enumerate(GRADIENTS):
        np.testing.assert_allclose(optimizer.learning_rate(jnp.int32(number)), rate_at(number), rtol=1e-6)
        place, state = step(place, state, jnp.asarray(gradient, jnp.float32))
        path.append(np.asarray(place))
    np.testing.assert_allclose(path, literal(config), rtol=2e-5, atol=1e-7)
