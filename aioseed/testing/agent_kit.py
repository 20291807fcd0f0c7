"""Check an agent against the contract of `aioseed.agents.agent`, for authors of agents and networks.

`check_agent` runs every check, and each can be called alone. A failure is an AssertionError that says what does not
hold. Nothing here knows an algorithm: the data comes from a scripted environment with every kind of border.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.agents.agent import ActInput, ActOutput, Agent, LearnerState, LossOutput, PyTree, Unroll
from aioseed.specs import ActionSpec, ArraySpec, flatten, unflatten
from aioseed.types import FINAL, FIRST, TERMINATED, TRUNCATED, EnvironmentSpec

_BATCH = 32
_STEPS = 9
_TOLERANCE = 1e-4
_MODES = 0.8


def check_agent(agent: Agent, spec: EnvironmentSpec) -> None:
    """Raise AssertionError unless `agent` keeps the contract in an environment of `spec`; takes a few seconds.

    Runs `CHECKS`: shapes and dtypes; that everything compiles; equal answers to equal questions; noise that belongs to
    the step and not to its place in the batch; state, previous action and reward at first rows; a loss that is a sum
    over unrolls; borders without influence; finite numbers at extreme inputs; learning on a bandit.
    """
    subject = AgentUnderTest(agent, spec)
    for check in CHECKS:
        check(subject)


class _Gradient(NamedTuple):
    total: jax.Array
    count: jax.Array  # type: ignore[assignment]
    metrics: dict[str, jax.Array]
    gradient: PyTree


class AgentUnderTest:
    """Hold an agent, its compiled functions and an environment of random observations; what the single checks take."""

    def __init__(self, agent: Agent, spec: EnvironmentSpec) -> None:
        self.agent = agent
        self.spec = spec
        assert isinstance(agent, Agent), f"what was built is a {type(agent).__name__}, not an Agent"
        self.learner = jax.jit(agent.init)(jax.random.key(0))
        assert isinstance(self.learner, LearnerState), f"init returned a {type(self.learner).__name__}, no LearnerState"
        for leaf in jax.tree.leaves(agent.initial_state()):
            assert isinstance(leaf, jax.Array | np.ndarray | np.generic), (
                f"initial_state holds {leaf!r}, which is no array"
            )
        assert agent.overlap_steps >= 0, f"overlap_steps is {agent.overlap_steps}"
        self.steps = agent.overlap_steps + _STEPS
        self.keys = jax.random.split(jax.random.key(2), _BATCH)
        self._act = jax.jit(agent.act, static_argnums=4)
        self._gradient = jax.jit(self._gradient_of)

    def _gradient_of(self, params: PyTree, extra: PyTree, unroll: Unroll, keys: jax.Array) -> _Gradient:
        def total(params: PyTree) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
            found = self.agent.loss(params, extra, unroll, keys)
            return found.total, (found.count, found.metrics)

        (summed, (count, metrics)), gradient = jax.value_and_grad(total, has_aux=True)(params)
        return _Gradient(summed, count, metrics, gradient)

    def gradient(self, unroll: Unroll, learner: LearnerState | None = None, keys: jax.Array | None = None) -> _Gradient:
        """Return what `loss` says of an unroll, and the gradient of its total."""
        params, extra = learner or self.learner
        found: _Gradient = self._gradient(params, extra, unroll, self.keys if keys is None else keys)
        return found

    def act(
        self, rows: ActInput, state: PyTree, *, greedy: bool = False, seed: int = 1, learner: LearnerState | None = None
    ) -> tuple[ActOutput, PyTree]:
        """Return the answers to B rows and the states after them."""
        params = self.agent.published(learner or self.learner)
        answer: tuple[ActOutput, PyTree] = self._act(params, jax.random.key(seed), state, rows, greedy)
        is_pair = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], ActOutput)
        assert is_pair, "act must return (ActOutput, state after the rows)"
        return answer

    def trace_again(self) -> None:
        """Forget what was compiled of `act`: it is asked anew what it computes, as for another size of batch."""
        # By a function of its own, since JAX remembers functions.
        self._act = jax.jit(lambda *arguments: self.agent.act(*arguments), static_argnums=4)

    def fresh_state(self) -> PyTree:
        """Return the initial state of B slots."""
        return jax.tree.map(lambda leaf: np.repeat(leaf[None], _BATCH, axis=0), self.agent.initial_state())

    def rows(self, generator: np.random.Generator, flags: np.ndarray, scale: float = 1, sequence: int = 0) -> ActInput:
        """Return B rows with random content under the given flags."""
        parts: list[ArraySpec] = flatten(self.spec.observation)
        leaves = [jnp.asarray(_random(generator, part, scale)) for part in parts]
        reward = scale * generator.normal(size=_BATCH)
        return ActInput(
            unflatten(self.spec.observation, leaves),
            jnp.asarray(np.where((flags & FIRST) != 0, 0, reward).astype(np.float32)),
            jnp.asarray(flags),
            jnp.asarray(_actions(self.spec.action, generator, (_BATCH,))),
            jnp.asarray(np.arange(_BATCH, dtype=np.uint32)),
            jnp.asarray(np.full(_BATCH, 5, np.uint32)),
            jnp.asarray(np.full(_BATCH, sequence, np.uint32)),
            jnp.zeros(_BATCH, jnp.bool_),
            jnp.zeros(_BATCH, jnp.bool_),
        )

    def unroll(
        self,
        generator: np.random.Generator,
        *,
        flags: np.ndarray | None = None,
        scale: float = 1,
        bandit: bool = False,
        first_sequence: int = 0,
        learner: LearnerState | None = None,
    ) -> Unroll:
        """Act through T+1 rows and return them; a bandit pays where the action before a final row was right."""
        state = initial_state = self.fresh_state()
        versions, importance = jnp.zeros(_BATCH, jnp.int32), jnp.ones(_BATCH)
        taken: list[Unroll] = []
        for t, row_flags in enumerate(_flags(generator, self.steps + 1) if flags is None else flags):
            rows = self.rows(generator, row_flags, scale, first_sequence + t)
            if taken:
                rows = rows._replace(previous_action=taken[-1].action)
            if bandit:
                rows = rows._replace(reward=_paid(self.spec.action, rows))
            answer, state = self.act(rows, state, learner=learner)
            row = (rows.observation, rows.reward, rows.flags, rows.previous_action, answer.action, versions)
            taken.append(Unroll(*row, answer.extras, initial_state, importance))
        stacked: Unroll = jax.tree.map(lambda *leaves: np.stack(leaves), *taken)
        return stacked._replace(initial_state=initial_state, importance=importance)


def check_act(subject: AgentUnderTest) -> None:
    """Check the shapes and dtypes of what `act` returns, and that actions are legal."""
    rows = subject.rows(np.random.default_rng(0), np.full(_BATCH, FIRST))
    wanted = jax.tree.leaves(subject.agent.extras(), is_leaf=lambda node: isinstance(node, ArraySpec))
    for greedy in (False, True):
        answer, state = subject.act(rows, subject.fresh_state(), greedy=greedy)
        _assert_spec("the action", answer.action, subject.spec.action.array)
        assert _legal(subject.spec.action, np.asarray(answer.action)), "act answered an action outside the action space"
        given = jax.tree.leaves(answer.extras)
        assert len(wanted) == len(given), f"extras() names {len(wanted)} arrays, act stored {len(given)}"
        for part, leaf in zip(wanted, given, strict=True):
            _assert_spec("an array of the extras", leaf, part)
        _assert_alike("the recurrent state that act returned", state, subject.fresh_state())


def check_loss(subject: AgentUnderTest) -> None:
    """Check the shapes and dtypes of what `loss` and `after_update` return, and that the loss is finite."""
    learner, unroll = subject.learner, subject.unroll(np.random.default_rng(1))
    form = jax.eval_shape(subject.agent.loss, *learner, unroll, subject.keys)
    assert isinstance(form, LossOutput), f"loss returned a {type(form).__name__}, no LossOutput"
    for name, leaf in {"total": form.total, "count": form.count, **form.metrics}.items():
        assert leaf.shape == () and leaf.dtype == jnp.float32, f"loss: {name} must be one float32, it is {leaf}"
    found = subject.gradient(unroll)
    for name, value in {"total": found.total, "count": found.count, **found.metrics}.items():
        assert np.isfinite(value), f"loss: {name} is {value}"
    assert found.count > 0, f"loss counts {found.count} in an unroll of valid steps"
    _assert_alike("what after_update returned", jax.jit(subject.agent.after_update)(learner, jnp.int32(1)), learner)


def check_noise(subject: AgentUnderTest) -> None:
    """Check that an action depends on its own row alone, noise included, and one that takes the mode on no noise."""
    generator = np.random.default_rng(2)
    rows, others = (subject.rows(generator, np.zeros(_BATCH, np.uint8)) for _ in range(2))
    marked = jnp.ones(_BATCH, jnp.bool_)
    others = others._replace(slot=others.slot + _BATCH, evaluation=marked, takes_mode=marked)
    state = subject.fresh_state()
    once, _ = subject.act(rows, state)
    _assert_equal("act answered differently to the same question", once, subject.act(rows, state)[0])

    subject.trace_again()
    again, _ = subject.act(rows, state)
    _assert_close("act is not pure: compiled again, it answers the same question differently", once, again)

    order = generator.permutation(_BATCH)
    moved, _ = subject.act(_take(rows, order), state)
    _assert_equal("the answer to a row depends on its place in the batch", _take(once, order), moved)

    half = np.arange(_BATCH // 2)
    joined = jax.tree.map(lambda mine, other: np.concatenate([mine[half], other[half.size :]]), rows, others)
    mixed, _ = subject.act(joined, state)
    _assert_equal("the answer to a row depends on the other rows", _take(once, half), _take(mixed, half))

    greedy, _ = subject.act(rows, state, greedy=True)
    _assert_equal("a greedy action depends on the key", greedy, subject.act(rows, state, greedy=True, seed=2)[0])

    # Not all need agree: an agent may explore a little in evaluation.
    measured, _ = subject.act(rows._replace(evaluation=marked, takes_mode=marked), state)
    alike = (np.asarray(measured.action) == greedy.action).reshape(_BATCH, -1).all(axis=1).mean()
    assert alike >= _MODES, f"rows that take the mode are drawn: only {alike:.0%} of them answer as greedy ones do"


def check_first_rows(subject: AgentUnderTest) -> None:
    """Check that a first row forgets the recurrent state, action and reward before it."""
    generator = np.random.default_rng(3)
    rows = subject.rows(generator, np.full(_BATCH, FIRST))
    fresh = subject.fresh_state()
    answer = subject.act(rows, fresh)
    used = jax.tree.map(lambda leaf: leaf + np.ones_like(leaf), fresh)
    _assert_equal("the recurrent state is not reset at a first row", answer, subject.act(rows, used))
    changed = rows._replace(previous_action=jnp.asarray(_actions(subject.spec.action, generator, (_BATCH,))))
    _assert_equal("the previous action of a first row matters", answer, subject.act(changed, fresh))
    changed = rows._replace(reward=rows.reward + 1)
    _assert_equal("the reward of a first row matters", answer, subject.act(changed, fresh))


def check_sums(subject: AgentUnderTest) -> None:
    """Check that total, count, metrics and gradient are sums over unrolls, each with the noise of its own key."""
    # Two batches that exchange half of their unrolls keep their sum; sizes stay as they are, so nothing is compiled.
    generator = np.random.default_rng(4)
    one, other = subject.unroll(generator), subject.unroll(generator, scale=3)
    before = _added(subject.gradient(one), subject.gradient(other))
    after = _added(subject.gradient(_halves(one, other)), subject.gradient(_halves(other, one)))
    _assert_close("the loss of a batch is not a sum over its unrolls", before, after)
    order = generator.permutation(_BATCH)
    moved = subject.gradient(_reordered(one, order), keys=subject.keys[order])
    _assert_close("the loss of an unroll depends on its place in the batch", subject.gradient(one), moved)


def check_borders(subject: AgentUnderTest) -> None:
    """Check that what stands at an episode border without meaning has no influence on the loss."""
    generator = np.random.default_rng(5)
    unroll = subject.unroll(generator)
    first = (np.asarray(unroll.flags) & FIRST) != 0
    before_first = np.concatenate([first[1:], np.zeros_like(first[:1])])
    other = _actions(subject.spec.action, generator, first.shape)
    wide = (*first.shape, *(1 for _ in subject.spec.action.array.shape))
    changed = unroll._replace(
        action=jnp.where(before_first.reshape(wide), other, unroll.action),
        previous_action=jnp.where(first.reshape(wide), other, unroll.previous_action),
        reward=jnp.where(first, jnp.float32(7), unroll.reward),
    )
    _assert_close(
        "the action before a first row, or the first row's reward or previous action, has an influence on the loss",
        subject.gradient(unroll),
        subject.gradient(changed),
    )
    begins = first[0]

    def other_where_first(leaf: np.ndarray) -> np.ndarray:
        return np.where(begins.reshape(-1, *(1 for _ in leaf.shape[1:])), leaf + np.ones_like(leaf), leaf)

    changed = unroll._replace(initial_state=jax.tree.map(other_where_first, unroll.initial_state))
    _assert_close(
        "the recurrent state that entered a first row has an influence on the loss",
        subject.gradient(unroll),
        subject.gradient(changed),
    )


def check_extremes(subject: AgentUnderTest) -> None:
    """Check that loss and gradient are finite at huge observations and rewards."""
    found = subject.gradient(subject.unroll(np.random.default_rng(6), scale=1e4))
    finite = all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(found))
    assert finite, "the loss or its gradient is not finite at observations and rewards of 10,000"


def check_learns(subject: AgentUnderTest, updates: int = 60, step_size: float = 0.03) -> None:
    """Check that sign descent learns a bandit whose first action component should be 0 (a box: in its lower half)."""
    generator = np.random.default_rng(7)
    learner = subject.learner
    after_update = jax.jit(subject.agent.after_update)

    # One-step episodes: first row, final row, and again.
    flags = np.resize(np.array([FIRST, TERMINATED]), subject.steps + 1)
    shares: list[float] = []
    for step in range(updates):
        unroll = subject.unroll(
            generator,
            flags=np.repeat(flags[:, None], _BATCH, axis=1),
            bandit=True,
            first_sequence=step * len(flags),
            learner=learner,
        )
        shares.append(float(unroll.reward[flags == TERMINATED].mean()))
        gradient = subject.gradient(unroll, learner).gradient
        params = jax.tree.map(lambda leaf, slope: leaf - step_size * np.sign(slope), learner.params, gradient)
        learner = after_update(learner._replace(params=params), jnp.int32(step + 1))
    before, after = float(np.mean(shares[:5])), float(np.mean(shares[-5:]))
    assert after > 0.5 * (before + 1), (
        f"a bandit is not learned: {before:.2f} of its reward at first, {after:.2f} at last"
    )


CHECKS: tuple[Callable[[AgentUnderTest], None], ...] = (
    check_act,
    check_noise,
    check_first_rows,
    check_loss,
    check_sums,
    check_borders,
    check_extremes,
    check_learns,
)
"""Every check; for a test of its own each, parametrise over it with one `AgentUnderTest`."""


def _flags(generator: np.random.Generator, rows: int) -> np.ndarray:
    """Return uint8[rows, B] with every kind of border, a first row after one that was not final included."""
    flags = np.zeros((rows, _BATCH), np.uint8)
    flags[0, ::2] = FIRST
    choices = np.array([0, TERMINATED, TRUNCATED, FIRST], np.uint8)
    for t in range(1, rows):
        drawn = generator.choice(choices, size=_BATCH, p=[0.7, 0.12, 0.1, 0.08])
        flags[t] = np.where((flags[t - 1] & FINAL) != 0, FIRST, drawn)
    return flags


def _random(generator: np.random.Generator, part: ArraySpec, scale: float) -> np.ndarray:
    shape = (_BATCH, *part.shape)
    dtype = np.dtype(part.dtype)
    if dtype.kind == "f":
        return (scale * generator.normal(size=shape)).astype(dtype)
    return generator.integers(0, 2 if dtype.kind == "b" else 100, shape).astype(dtype)


def _actions(action: ActionSpec, generator: np.random.Generator, leading: tuple[int, ...]) -> np.ndarray:
    shape = (*leading, *action.array.shape)
    if action.kind == "box":
        low, high = (bound.reshape(action.array.shape) for bound in _bounds(action))
        return np.clip(generator.uniform(low, high, shape).astype(np.float32), low, high)
    return generator.integers(0, np.array(action.sizes).reshape(action.array.shape), shape).astype(action.array.dtype)


def _bounds(action: ActionSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[A] twice, the bounds of a box, 1 away from 0 where there are none."""
    low, high = (np.array(bound, np.float32) for bound in (action.low, action.high))
    return np.where(np.isfinite(low), low, np.float32(-1)), np.where(np.isfinite(high), high, np.float32(1))


def _legal(action: ActionSpec, taken: np.ndarray) -> bool:
    flat = taken.reshape(len(taken), -1)
    if action.kind == "box":
        low, high = (np.array(bound, np.float32) for bound in (action.low, action.high))
        return bool(np.all((flat >= low) & (flat <= high)))
    return bool(np.all((flat >= 0) & (flat < np.array(action.sizes))))


def _paid(action: ActionSpec, rows: ActInput) -> jax.Array:
    """Return the bandit's reward: 1 at a final row that the right action led to."""
    component = np.asarray(rows.previous_action).reshape(_BATCH, -1)[:, 0]
    right = component < np.mean(_bounds(action), axis=0)[0] if action.kind == "box" else component == 0
    return jnp.asarray((right & ((np.asarray(rows.flags) & FINAL) != 0)).astype(np.float32))


def _take(tree: PyTree, rows: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], tree)


def _reordered(unroll: Unroll, order: np.ndarray) -> Unroll:
    by_unroll = unroll._replace(initial_state=(), importance=unroll.importance[None])
    rows: Unroll = jax.tree.map(lambda leaf: np.asarray(leaf)[:, order], by_unroll)
    return rows._replace(initial_state=_take(unroll.initial_state, order), importance=rows.importance[0])


def _halves(one: Unroll, other: Unroll) -> Unroll:
    """Return the first half of the unrolls of `one` and the second half of those of `other`."""
    half = _BATCH // 2

    def join(axis: int, mine: jax.Array, its: jax.Array) -> np.ndarray:
        return np.concatenate([np.take(mine, range(half), axis), np.take(its, range(half, _BATCH), axis)], axis)

    axes = [0 if name in ("initial_state", "importance") else 1 for name in Unroll._fields]
    joined = [jax.tree.map(partial(join, axis), *pair) for axis, *pair in zip(axes, one, other, strict=True)]
    return Unroll(*joined)


def _added(one: _Gradient, other: _Gradient) -> _Gradient:
    added: _Gradient = jax.tree.map(lambda mine, its: mine + its, one, other)
    return added


def _assert_spec(name: str, array: jax.Array, spec: ArraySpec) -> None:
    wanted = (_BATCH, *spec.shape)
    assert array.shape == wanted and array.dtype == spec.dtype, (
        f"{name} must be {spec.dtype}{list(wanted)}, it is {array.dtype}{list(array.shape)}"
    )


def _assert_alike(name: str, given: PyTree, wanted: PyTree) -> None:
    def form(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: (jnp.shape(leaf), str(jnp.result_type(leaf))), tree)

    assert form(given) == form(wanted), f"{name} has another form: {form(given)} instead of {form(wanted)}"


def _assert_equal(claim: str, one: PyTree, other: PyTree) -> None:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs), claim


def _assert_close(claim: str, one: PyTree, other: PyTree) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.max(np.abs(a - b)) <= _TOLERANCE * (1 + np.max(np.abs(a))), f"{claim}: {a} and {b}"
