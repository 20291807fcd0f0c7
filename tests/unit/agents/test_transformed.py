"""Transforms in front of an agent: the contract holds, the statistics are published, and `update` alone writes them."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aioseed.agents.agent import ActInput, LearnerState, Unroll
from aioseed.agents.transformed import Entered, Published, TransformedExtra, transformed
from aioseed.agents.vtrace import VtraceConfig
from aioseed.agents.vtrace.agent import build
from aioseed.nets.frame_stack import frame_stack
from aioseed.nets.leaf_transforms import normalize
from aioseed.nets.mlp import mlp
from aioseed.nets.transforms import chain
from aioseed.specs import ArraySpec, discrete
from aioseed.testing.agent_kit import AgentUnderTest, check_agent
from aioseed.types import FIRST, TERMINATED, EnvironmentSpec

SPEC = EnvironmentSpec(ArraySpec("float32", (3,)), discrete(3))
CHAIN = chain(SPEC.observation, [normalize, partial(frame_stack, n=2)])


def make():
    inner = build(VtraceConfig(), SPEC._replace(observation=CHAIN.observation), partial(mlp, hidden=(8,)))
    return transformed(inner, CHAIN)


def test_an_agent_behind_transforms_keeps_the_contract():
    check_agent(make(), SPEC)


def test_functions_of_the_agent_get_its_own_part_and_what_they_return_goes_back_there():
    inner = build(VtraceConfig(), SPEC, partial(mlp, hidden=(8,)))
    assert transformed(inner, chain(SPEC.observation, [])).priorities is None
    agent = transformed(
        inner._replace(
            after_update=lambda state, step: LearnerState((state.params, step), (state.extra, step)),
            observe=lambda state, unroll: LearnerState(state.params, (state.extra, unroll.initial_state)),
            published=lambda state: (state.params, state.extra),
            priorities=lambda unroll: unroll.initial_state,
        ),
        chain(SPEC.observation, []),
    )
    learner = LearnerState("params", TransformedExtra((), "extra"))
    unroll = Unroll(*[()] * len(Unroll._fields))._replace(
        flags=np.zeros((3, 2), np.uint8), initial_state=Entered((), "state")
    )
    assert agent.after_update(learner, 5) == LearnerState(("params", 5), TransformedExtra((), ("extra", 5)))
    assert agent.observe(learner, unroll) == LearnerState("params", TransformedExtra((), ("extra", "state")))
    assert agent.published(learner) == Published((), ("params", "extra"))
    assert agent.priorities is not None and agent.priorities(unroll) == "state"


def test_acting_learning_and_statistics_see_frames_of_their_own_episode():
    """The network's part is played by functions that return what they see."""
    inner = build(VtraceConfig(), SPEC, partial(mlp, hidden=(8,)))._replace(
        act=lambda params, key, state, rows, greedy: (rows.observation, state),
        loss=lambda params, extra, unroll, keys: unroll.observation,
    )
    frames = np.random.default_rng(0).normal(3, 2, (5, 2, 3)).astype(np.float32)
    flags = np.array([[FIRST, FIRST], [0, 0], [0, FIRST], [TERMINATED, 0], [FIRST, 0]], np.uint8)
    before = np.where(flags[..., None] == FIRST, frames, np.roll(frames, 1, axis=0))
    stacks = np.concatenate([before, frames], axis=-1)

    transform = chain(SPEC.observation, [partial(frame_stack, n=2)])
    agent = transformed(inner, transform)
    state = Entered(jax.tree.map(lambda leaf: np.stack([leaf] * 2), transform.initial_state()), ())
    rows = ActInput(*[None] * len(ActInput._fields))
    unroll = Unroll(*[()] * len(Unroll._fields))._replace(observation=frames, flags=flags, initial_state=state)
    learned_from = jax.jit(agent.loss)((), TransformedExtra(transform.init(), ()), unroll, None)
    np.testing.assert_array_equal(learned_from, stacks)
    act = jax.jit(agent.act, static_argnums=4)
    for frame, flag, stack in zip(frames, flags, stacks, strict=True):
        now = rows._replace(observation=frame, flags=flag)
        seen, state = act(Published(transform.init(), ()), None, state, now, False)
        np.testing.assert_array_equal(seen, stack)

    both = chain(SPEC.observation, [partial(frame_stack, n=2), normalize])
    entered = Entered(jax.tree.map(lambda leaf: np.stack([leaf] * 2), both.initial_state()), ())
    learner = LearnerState((), TransformedExtra(both.init(), ()))
    learned = jax.jit(transformed(inner, both).observe)(learner, unroll._replace(initial_state=entered))
    _, (moments,) = learned.extra.transform
    np.testing.assert_allclose(moments.mean, stacks[:-1].reshape(-1, 6).mean(0), rtol=1e-4)


def test_statistics_are_published_and_move_with_what_was_seen():
    agent = make()
    subject = AgentUnderTest(agent, SPEC)
    unroll = subject.unroll(np.random.default_rng(0))
    learned = jax.jit(agent.observe)(subject.learner, unroll)
    published = agent.published(learned)
    assert isinstance(published, Published)
    (moments,), _ = published.transform
    rows = np.asarray(unroll.observation)[:-1].reshape(-1, 3)
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-4, atol=1e-5)
    assert float(moments.rows) == len(rows)
    # Parameters and the optimiser's tree know nothing of them, and a step of the optimiser does not touch them.
    assert learned.params is not None and jax.tree.structure(learned.params) == jax.tree.structure(
        subject.learner.params
    )
    after = agent.after_update(learned, jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, after.extra, learned.extra)
    assert subject.gradient(unroll, learned).total != subject.gradient(unroll).total


def test_rows_that_two_unrolls_share_count_once():
    """The last rows of an unroll are the burn-in of the next: statistics take each row of a slot from one of them."""
    overlap, fresh = 2, 3
    inner = build(VtraceConfig(), SPEC, partial(mlp, hidden=(8,)))._replace(overlap_steps=overlap)
    agent = transformed(inner, chain(SPEC.observation, [normalize]))
    stream = np.random.default_rng(0).normal(3, 2, (overlap + 2 * fresh + 1, 4, 3)).astype(np.float32)
    unroll = AgentUnderTest(agent, SPEC).unroll(np.random.default_rng(1))
    learner = agent.init(jax.random.key(0))
    for begin in (0, fresh):
        rows = stream[begin : begin + overlap + fresh + 1]
        learner = agent.observe(learner, unroll._replace(observation=rows, flags=np.zeros(rows.shape[:2], np.uint8)))
    ((moments,),) = agent.published(learner).transform
    seen = stream[overlap : overlap + 2 * fresh].reshape(-1, 3)
    assert float(moments.rows) == len(seen)
    np.testing.assert_allclose(moments.mean, seen.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.variance, seen.var(0), rtol=1e-4)
