"""Action distributions against literal NumPy, and samples that are exactly as frequent as they are probable."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.ops.distributions import ActionDistribution, Sample, categorical, multi_categorical

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 4)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(float))
    return weights / weights.sum(-1, keepdims=True)


def test_log_prob_and_entropy_are_those_of_a_softmax() -> None:
    distribution, probabilities = categorical(4), softmax(LOGITS)
    for action in range(4):
        found = distribution.log_prob(LOGITS, Sample(jnp.full(5, action, jnp.int32)))
        np.testing.assert_allclose(found, np.log(probabilities[:, action]), rtol=1e-5)
    np.testing.assert_allclose(
        distribution.entropy(LOGITS), -(probabilities * np.log(probabilities)).sum(-1), rtol=1e-5
    )


def test_samples_on_a_grid_of_uniforms_are_as_frequent_as_they_are_probable() -> None:
    distribution, points = categorical(4), 10_000
    grid = (np.arange(points, dtype=np.float32) + 0.5)[:, None] / points
    for logits, probabilities in zip(LOGITS, softmax(LOGITS), strict=True):
        actions = distribution.sample(jnp.tile(logits, (points, 1)), grid).action
        assert actions.dtype == jnp.int32
        counts = np.bincount(actions, minlength=4)
        np.testing.assert_allclose(counts, probabilities * points, atol=1.01)


def test_what_is_added_to_all_logits_of_a_row_changes_nothing_however_much_it_is() -> None:
    distribution, offsets = categorical(4), np.array([[-1e4], [-200], [0], [200], [1e4]], np.float32)
    # In eighths, which neither sum rounds.
    logits = np.round(LOGITS * 8) / 8
    uniforms = jnp.asarray(np.random.default_rng(1).random((100, 5, 1)), jnp.float32)

    def answers(logits: np.ndarray) -> list[jax.Array]:
        rows = jnp.broadcast_to(logits, (100, 5, 4))
        sample = distribution.sample(rows, uniforms)
        likely = distribution.mode(rows).action
        return [sample.action, likely, distribution.log_prob(rows, sample), distribution.entropy(rows)]

    for plain, shifted in zip(answers(logits), answers(logits + offsets), strict=True):
        np.testing.assert_allclose(shifted, plain, rtol=1e-6)


def test_an_action_of_no_probability_is_never_taken_and_adds_no_entropy() -> None:
    logits = jnp.array([-jnp.inf, 0.0, -jnp.inf, 0.0, -jnp.inf])
    uniforms = jnp.array([0.0, 0.49, 0.5, 1 - 2**-24])[:, None]
    actions = jax.jit(categorical(5).sample)(jnp.tile(logits, (4, 1)), uniforms).action
    np.testing.assert_array_equal(actions, [1, 1, 3, 3])
    np.testing.assert_allclose(categorical(5).entropy(logits), np.log(2), rtol=1e-6)
    assert np.all(np.isfinite(jax.jit(jax.grad(categorical(5).entropy))(logits)))


def test_of_a_thousand_actions_none_that_is_masked_is_ever_taken() -> None:
    """Sums of so many are not computed one after another: they may rise where nothing was added, or fall."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=1000).astype(np.float32)
    logits[generator.random(1000) < 0.5] = -np.inf
    logits[-3:] = -np.inf
    sums = np.cumsum(softmax(logits))
    # A rise of rounding is met by very few uniforms, all of which are near to a sum.
    near = np.round(sums[:, None] * 2**24 + np.arange(-8, 9)).clip(0, 2**24 - 1).reshape(-1)
    uniforms = jnp.asarray(near / 2**24, jnp.float32)[:, None]
    actions = np.asarray(jax.jit(categorical(1000).sample)(jnp.tile(logits, (len(near), 1)), uniforms).action)
    assert np.all(np.isfinite(logits[actions]))
    wanted = np.searchsorted(sums, near / 2**24, side="right").clip(max=999)
    # So near to a sum, rounding may decide for a neighbour, but for no other.
    np.testing.assert_allclose(sums[actions], sums[wanted], atol=softmax(logits).max() + 1e-6)


def test_the_largest_uniform_below_one_takes_the_last_action() -> None:
    """Whatever the weights add up to: times 1 - 2^-24 it must not round up to the sum."""
    logits = np.random.default_rng(0).normal(0, 3, (5000, 7)).astype(np.float32)
    actions = jax.jit(categorical(7).sample)(logits, jnp.full((5000, 1), 1 - 2**-24, jnp.float32)).action
    assert np.max(actions) == 6


def test_the_mode_is_the_likeliest_action_and_the_lowest_among_equals() -> None:
    np.testing.assert_array_equal(categorical(4).mode(LOGITS).action, LOGITS.argmax(-1))
    assert categorical(3).mode(jnp.array([1.0, 2.0, 2.0])).action == 1


def test_components_of_unequal_sizes_are_independent() -> None:
    sizes = (2, 4, 3)
    distribution = multi_categorical(sizes)
    generator = np.random.default_rng(1)
    params = generator.normal(size=(6, 9)).astype(np.float32)
    uniforms = generator.random((6, 3)).astype(np.float32)
    parts = [params[:, :2], params[:, 2:6], params[:, 6:]]
    singles = [categorical(size) for size in sizes]
    actions = np.asarray(jax.jit(distribution.sample)(params, uniforms).action)
    assert (distribution.parameter_size, distribution.uniforms_per_action) == (9, 3)
    assert actions.shape == (6, 3) and actions.dtype == jnp.int32
    modes = jax.jit(distribution.mode)(params).action
    for i, (single, logits) in enumerate(zip(singles, parts, strict=True)):
        np.testing.assert_array_equal(actions[:, i], jax.jit(single.sample)(logits, uniforms[:, i : i + 1]).action)
        np.testing.assert_array_equal(modes[:, i], logits.argmax(-1))
    wanted = sum(np.log(softmax(logits)[np.arange(6), actions[:, i]]) for i, logits in enumerate(parts))
    np.testing.assert_allclose(jax.jit(distribution.log_prob)(params, Sample(actions)), wanted, rtol=1e-5)
    entropies = sum(-(softmax(logits) * np.log(softmax(logits))).sum(-1) for logits in parts)
    np.testing.assert_allclose(jax.jit(distribution.entropy)(params), entropies, rtol=1e-5)


@pytest.mark.parametrize("distribution", [categorical(4), multi_categorical((2, 3))], ids=["one", "several"])
def test_any_axes_may_lead(distribution: ActionDistribution) -> None:
    generator = np.random.default_rng(2)
    given = [generator.normal(size=(6, distribution.parameter_size)).astype(np.float32) for _ in range(2)]
    given.append(generator.random((6, distribution.uniforms_per_action)).astype(np.float32))

    @jax.jit
    def answers(params: jax.Array, other: jax.Array, uniforms: jax.Array) -> list[jax.Array]:
        sample = distribution.sample(params, uniforms)
        numbers = [distribution.log_prob(params, sample), distribution.entropy(params), distribution.kl(params, other)]
        assert all(leaf.shape == params.shape[:-1] for leaf in numbers)
        return [sample.action, distribution.mode(params).action, *numbers]

    flat = answers(*given)
    for shape, rows in {(3, 2): slice(None), (): slice(1)}.items():
        shaped = answers(*(column[rows].reshape(*shape, -1) for column in given))
        for leaf, wanted in zip(shaped, flat, strict=True):
            np.testing.assert_allclose(np.ravel(leaf), np.ravel(wanted[rows]), rtol=1e-6)


def test_kl_is_the_mean_of_the_difference_of_logarithms() -> None:
    p, q = softmax(LOGITS[:4]), softmax(LOGITS[1:])
    np.testing.assert_allclose(categorical(4).kl(LOGITS[:4], LOGITS[1:]), (p * np.log(p / q)).sum(-1), rtol=1e-5)
    masked = jnp.array([-jnp.inf, 0.0, 1.0, 2.0])
    assert np.isfinite(categorical(4).kl(masked, masked)) and categorical(4).kl(jnp.zeros(4), masked) == np.inf
    both = multi_categorical((2, 2)).kl(LOGITS[0], LOGITS[1])
    parts = [categorical(2).kl(LOGITS[0, at], LOGITS[1, at]) for at in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(both, sum(parts), rtol=1e-6)


def test_parameters_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="params must end in an axis of 3"):
        categorical(3).entropy(jnp.zeros((2, 4)))
