from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from aioseed.specs import (
    NUMERIC_DTYPES,
    ActionSpec,
    ArraySpec,
    Json,
    ObservationSpec,
    action_from_json,
    check_servable,
    discrete,
    first_difference,
    flatten,
    leaf_paths,
    multi_discrete,
    observation_from_json,
    observation_to_json,
    spec_leaves,
    unflatten,
)
from aioseed.wire.columns import ActionLayout, RowWriter, StepLayout, StepMessage, flat_columns, step_views

SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)
ARRAYS = st.builds(ArraySpec, st.sampled_from(sorted(NUMERIC_DTYPES)), SHAPES)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
OBSERVATIONS: st.SearchStrategy[ObservationSpec] = st.recursive(
    ARRAYS,
    lambda branches: (
        st.dictionaries(KEYS, branches, min_size=1, max_size=3) | st.lists(branches, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=8,
)
BOUNDS = st.floats(width=32, allow_nan=False)


@st.composite
def boxes(draw: st.DrawFn) -> ActionSpec:
    array = ArraySpec("float32", draw(SHAPES))
    # inf as a lowest value (or -inf as a highest) bounds nothing and has no JSON form.
    pairs = [sorted(draw(st.tuples(BOUNDS, BOUNDS))) for _ in range(array.size)]
    assume(all(low != math.inf and high != -math.inf for low, high in pairs))
    return ActionSpec("box", array, low=tuple(low for low, _ in pairs), high=tuple(high for _, high in pairs))


CHOICES = st.integers(1, 2**31)
ACTIONS = CHOICES.map(discrete) | st.lists(CHOICES, min_size=1, max_size=5).map(multi_discrete) | boxes()
ROWS = st.integers(1, 9)
JSON_VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=2), values, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=2), JSON_VALUES, max_size=3)


def scrambled(layout: StepLayout, rows: int, seed: int) -> StepMessage:
    """Return a STEP of random bits: NaNs, infinities and all."""
    message, random = StepMessage(layout, rows), np.random.default_rng(seed)
    for column in flat_columns(message.columns):
        column[...] = np.frombuffer(random.bytes(column.nbytes), column.dtype).reshape(column.shape)
    return message


def bits(column: np.ndarray) -> bytes:
    return np.ascontiguousarray(column).tobytes()


def same(one: Json, other: Json) -> bool:
    """Compare JSON values as documented, by another way than `first_difference`: null equals a missing key."""
    return _canonical(one) == _canonical(other)


def _canonical(value: Json) -> object:
    if isinstance(value, dict):
        return {key: _canonical(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [_canonical(child) for child in value]
    return (isinstance(value, bool), value)


@given(OBSERVATIONS)
def test_observation_specs_survive_json(spec: ObservationSpec) -> None:
    assert observation_from_json(json.loads(json.dumps(observation_to_json(spec), allow_nan=False))) == spec


@given(OBSERVATIONS, ACTIONS)
def test_specs_that_are_servable_survive_json(observation: ObservationSpec, action: ActionSpec) -> None:
    check_servable(observation, action)
    assert action_from_json(json.loads(json.dumps(action.to_json(), allow_nan=False))) == action


@given(OBSERVATIONS)
def test_leaves_paths_and_trees_agree_on_the_order(spec: ObservationSpec) -> None:
    leaves, paths = spec_leaves(spec), leaf_paths(spec)
    assert len(leaves) == len(paths)
    assert flatten(unflatten(spec, paths)) == paths


@given(OBSERVATIONS, st.integers(0, 3), ROWS, st.integers(0, 2**32))
def test_a_step_survives_the_wire_bit_by_bit(spec: ObservationSpec, metrics: int, rows: int, seed: int) -> None:
    layout = StepLayout(spec, metrics)
    message = scrambled(layout, rows, seed)
    payload = message.tobytes()
    assert len(payload) == layout.size_bytes(rows) and layout.rows(payload) == rows
    views = step_views(layout, payload)
    assert [bits(view) for view in flat_columns(views)] == [bits(column) for column in flat_columns(message.columns)]


@given(OBSERVATIONS, st.integers(0, 3), st.lists(st.booleans(), min_size=1, max_size=9), st.integers(0, 2**32))
def test_a_subset_holds_exactly_the_kept_rows(spec: ObservationSpec, metrics: int, keep: list[bool], seed: int) -> None:
    assume(any(keep))
    layout = StepLayout(spec, metrics)
    message = scrambled(layout, len(keep), seed)
    part = step_views(layout, message.subset(np.array(keep)))
    wanted = [column[np.array(keep)] for column in flat_columns(message.columns)]
    assert [bits(view) for view in flat_columns(part)] == [bits(column) for column in wanted]


@given(
    OBSERVATIONS,
    st.integers(0, 3),
    st.lists(st.tuples(ROWS, st.integers(0, 4)), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_the_writer_places_rows_exactly(
    spec: ObservationSpec, metrics: int, pieces: list[tuple[int, int]], seed: int
) -> None:
    """Write messages of different sizes with gaps between them, and compare the whole batch with plain NumPy."""
    layout = StepLayout(spec, metrics)
    capacity = sum(rows + gap for rows, gap in pieces)
    batch, expected = layout.allocate(capacity), layout.allocate(capacity)
    writer, start = RowWriter(layout, batch), 0
    for index, (rows, gap) in enumerate(pieces):
        start += gap
        message = scrambled(layout, rows, seed + index)
        writer.write(message.tobytes(), rows, start)
        for target, source in zip(flat_columns(expected), flat_columns(message.columns), strict=True):
            target[start : start + rows] = source
        start += rows
    assert [bits(column) for column in flat_columns(batch)] == [bits(column) for column in flat_columns(expected)]


@given(OBSERVATIONS, ACTIONS, ROWS, st.integers(0, 2**32))
def test_an_action_names_the_rows_of_its_step(spec: ObservationSpec, action: ActionSpec, rows: int, seed: int) -> None:
    step_layout, layout = StepLayout(spec, 1), ActionLayout(action)
    message = scrambled(step_layout, rows, seed)
    packed = np.random.default_rng(seed).bytes(rows * action.array.row_bytes)
    answer = layout.decode(layout.encode(rows, message.tobytes()[8 : step_layout.identity_bytes(rows)], packed))
    assert answer.action.shape == (rows, *action.array.shape) and bits(answer.action) == packed
    columns = message.columns
    assert [bits(part) for part in answer[:3]] == [bits(columns.slot), bits(columns.epoch), bits(columns.sequence)]


@given(OBJECTS, OBJECTS)
def test_a_difference_is_found_exactly_when_there_is_one(ours: dict[str, Json], theirs: dict[str, Json]) -> None:
    assert (first_difference(ours, theirs) is None) == same(ours, theirs)


@given(OBJECTS)
def test_nothing_differs_from_itself_after_a_trip_through_json(value: dict[str, Json]) -> None:
    assert first_difference(value, json.loads(json.dumps(value))) is None
