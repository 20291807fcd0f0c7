"""What is wrong with updates is said by name: what is not finite, what has no gradient, what is not remembered."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from aioseed.training.inspection import FIRST_UPDATES, FirstUpdates, Inspection
from aioseed.types import FIRST

GRADIENT = {"params/a": 1.0, "params/b": 4.0, "params/c": 9.0}
COLUMNS = type("Columns", (), {"flags": np.full((3, 2), FIRST, np.uint8), "initial_state": ()})()
ONE = np.ones(1, bool)


def looked_at(*, total=1.0, metrics=None, count=8.0, gradient=None, after=None) -> Inspection:
    """Return what is found at one step, as an update reports it."""
    squares = {**GRADIENT, **(gradient or {})}
    found = Inspection.of(
        jnp.float32(total),
        {"losses/value": jnp.float32(1), "losses/policy": jnp.float32(1), **(metrics or {})},
        jnp.float32(count),
        {name: jnp.float32(square) for name, square in squares.items()},
        {"params": {"a": jnp.ones(2)}, "extra": {"steps": jnp.int32(7)}, **(after or {})},
    )
    return Inspection(found.numbers, found.parameters, found.state, found.codes[None])


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"total": np.nan, "gradient": dict.fromkeys(GRADIENT, np.nan)}, "the loss is not finite"),
        (
            {"total": np.inf, "metrics": {"losses/policy": jnp.float32(np.inf)}},
            "the loss is not finite, nor is losses/policy",
        ),
        ({"gradient": dict.fromkeys(GRADIENT, np.nan)}, "the loss is finite, but not its gradient"),
        ({"gradient": {"params/b": np.inf}}, "the loss is finite, but not its gradient by params/b"),
        (
            {"gradient": {"params/a": np.nan, "params/b": np.nan}},
            "the loss is finite, but not its gradient by params/a and params/b",
        ),
        (
            {"gradient": {f"params/{i}": np.nan for i in range(9)}},
            "the loss is finite, but not its gradient by params/0, params/1, params/2 and 6 more",
        ),
        (
            {"gradient": {f"params/{i}": np.nan for i in range(4)}},
            "the loss is finite, but not its gradient by params/0, params/1, params/2 and params/3",
        ),
        (
            {"gradient": {f"params/{i}": np.nan for i in range(5)}},
            "the loss is finite, but not its gradient by params/0, params/1, params/2 and 2 more",
        ),
        (
            {"after": {"extra": {"mean": jnp.array([0, np.nan])}}},
            "the gradient is finite, but not what the step makes of extra/mean",
        ),
        ({}, "the norm of the gradient is not finite"),  # of parts that are finite each
    ],
)
def test_what_is_not_finite_is_named(step, said):
    assert looked_at(**step).said(0) == said


def test_the_step_that_is_asked_about_is_the_one_that_is_told():
    good, bad = looked_at(), looked_at(total=np.nan)
    both = Inspection(good.numbers, good.parameters, good.state, jnp.concatenate([good.codes, bad.codes]))
    assert both.said(1) == "the loss is not finite"
    assert both.zeros(np.ones(2, bool)).tolist() == [False] * 4


def test_a_state_that_would_not_be_finite_is_seen():
    for value, finite in ((1.0, True), (np.nan, False)):
        found = looked_at(after={"extra": {"mean": jnp.array([value])}})
        assert (
            bool(Inspection(found.numbers, found.parameters, found.state, found.codes[0]).is_state_finite()) is finite
        )


def watched(steps, columns=COLUMNS):
    """Return what is said of some steps, each a call of its own."""
    first = FirstUpdates()
    said = [sentence for step in steps for sentence in first.observe(columns, step, ONE)]
    assert first.are_over
    return said


@pytest.mark.parametrize("parameters", [0, 2, 9])
def test_a_state_is_finite_whatever_the_loss_and_its_gradient_are(parameters):
    squares = {f"params/{number}": jnp.float32(np.nan) for number in range(parameters)}
    for after, finite in (({"a": jnp.ones(2)}, True), ({"a": jnp.array([1, np.inf])}, False)):
        found = Inspection.of(jnp.float32(np.nan), {"x": jnp.float32(np.nan)}, jnp.float32(np.nan), squares, after)
        assert found.is_state_finite() == finite


def test_a_loss_that_depends_on_no_parameter_is_told_once():
    said = watched([looked_at(gradient=dict.fromkeys(GRADIENT, 0.0))] * (2 * FIRST_UPDATES))
    [told] = said
    assert told == (
        "the gradient of the loss was zero in each of the first 10 updates, and nothing is learned: does the total "
        "that loss returns depend on the parameters that it is given?"
    )


def test_parameters_that_have_no_gradient_are_named():
    said = watched([looked_at(gradient={"params/b": 0.0})] * FIRST_UPDATES)
    assert said == [
        "the gradient of the loss by params/b was zero in each of the first 10 updates, and nothing is learned there"
    ]


def test_a_gradient_that_is_zero_now_and_then_is_none_to_tell_of():
    some = looked_at(gradient={"params/b": 0.0})
    assert watched([some] * (FIRST_UPDATES - 1) + [looked_at()]) == []
    assert watched([looked_at()] + [some] * FIRST_UPDATES) == []


def test_a_count_of_nothing_is_told():
    assert watched([looked_at(count=0.0)] * FIRST_UPDATES) == [
        "the count that loss returned was 0 in each of the first 10 updates: nothing is averaged"
    ]


def test_skipped_steps_do_not_count():
    first, nothing = FirstUpdates(), looked_at(gradient=dict.fromkeys(GRADIENT, 0.0))
    for _ in range(3 * FIRST_UPDATES):
        assert first.observe(COLUMNS, nothing, ~ONE) == []
    assert not first.are_over


def test_an_agent_without_parameters_is_told_nothing():
    found = Inspection.of(jnp.float32(0), {}, jnp.float32(1), {}, {"opt_state": ()})
    step = Inspection(found.numbers, found.parameters, found.state, found.codes[None])
    assert watched([step] * FIRST_UPDATES) == []


def columns(flags, state):
    """Return columns of two unrolls that begin with `flags` and are entered by `state`."""
    rows = np.zeros((3, 2), np.uint8)
    rows[0] = flags
    return type("Columns", (), {"flags": rows, "initial_state": (np.array(state, np.float32), np.zeros((2, 0)))})()


def test_a_state_that_is_the_same_within_all_episodes_is_told():
    steps = [looked_at()] * FIRST_UPDATES
    [told] = watched(steps, columns((0, 0), [[2, 2], [2, 2]]))
    assert told == (
        "the recurrent state was the same within all episodes in each of the first 10 updates, and nothing is "
        "remembered: does act return the state after the rows?"
    )
    assert watched(steps, columns((0, 0), [[2, 2], [2, 3]])) == []
    assert watched(steps, columns((FIRST, FIRST), [[0, 0], [0, 0]])) == []  # nothing can be remembered there


def test_one_state_alone_tells_nothing_where_a_call_makes_all_the_first_updates():
    step = looked_at()
    call = dataclasses.replace(step, codes=np.repeat(step.codes, FIRST_UPDATES, axis=0))
    ones, once = np.ones(FIRST_UPDATES, bool), columns((FIRST, 0), [[0, 0], [2, 2]])
    assert FirstUpdates().observe(once, call, ones) == []
    assert FirstUpdates().observe(columns((0, 0), [[2, 2], [2, 2]]), call, ones) != []


def test_a_state_that_changes_from_update_to_update_is_one_that_remembers():
    first = FirstUpdates()
    for step in range(FIRST_UPDATES):
        assert first.observe(columns((0, FIRST), [[step, 0], [0, 0]]), looked_at(), ONE) == []
