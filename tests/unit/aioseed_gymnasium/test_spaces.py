"""Gymnasium spaces become specs, and what cannot be sent is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from aioseed_gymnasium.actions import ActionCodec
from aioseed_gymnasium.options import GymnasiumOptions
from aioseed_gymnasium.spaces import read_action_space, read_observation_space
from gymnasium import spaces

from aioseed.errors import SpaceError
from aioseed.specs import ActionSpec, ArraySpec, discrete, leaf_paths, multi_discrete

BOX = spaces.Box(-1, 1, (2,), np.float32)


def read(space, **options):
    return read_observation_space(space, GymnasiumOptions(**options).dtype_sent)


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (BOX, ArraySpec("float32", (2,))),
        (spaces.Box(-1, 1, (), np.float64), ArraySpec("float32", ())),
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), ArraySpec("uint8", (4, 4, 3))),
        (spaces.Box(0, 9, (2,), np.int64), ArraySpec("int32", (2,))),
        (spaces.Box(0, 1, (2,), np.bool_), ArraySpec("int8", (2,))),
        (spaces.Discrete(7), ArraySpec("int32", ())),
        (spaces.MultiDiscrete([2, 3, 4]), ArraySpec("int32", (3,))),
        (spaces.MultiBinary((2, 2)), ArraySpec("int8", (2, 2))),
    ],
)
def test_a_numeric_space_travels_in_the_dtype_of_the_wire(space, spec):
    assert read(space)[0] == spec


@pytest.mark.parametrize(
    ("option", "dtype", "sent"),
    [
        ("keep_float64", np.float64, "float64"),
        ("keep_float64", np.int64, "int32"),
        ("keep_int64", np.int64, "int64"),
        ("keep_int64", np.uint64, "uint64"),
        ("keep_int64", np.float64, "float32"),
    ],
)
def test_wide_dtypes_are_kept_on_request_only(option, dtype, sent):
    space = spaces.Box(0, 1, (2,), dtype)
    assert read(space)[0].dtype != np.dtype(dtype).name
    assert read(space, **{option: True})[0].dtype == sent


def test_a_nested_space_keeps_its_tree_and_its_leaves_stand_in_the_order_of_the_wire():
    space = spaces.Dict(z=BOX, a=spaces.Tuple([spaces.Discrete(3, start=5), spaces.Dict(m=BOX)]))
    spec, leaves = read(space)
    assert spec == {
        "a": (ArraySpec("int32", ()), {"m": ArraySpec("float32", (2,))}),
        "z": ArraySpec("float32", (2,)),
    }
    assert (
        [leaf.name for leaf in leaves] == leaf_paths(spec) == ["observation.a.0", "observation.a.1.m", "observation.z"]
    )
    assert [leaf.keys for leaf in leaves] == [("a", 0), ("a", 1, "m"), ("z",)]
    assert leaves[0].start == 5
    assert leaves[2].start is None


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Text(5), "observation is a Text space, which has no fixed number of bytes: .*wrappers\\)$"),
        (
            spaces.Dict(a=spaces.Text(5)),
            "observation.a is a Text .*, or leave it out with the wrapper FilterObservation$",
        ),
        (spaces.Dict(a=spaces.Dict(b=spaces.Text(5))), "observation.a.b is a Text space.*wrappers\\)$"),
        (spaces.Dict(a=spaces.Sequence(BOX)), r"observation\.a is a Sequence space"),
        (spaces.Tuple([BOX, spaces.Graph(BOX, None)]), r"observation\.1 is a Graph space"),
        (spaces.OneOf([BOX, BOX]), "observation is a OneOf space"),
        (spaces.Box(0, 1, (1,) * 9, np.float32), "observation has 9 dimensions, at most 8"),
        (spaces.Box(0, 1, (2,), np.longdouble), "observation has the dtype .*, which cannot be sent"),
        (spaces.Dict({1: BOX}), "observation has the key 1, and keys are texts"),
    ],
)
def test_what_cannot_be_sent_is_told_with_its_path(space, sentence):
    with pytest.raises(SpaceError, match=sentence):
        read(space)


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (spaces.Discrete(4, start=-2), discrete(4)),
        (spaces.MultiDiscrete([2, 3]), multi_discrete([2, 3])),
        (spaces.MultiDiscrete([[2, 3], [4, 5]]), multi_discrete([2, 3, 4, 5])),
        (spaces.MultiBinary(3), multi_discrete([2, 2, 2])),
        (
            spaces.Box(np.array([-1, -np.inf]), np.array([1, 2]), dtype=np.float64),
            ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, -np.inf), high=(1.0, 2.0)),
        ),
    ],
)
def test_actions_start_at_0_on_the_wire(space, spec):
    assert read_action_space(space) == spec


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Dict(a=spaces.Discrete(2)), "the action is a Dict space, .* wrapper"),
        (spaces.Box(0, 9, (2,), np.int32), "the action is a Box of int32"),
        (spaces.Text(3), "the action is a Text space"),
    ],
)
def test_an_action_that_is_not_one_array_of_choices_or_reals_is_refused(space, sentence):
    with pytest.raises(SpaceError, match=sentence):
        read_action_space(space)


def test_an_action_at_a_bound_of_float64_is_in_its_space():
    space = spaces.Box(-0.1, 0.1, (1,), np.float64)
    for bound in (-0.1, 0.1):
        (action,) = ActionCodec(space).each(np.array([[bound]], np.float32))
        assert action in space and action.dtype == np.float64
