from __future__ import annotations

import math

import numpy as np
import pytest

from aioseed.errors import SpaceError
from aioseed.specs import (
    MAX_ELEMENTS,
    MAX_LEAVES,
    MAX_SPEC_BYTES,
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
    wire_dtype,
    zeros,
)

PIXELS, SPEED, GRIP = ArraySpec("uint8", (2, 3)), ArraySpec("float32", ()), ArraySpec("int16", (1,))
TREE: ObservationSpec = {"é": GRIP, "a": (SPEED, {"z": PIXELS, "B": GRIP}), "Z": PIXELS}
BOX = ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, -math.inf), high=(math.inf, 0.5))
HUGE = 10**5000
"""An integer that Python refuses to write out, and that no float holds."""


def nested(depth: int) -> Json:
    form: Json = SPEED.to_json()
    for _ in range(depth):
        form = {"tuple": [form]}
    return form


def test_leaves_follow_one_another_with_dict_keys_sorted_by_code_point() -> None:
    assert spec_leaves(TREE) == (PIXELS, SPEED, GRIP, PIXELS, GRIP)
    assert leaf_paths(TREE) == [
        "observation.Z", "observation.a.0", "observation.a.1.B", "observation.a.1.z", "observation.é",
    ]  # fmt: skip


def test_a_single_array_is_its_own_leaf() -> None:
    assert spec_leaves(PIXELS) == (PIXELS,) and leaf_paths(PIXELS) == ["observation"]
    assert flatten(np.arange(3))[0].tolist() == [0, 1, 2]


def test_a_tree_is_taken_apart_and_put_together_again() -> None:
    tree = {"é": 5, "a": (2, {"z": 4, "B": 3}), "Z": 1}
    assert flatten(tree) == [1, 2, 3, 4, 5]
    assert unflatten(TREE, flatten(tree)) == tree


@pytest.mark.parametrize("count", [0, 4, 6])
def test_a_tree_of_another_number_of_leaves_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="5 leaves"):
        unflatten(TREE, range(count))


@pytest.mark.parametrize(("spec", "size", "row_bytes"), [(PIXELS, 6, 6), (SPEED, 1, 4), (GRIP, 1, 2)])
def test_sizes_of_a_row(spec: ArraySpec, size: int, row_bytes: int) -> None:
    assert (spec.size, spec.row_bytes) == (size, row_bytes)
    assert zeros(spec, (5, 7)).shape == (5, 7, *spec.shape)
    assert zeros(spec, (5,)).nbytes == 5 * row_bytes


def test_every_dtype_is_little_endian() -> None:
    for name in NUMERIC_DTYPES:
        dtype = ArraySpec(name, ()).numpy_dtype
        assert dtype.name == name and dtype.newbyteorder("<") == dtype


@pytest.mark.parametrize("spec", [PIXELS, TREE, (SPEED,), {"a": SPEED}, ((SPEED,), (GRIP, PIXELS))])
def test_observation_specs_come_back_from_json(spec: ObservationSpec) -> None:
    assert observation_from_json(observation_to_json(spec)) == spec


@pytest.mark.parametrize("spec", [discrete(2), discrete(2**31), multi_discrete([3, 1, 7]), BOX])
def test_action_specs_come_back_from_json(spec: ActionSpec) -> None:
    assert action_from_json(spec.to_json()) == spec


def test_infinite_bounds_are_null_in_json() -> None:
    assert BOX.to_json()["low"] == [-1.0, None] and BOX.to_json()["high"] == [None, 0.5]


@pytest.mark.parametrize(
    "form",
    [
        None, 3, "uint8", [], {}, {"dtype": "uint8"}, {"shape": []}, {"dtype": "uint8", "shape": 3},
        {"dtype": "bool", "shape": []}, {"dtype": "object", "shape": []}, {"dtype": ">f4", "shape": []},
        {"dtype": ["uint8"], "shape": []}, {"dtype": HUGE, "shape": []}, {"dtype": "x" * 10**5, "shape": []},
        {"dtype": "uint8", "shape": [0]}, {"dtype": "uint8", "shape": [-1]}, {"dtype": "uint8", "shape": [2.0]},
        {"dtype": "uint8", "shape": [True]}, {"dtype": "uint8", "shape": ["2"]}, {"dtype": "uint8", "shape": [None]},
        {"dtype": "uint8", "shape": [HUGE]}, {"dtype": "uint8", "shape": HUGE}, {"dtype": "uint8", "shape": [[]]},
        {"dtype": "uint8", "shape": [1] * 9}, {"dtype": "uint8", "shape": [MAX_ELEMENTS + 1]},
        {"dtype": "uint8", "shape": [2**16, 2**16]}, {"dtype": "uint8", "shape": [2**31] * 8},
        {"dict": {}}, {"dict": []}, {"dict": {"a": None}}, {"tuple": []}, {"tuple": {}}, {"tuple": [{}]},
        nested(9), nested(300),
    ],
)  # fmt: skip
def test_what_describes_no_observation_is_a_space_error_in_few_words(form: Json) -> None:
    with pytest.raises(SpaceError) as caught:
        observation_from_json(form)
    assert len(str(caught.value)) < 250 and str(caught.value).isprintable()


def test_as_deep_as_documented_is_deep_enough() -> None:
    assert spec_leaves(observation_from_json(nested(8))) == (SPEED,)


DISCRETE = discrete(3).to_json()
BOX_FORM = BOX.to_json()


@pytest.mark.parametrize(
    "form",
    [
        None, [], {}, {**DISCRETE, "kind": None}, {**DISCRETE, "kind": HUGE}, {**DISCRETE, "kind": "multi_binary"},
        {**DISCRETE, "sizes": None}, {**DISCRETE, "sizes": []}, {**DISCRETE, "sizes": [3, 3]},
        {**DISCRETE, "sizes": [0]}, {**DISCRETE, "sizes": [2**31 + 1]}, {**DISCRETE, "sizes": [HUGE]},
        {**DISCRETE, "dtype": "uint8"}, {**DISCRETE, "dtype": "float32"}, {**DISCRETE, "shape": [1]},
        {**DISCRETE, "kind": "multi_discrete"}, {**multi_discrete([2] * 4).to_json(), "shape": [2, 2]},
        {**BOX_FORM, "dtype": "float64"}, {**BOX_FORM, "dtype": "int32"}, {**BOX_FORM, "low": None},
        {**BOX_FORM, "low": [-1]}, {**BOX_FORM, "low": [None] * 3}, {**BOX_FORM, "low": [True, 0]},
        {**BOX_FORM, "low": ["0", 0]}, {**BOX_FORM, "low": [HUGE, 0]}, {**BOX_FORM, "low": [-(10**400), 0]},
        {**BOX_FORM, "low": [math.nan, 0]}, {**BOX_FORM, "low": [-math.inf, 0]}, {**BOX_FORM, "high": [math.inf, 0]},
        {**BOX_FORM, "low": [0, 0.6]},
    ],
)  # fmt: skip
def test_what_describes_no_action_is_a_space_error_in_few_words(form: Json) -> None:
    with pytest.raises(SpaceError) as caught:
        action_from_json(form)
    assert len(str(caught.value)) < 250 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        ({}, {}, None),
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1}, {"a": 2}, ("a", 1, 2)),
        ({"a": 1}, {}, ("a", 1, None)),
        ({"a": None}, {}, None),
        ({"a": 1}, {"a": 1.0}, None),
        ({"a": 1}, {"a": True}, ("a", 1, True)),
        ({"a": 0}, {"a": False}, ("a", 0, False)),
        ({"a": "1"}, {"a": 1}, ("a", "1", 1)),
        ({"a": [1, 2]}, {"a": [1.0, 2]}, None),
        ({"a": [1, 2]}, {"a": [1, 3]}, ("a.1", 2, 3)),
        ({"a": [1]}, {"a": [True]}, ("a.0", 1, True)),
        ({"a": [1]}, {"a": [1, 2]}, ("a", [1], [1, 2])),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, ("a.b.c", 1, 2)),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, ("a.0.b", 1, 2)),
        ({"a": {}}, {"a": []}, ("a", {}, [])),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, ("a", 1, 2)),
    ],
)
def test_the_first_difference_is_named_with_both_values(
    ours: dict[str, Json], theirs: dict[str, Json], difference: tuple[str, Json, Json] | None
) -> None:
    assert first_difference(ours, theirs) == difference
    mirrored = None if difference is None else (difference[0], difference[2], difference[1])
    assert first_difference(theirs, ours) == mirrored


def test_the_path_of_a_difference_begins_with_the_prefix() -> None:
    assert first_difference({"a": 1}, {"a": 2}, "task.config") == ("task.config.a", 1, 2)


@pytest.mark.parametrize("observation", [PIXELS, TREE, {str(i): SPEED for i in range(MAX_LEAVES)}])
@pytest.mark.parametrize("action", [discrete(2), multi_discrete([2, 2]), BOX])
def test_specs_that_can_be_served_pass(observation: ObservationSpec, action: ActionSpec) -> None:
    check_servable(observation, action)


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ({}, "between 1 and 64"),
        ({str(i): SPEED for i in range(MAX_LEAVES + 1)}, "between 1 and 64"),
        ({"a": ArraySpec("uint8", (3, 0))}, r"observation\.a is empty"),
        ({"a": SPEED, "b": ()}, "at least one entry"),
        ((SPEED, {}), "at least one entry"),
        (ArraySpec("bool", ()), "observation is bool"),
        (ArraySpec("complex64", ()), "observation is complex64"),
        (ArraySpec("str32", ()), "observation is str32"),
        (ArraySpec("uint8", (1,) * 9), "9 dimensions"),
        (ArraySpec("uint8", (2**16, 2**16)), "too large"),
        ({1: SPEED}, "JSON"),
        ({"\ud800": SPEED}, "Unicode"),
        ({"k" * MAX_SPEC_BYTES: SPEED}, "longer than"),
        ((((((((((SPEED,),),),),),),),),), "deep"),
    ],
)
def test_observations_that_the_wire_cannot_say_or_carry_are_space_errors(
    observation: ObservationSpec, words: str
) -> None:
    with pytest.raises(SpaceError, match=words):
        check_servable(observation, discrete(2))


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (discrete(0), "0 choices"),
        (multi_discrete([3, -1]), "-1 choices"),
        (multi_discrete([]), "action is empty"),
        (discrete(2**31 + 1), "number of choices"),
        (ActionSpec("box", ArraySpec("float64", (1,)), low=(0.0,), high=(1.0,)), "float32"),
        (ActionSpec("box", ArraySpec("float32", (2,)), low=(0.0,), high=(1.0,)), "bounds"),
        (ActionSpec("box", ArraySpec("float32", (1,)), low=(1.0,), high=(0.0,)), "above"),
        (ActionSpec("box", ArraySpec("float32", (1,)), low=(math.nan,), high=(1.0,)), "JSON"),
        (ActionSpec("box", ArraySpec("float32", (9000,)), low=(-1.0,) * 9000, high=(1.0,) * 9000), "longer than"),
    ],
)
def test_actions_that_the_wire_cannot_say_are_space_errors(action: ActionSpec, words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        check_servable(PIXELS, action)


@pytest.mark.parametrize(
    ("dtype", "travels"),
    [
        ("float64", "float32"), ("int64", "int32"), ("uint64", "uint32"), ("bool", "int8"), ("uint8", "uint8"),
        (">f4", "float32"), ("float16", "float16"), (">i8", "int32"),
    ],
)  # fmt: skip
def test_wide_numbers_travel_as_narrow_ones(dtype: str, travels: str) -> None:
    assert wire_dtype(np.dtype(dtype)) == travels


def test_an_idle_action_is_legal_and_as_near_to_zero_as_can_be():
    box = ActionSpec(
        "box", ArraySpec("float32", (2, 2)), low=(5.0, -1.0, -9.0, -np.inf), high=(10.0, 1.0, -2.0, np.inf)
    )
    np.testing.assert_array_equal(box.nearest_to_zero(), np.array([[5, 0], [-2, 0]], np.float32))
    assert discrete(3).nearest_to_zero() == 0
