"""Check a network against the contract of `aioseed.nets.network`, for authors of networks.

A failure is an AssertionError that says what does not hold::

    from aioseed.specs import ArraySpec, discrete
    from aioseed.testing.network_kit import check_network
    from aioseed.types import EnvironmentSpec

    check_network(partial(my_network, units=16), EnvironmentSpec(ArraySpec("float32", (4,)), discrete(2)))
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.nets.network import Head, Network, NetworkFactory, NetworkInputs, PyTree, previous_action_size
from aioseed.specs import ArraySpec, flatten, unflatten
from aioseed.types import EnvironmentSpec

_BATCH = 8
_ROWS = 7
_HEADS = {"policy": Head(3), "value": Head(1)}


def check_network(make_network: NetworkFactory, spec: EnvironmentSpec, *, tolerance: float = 1e-3) -> None:
    """Raise AssertionError unless the network keeps the contract in an environment of `spec`; takes a few seconds.

    It is asked for two heads, and given random rows with first ones among them: what it returns must have the shapes
    and dtypes that its users rely on, stepping through rows must give what unrolling them gives, and what was before a
    first row must not matter.

    Args:
        make_network: What a preset names, its options bound to it.
        spec: Of the environment.
        tolerance: Largest difference between a step and an unroll, as a share of the largest number, or of 1.
    """
    network = make_network(spec.observation, spec.action, _HEADS)
    assert isinstance(network, Network), f"what was made is a {type(network).__name__}, not a Network"
    params = jax.jit(network.init)(jax.random.key(0))
    rows, fresh = _rows(spec), _fresh(network)
    step, unroll = jax.jit(network.step), jax.jit(network.unroll)
    unrolled, last = unroll(params, fresh, rows)
    _assert_outputs("unroll", unrolled, (_ROWS, _BATCH))
    _assert_state("unroll", last, fresh)

    state = fresh
    for t in range(_ROWS):
        row = _at(rows, t)
        other = jax.tree.map(lambda leaf: leaf + jnp.ones_like(leaf), state)
        outputs, after = step(params, state, row)
        _assert_outputs("step", outputs, (_BATCH,))
        _assert_state("step", after, fresh)
        first = np.asarray(row.first)
        _assert_close(
            "step does not begin anew at a first row: the state before it matters",
            _at((outputs, after), first),
            _at(step(params, other, row), first),
            tolerance,
        )
        _assert_close(f"step and unroll differ in row {t}", outputs, _at(unrolled, t), tolerance)
        state = after
    _assert_close("step and unroll end with different states", state, last, tolerance)


def _rows(spec: EnvironmentSpec) -> NetworkInputs:
    """Return random rows, a quarter of which are first."""
    generator = np.random.default_rng(0)
    first = generator.random((_ROWS, _BATCH)) < 0.25
    first[0, ::2] = True
    parts: list[ArraySpec] = flatten(spec.observation)
    previous = generator.uniform(size=(_ROWS, _BATCH, previous_action_size(spec.action)))
    reward = generator.normal(size=(_ROWS, _BATCH))
    return NetworkInputs(
        unflatten(spec.observation, [jnp.asarray(_numbers(generator, part)) for part in parts]),
        jnp.asarray(np.where(first, 0, reward).astype(np.float32)),
        jnp.asarray(first),
        jnp.asarray(np.where(first[..., None], 0, previous).astype(np.float32)),
    )


def _numbers(generator: np.random.Generator, part: ArraySpec) -> np.ndarray:
    shape = (_ROWS, _BATCH, *part.shape)
    if np.dtype(part.dtype).kind == "f":
        return generator.normal(size=shape).astype(part.dtype)
    return generator.integers(0, 2 if part.dtype == "bool" else 100, shape).astype(part.dtype)


def _fresh(network: Network) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], _BATCH, axis=0), network.initial_state())


def _at(tree: PyTree, rows: int | np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _assert_outputs(name: str, outputs: object, leading: tuple[int, ...]) -> None:
    assert isinstance(outputs, dict), f"{name} returned outputs that are a {type(outputs).__name__}, no dict"
    assert outputs.keys() >= _HEADS.keys(), f"{name} returned {sorted(outputs)}, it was asked for {sorted(_HEADS)}"
    for head, wanted in _HEADS.items():
        given, shape = outputs[head], (*leading, wanted.size)
        assert given.shape == shape and given.dtype == jnp.float32, (
            f"the output {head!r} of {name} must be float32{list(shape)}, it is {given.dtype}{list(given.shape)}"
        )


def _assert_state(name: str, given: PyTree, wanted: PyTree) -> None:
    def form(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)

    assert form(given) == form(wanted), f"the state after {name} has another form: {form(given)}, not {form(wanted)}"


def _assert_close(claim: str, one: PyTree, other: PyTree, tolerance: float) -> None:
    for mine, its in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(mine, np.float32), np.asarray(its, np.float32)
        if a.size:
            apart = float(np.max(np.abs(a - b)))
            assert apart <= tolerance * max(1.0, float(np.max(np.abs(b)))), f"{claim}: by {apart:.3g}"
