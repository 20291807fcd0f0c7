"""Normals over a box: against numeric integrals, at the edges, and at numbers that no network should put out."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.errors import SpaceError
from aioseed.ops.distributions import ActionDistribution, Sample
from aioseed.ops.normal import clipped_normal, log_tail, tanh_normal
from aioseed.specs import ActionSpec, ArraySpec, discrete

BOX = ActionSpec("box", ArraySpec("float32", (2,)), low=(-2.0, 0.0), high=(2.0, 5.0))
LINE = ActionSpec("box", ArraySpec("float32", ()), low=(-2.0,), high=(2.0,))
MAKERS = {"tanh": tanh_normal, "clip": clipped_normal}
CASES = [(0.0, 1.0), (0.7, 0.3), (-2.5, 0.6), (0.2, 3.0), (4.0, 0.05)]

each = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def raw_of(std: float) -> float:
    """Return the raw scale of a standard deviation, for softplus that is 1 at 0 and 0.001 at least."""
    return math.log(math.expm1(std - 1e-3)) - math.log(math.expm1(1 - 1e-3))


def params_of(loc: float, std: float) -> jax.Array:
    return jnp.array([loc, raw_of(std)], jnp.float32)


@cache
def whole(make: Callable, spec: ActionSpec = LINE) -> ActionDistribution:
    """Return a distribution whose functions are compiled as a whole: operation by operation takes seconds."""
    found = make(spec)
    return found._replace(
        sample=jax.jit(found.sample),
        mode=jax.jit(found.mode),
        log_prob=jax.jit(found.log_prob),
        entropy=jax.jit(found.entropy),
        kl=jax.jit(found.kl),
    )


def log_probs(make: Callable, loc: float, std: float, drawn: np.ndarray) -> np.ndarray:
    """Return float64[N], the log-probabilities of draws in one dimension."""
    hidden = jnp.asarray(drawn, jnp.float32)[:, None]
    params = jnp.broadcast_to(params_of(loc, std), (len(drawn), 2))
    return np.asarray(whole(make).log_prob(params, Sample(hidden[:, 0], (hidden,))), float)


def integral(values: np.ndarray, points: np.ndarray) -> float:
    return float(np.sum((values[1:] + values[:-1]) / 2 * np.diff(points)))


@pytest.mark.parametrize(("loc", "std"), CASES)
def test_the_density_of_tanh_integrates_to_1_and_to_the_tails_at_the_edges(loc: float, std: float) -> None:
    drawn = np.linspace(loc - 8 * std, loc + 8 * std, 40_001)
    # dA = (1 - tanh^2) dx, kept in logarithms: tanh itself is 1 where float64 ends.
    slope = 2 * (np.log(2) - np.abs(drawn) - np.log1p(np.exp(-2 * np.abs(drawn))))
    density = np.exp(log_probs(tanh_normal, loc, std, drawn) + slope)
    assert abs(integral(density, drawn) - 1) < 2e-4
    beyond = drawn > np.arctanh(0.999)
    tail = 1 - NormalDist(loc, std).cdf(np.arctanh(0.999))
    assert abs(integral(np.where(beyond, density, 0), drawn) - tail) < 2e-3


def test_the_density_of_tanh_is_per_unit_of_the_action_rescaled_to_minus_1_and_1() -> None:
    drawn = np.linspace(0.3 - 8 * 0.8, 0.3 + 8 * 0.8, 40_001)
    squashed = np.tanh(drawn)
    density = np.exp(log_probs(tanh_normal, 0.3, 0.8, drawn))
    assert abs(integral(density, squashed) - 1) < 1e-4
    edge = squashed > 0.999
    tail = 1 - NormalDist(0.3, 0.8).cdf(np.arctanh(0.999))
    assert abs(integral(density[edge], squashed[edge]) - tail) < 1e-4


@pytest.mark.parametrize(("loc", "std"), CASES)
def test_clipped_density_and_the_two_tails_are_1_together(loc: float, std: float) -> None:
    normal = NormalDist(loc, std)
    below, above = np.exp(log_probs(clipped_normal, loc, std, np.array([-1.5, 1.0 + std])))
    np.testing.assert_allclose([below, above], [normal.cdf(-1), 1 - normal.cdf(1)], rtol=1e-4, atol=1e-7)
    # The bounds themselves are the tails'.
    inside = np.linspace(-1, 1, 20_001)[1:-1]
    density = np.exp(log_probs(clipped_normal, loc, std, inside))
    assert abs(integral(density, inside) + below + above - 1) < 2e-3
    edges = log_probs(clipped_normal, loc, std, np.array([-1.0, -7.0]))
    np.testing.assert_allclose(np.exp(edges), [below, below], rtol=1e-6)


@pytest.mark.parametrize(("loc", "std"), [*CASES, (0.0, 5.0)])
def test_entropy_of_tanh_is_the_mean_of_minus_the_log_prob(loc: float, std: float) -> None:
    drawn = np.linspace(loc - 9 * std, loc + 9 * std, 20_001)
    weight = np.exp(-0.5 * ((drawn - loc) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    wanted = integral(-log_probs(tanh_normal, loc, std, drawn) * weight, drawn)
    np.testing.assert_allclose(whole(tanh_normal).entropy(params_of(loc, std)), wanted, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("loc", "std"), CASES)
def test_entropy_of_the_clipped_normal_is_the_mean_of_minus_the_log_prob(loc: float, std: float) -> None:
    normal = NormalDist(loc, std)
    tails = log_probs(clipped_normal, loc, std, np.array([-1.0, 1.0]))
    inside = np.linspace(-1, 1, 20_001)[1:-1]
    density = log_probs(clipped_normal, loc, std, inside)
    masses = np.array([normal.cdf(-1), 1 - normal.cdf(1)])
    wanted = -np.sum(masses * tails) - integral(np.exp(density) * density, inside)
    np.testing.assert_allclose(whole(clipped_normal).entropy(params_of(loc, std)), wanted, rtol=1e-3, atol=2e-3)


@each
def test_draws_are_the_inverse_cdf_of_the_uniforms_and_finite_at_both_ends(make: Callable) -> None:
    distribution = whole(make)
    uniforms = np.array([0.0, 2**-23, 0.1, 0.5, 0.9, 1 - 2**-23, 1 - 2**-24], np.float32)
    params = jnp.broadcast_to(params_of(0.5, 2.0), (7, 2))
    (drawn,) = jax.jit(distribution.sample)(params, uniforms[:, None]).hidden
    middle = np.minimum(uniforms.astype(float) + 2**-24, 1 - 2**-24)
    wanted = [NormalDist(0.5, 2.0).inv_cdf(u) for u in middle]
    np.testing.assert_allclose(drawn[:, 0], wanted, rtol=2e-4)
    assert drawn[0, 0] - 0.5 == -(drawn[-1, 0] - 0.5), "no draw is likelier on one side"


@each
def test_actions_are_stretched_to_their_bounds_and_never_leave_them(make: Callable) -> None:
    distribution = whole(make, BOX)
    assert (distribution.parameter_size, distribution.uniforms_per_action) == (4, 2)
    assert distribution.hidden == (ArraySpec("float32", (2,)),)
    params = jnp.zeros((3, 4)).at[1].set(jnp.array([50.0, -50, 0, 0])).at[2].set(jnp.array([-50.0, 50, 0, 0]))
    sample = jax.jit(distribution.sample)(params, jnp.full((3, 2), 0.5))
    np.testing.assert_allclose(sample.action, [[0, 2.5], [2, 0], [-2, 5]], atol=1e-6)
    taken = np.asarray(sample.action)
    assert np.all(taken >= np.array(BOX.low)) and np.all(taken <= np.array(BOX.high))
    np.testing.assert_allclose(distribution.mode(params).action, [[0, 2.5], [2, 0], [-2, 5]], atol=1e-6)
    assert sample.action.dtype == jnp.float32 and sample.hidden[0].shape == (3, 2)


@each
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_actions_have_the_shape_of_their_spec(make: Callable, shape: tuple[int, ...]) -> None:
    size = math.prod(shape)
    spec = ActionSpec("box", ArraySpec("float32", shape), low=(-1.0,) * size, high=(3.0,) * size)
    distribution = whole(make, spec)
    params = jnp.zeros((2, 5, distribution.parameter_size))
    for sample in (distribution.sample(params, jnp.zeros((2, 5, size))), distribution.mode(params)):
        assert sample.action.shape == (2, 5, *shape)
        assert distribution.log_prob(params, sample).shape == distribution.entropy(params).shape == (2, 5)


@each
def test_components_are_independent(make: Callable) -> None:
    params = jnp.array([[0.3, -0.2, 0.5, -1.0]])
    both, single = whole(make, BOX), whole(make)
    sample = both.sample(params, jnp.array([[0.2, 0.95]]))
    parts = [jnp.array([[0.3, 0.5]]), jnp.array([[-0.2, -1.0]])]
    drawn = [Sample(sample.action, (sample.hidden[0][:, i : i + 1],)) for i in range(2)]
    alone = [single.log_prob(part, one) for part, one in zip(parts, drawn, strict=True)]
    np.testing.assert_allclose(both.log_prob(params, sample), alone[0] + alone[1], rtol=1e-5)
    entropies = [single.entropy(part) for part in parts]
    np.testing.assert_allclose(both.entropy(params), entropies[0] + entropies[1], rtol=1e-5)


@each
def test_kl_is_that_of_the_normals(make: Callable) -> None:
    distribution, ours, theirs = whole(make), (0.5, 0.4), (-0.3, 1.5)
    np.testing.assert_allclose(distribution.kl(params_of(*ours), params_of(*ours)), 0, atol=1e-6)
    points = np.linspace(-6, 7, 50_001)
    p, q = (np.array([NormalDist(*which).pdf(x) for x in points]) for which in (ours, theirs))
    wanted = integral(p * np.log(p / q, where=p > 0, out=np.zeros_like(p)), points)
    np.testing.assert_allclose(distribution.kl(params_of(*ours), params_of(*theirs)), wanted, rtol=1e-3)


@each
@pytest.mark.parametrize("function", ["softplus", "exp"])
def test_the_standard_deviation_starts_where_it_is_told_and_has_a_minimum(make: Callable, function: str) -> None:
    distribution = make(LINE, std=function, min_std=0.01, initial_std=0.25)
    one_up = jnp.array([[NormalDist().cdf(1.0)]])

    def std(raw: float) -> float:
        return float(distribution.sample(jnp.array([[0.0, raw]]), one_up).hidden[0][0, 0])

    assert std(0.0) == pytest.approx(0.25, rel=1e-4)
    assert std(-1e6) == pytest.approx(0.01, rel=1e-3)
    assert std(3.0) > std(0.0) > std(-3.0) > 0.01


@each
def test_a_raw_scale_beyond_the_cut_of_exp_still_has_a_gradient(make: Callable) -> None:
    distribution = make(LINE, std="exp")
    slope = jax.jit(jax.grad(lambda params: distribution.sample(params, jnp.array([0.9])).hidden[0][0]))(
        jnp.array([0.0, 40.0])
    )
    assert slope[1] == pytest.approx(math.exp(15) * NormalDist().inv_cdf(0.9), rel=1e-2)


@each
@pytest.mark.parametrize("function", ["softplus", "exp"])
def test_everything_is_finite_at_extreme_parameters_and_so_are_gradients(make: Callable, function: str) -> None:
    distribution = make(BOX, std=function)
    sizes = [-1e6, -30.0, 0.0, 30.0, 1e6]
    params = jnp.array([[loc, -loc, raw, -raw] for loc in sizes for raw in sizes], jnp.float32)
    uniforms = jnp.broadcast_to(jnp.array([0.0, 1 - 2**-24]), (25, 2))

    def total(params: jax.Array) -> jax.Array:
        sample = distribution.sample(params, uniforms)
        held = jax.lax.stop_gradient(sample)
        return sum(
            jnp.sum(part)
            for part in (
                sample.action, distribution.log_prob(params, held), distribution.log_prob(params, sample),
                distribution.entropy(params), distribution.kl(params, params),
            )
        )  # fmt: skip

    value, gradient = jax.jit(jax.value_and_grad(total))(params)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


@each
def test_gradients_are_those_of_differences(make: Callable) -> None:
    distribution, sample = whole(make), Sample(jnp.zeros(3), (jnp.array([[-1.7], [0.4], [1.1]]),))

    @jax.jit
    def total(params: jax.Array) -> jax.Array:
        rows = jnp.broadcast_to(params, (3, 2))
        return jnp.sum(distribution.log_prob(rows, sample)) + distribution.entropy(params)

    gradient = jax.grad(total)(jnp.array([0.3, -0.4]))
    for i in range(2):
        shift = jnp.zeros(2).at[i].set(3e-3)
        at = jnp.array([0.3, -0.4])
        assert gradient[i] == pytest.approx(float(total(at + shift) - total(at - shift)) / 6e-3, rel=1e-2)


def test_the_gradient_of_the_log_tail_is_right_where_the_tail_is_far() -> None:
    points = jnp.array([-1e7, -1e4, -300.0, -10.01, -9.99, -2.0, 0.0, 3.0, 1e5])
    slopes = jax.jit(jax.vmap(jax.grad(log_tail)))(points)
    near = [NormalDist().pdf(x) / NormalDist().cdf(x) for x in (-2.0, 0.0, 3.0)]
    np.testing.assert_allclose(slopes, [1e7, 1e4, 300.00333, 10.10718, 10.08738, *near, 0], rtol=1e-4)


def test_the_gradient_is_right_for_a_bound_that_the_policy_has_left_far_behind() -> None:
    sample = Sample(jnp.array(-1.0), (jnp.array([-1.0]),))
    slope = jax.jit(jax.grad(lambda params: whole(clipped_normal).log_prob(params, sample)))(jnp.array([5.0, -40.0]))
    assert slope[0] == pytest.approx(-6000 / 1e-3, rel=1e-3)


@each
@pytest.mark.parametrize(
    ("low", "high", "complaint"),
    [(-np.inf, 1.0, "needs finite bounds"), (0.0, np.inf, "needs finite bounds"), (1.0, 1.0, "can only be 1.0")],
)
def test_a_box_without_bounds_or_without_room_is_refused_in_one_sentence(
    make: Callable, low: float, high: float, complaint: str
) -> None:
    with pytest.raises(SpaceError, match=f"element 1 of the Box action .*{complaint}"):
        make(ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, low), high=(1.0, high)))


@each
def test_what_is_no_box_is_refused(make: Callable) -> None:
    with pytest.raises(SpaceError, match="needs a Box action, this one is discrete"):
        make(discrete(3))
