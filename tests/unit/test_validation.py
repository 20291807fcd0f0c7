"""Wrong configuration gives one sentence: the path, the value, and what was expected."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from aioseed.errors import ConfigError
from aioseed.validation import validate


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Wrapper(Strict):
    name: str


class Training(Strict):
    learning_rate: float = 1e-3
    optimizer: Literal["adam", "rmsprop"] = "adam"
    batch_unrolls: int = 8

    @field_validator("batch_unrolls")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("an even number")
        return value

    @model_validator(mode="after")
    def fits(self) -> Training:
        if self.optimizer == "rmsprop" and self.batch_unrolls < 4:
            raise ValueError("rmsprop needs 4 batch_unrolls")
        return self


class Circle(Strict):
    radius: float


class Named(Strict):
    words: str


class Root(Strict):
    name: Annotated[str, Field(min_length=1)]
    training: Training = Training()
    wrappers: tuple[Wrapper, ...] = ()
    limit: int | Literal["none"] = 1
    shape: Circle | Named = Circle(radius=1.0)
    size: tuple[int, int] = (1, 1)
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "a"
    fast: bool = False


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"name": "x", "training": {"learning_rte": 1}},
            'training.learning_rte is not a known key (did you mean "learning_rate"?)',
        ),
        (
            {"name": "x", "learning_rate": 1},
            'learning_rate is not a known key (did you mean "training.learning_rate"?)',
        ),
        (
            {"name": "x", "zzz": 1},
            "zzz is not a known key (known here: name, training, wrappers, limit, shape, size, code, fast)",
        ),
        (
            {"name": "x", "wrappers": [{"nam": "y", "name": "z"}]},
            'wrappers.0.nam is not a known key (did you mean "name"?)',
        ),
        ({"name": "x", "wrappers": {"name": "z"}}, "wrappers is {'name': 'z'}: expected a list"),
        ({}, "name is missing"),
        (
            {"name": "x", "training": {"learning_rate": "fast"}},
            "training.learning_rate is 'fast': expected a valid number",
        ),
        ({"name": "x", "training": {"optimizer": "sgd"}}, "training.optimizer is 'sgd': expected 'adam' or 'rmsprop'"),
        ({"name": "x", "training": {"batch_unrolls": 3}}, "training.batch_unrolls is 3: expected an even number"),
        (
            {"name": "x", "training": {"optimizer": "rmsprop", "batch_unrolls": 2}},
            "training: rmsprop needs 4 batch_unrolls",
        ),
        ({"name": "x", "limit": "many"}, "limit is 'many': expected a valid integer"),
        ({"name": "x", "shape": {"radius": "r"}}, "shape.radius is 'r': expected a valid number"),
        ({"name": "x", "shape": {"radus": 1}}, 'shape.radus is not a known key (did you mean "radius"?)'),
        (
            {"name": 1, "limit": "many", "training": {"optimizer": "sgd", "batch_unrolls": 3}, "shape": {"radus": 1}},
            (
                'shape.radus is not a known key (did you mean "radius"?); '
                "also wrong: name, training.optimizer, training.batch_unrolls, limit"
            ),
        ),
        (
            {"name": "x", "wrappers": [{}, {"name": 1}, {"name": 2}, {"name": 3}, {}, {}, {}]},
            (
                "wrappers.0.name is missing; also wrong: wrappers.1.name, wrappers.2.name, wrappers.3.name, "
                "wrappers.4.name, wrappers.5.name and 1 more"
            ),
        ),
        ({"name": "x", "training": 3}, "training is 3: expected keys and values"),
        ({"name": "x", "wrappers": [{"name": "a"}, {}]}, "wrappers.1.name is missing"),
        ({"name": "x", "size": [1]}, "size.1 is missing"),
        ({"name": "x", "limit": [1]}, "limit is [1]: expected a valid integer"),
        ({"name": "x", "size": [1, 2, 3]}, "size is [1, 2, 3]: expected at most 2 items"),
        ({"name": ""}, "name is '': expected at least 1 character"),
        ({"name": "x", "code": "1b"}, "code is '1b': expected pattern '^[a-z]+$'"),
        ({"name": "x", "fast": "maybe"}, "fast is 'maybe': expected a valid boolean"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(data, sentence):
    with pytest.raises(ConfigError) as caught:
        validate(Root, data)
    assert str(caught.value) == sentence
    assert isinstance(caught.value.__cause__, ValidationError)


class Empty(Strict):
    pass


class Framed(Strict):
    edge: Circle


class Tree(Strict):
    branches: tuple[Tree, ...] = ()


class Unusual(Strict):
    counts: dict[str, int] = {}
    shape: Empty | Circle | Framed = Empty()
    places: tuple[int, ...] | str = ()
    tree: Tree = Tree()
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def is_odd(cls, value: int) -> int:
        if not value % 2:
            raise AssertionError  # what a bare `assert` raises
        return value


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        (Training, {"optimizer": "rmsprop", "batch_unrolls": 2}, "the configuration: rmsprop needs 4 batch_unrolls"),
        (Unusual, {"counts": 3}, "counts is 3: expected keys and values"),
        (Empty, {"a": 1}, "a is not a known key"),
        (
            Unusual,
            {"shape": {"edge": {"radus": 1}}},
            'shape.edge.radus is not a known key (did you mean "radius"?)',
        ),
        (Unusual, {"shape": {"radius": "r"}}, "shape.radius is 'r': expected a valid number"),
        (Unusual, {"places": [1, "x"]}, "places.1 is 'x': expected a valid integer"),
        (Unusual, {"zzz": 1}, "zzz is not a known key (known here: counts, shape, places, tree, odd)"),
        (Unusual, {"odd": 2}, "odd is 2: expected another value"),
    ],
)
def test_so_are_mistakes_in_models_of_unusual_form(model, data, sentence):
    with pytest.raises(ConfigError) as caught:
        validate(model, data)
    assert str(caught.value) == sentence


def test_an_unknown_key_is_told_before_the_missing_one_that_it_stands_for():
    with pytest.raises(ConfigError, match=r'^nam is not a known key \(did you mean "name"\?\); also wrong: name$'):
        validate(Root, {"nam": "x"})


def test_the_error_carries_path_value_and_expectation_for_programs():
    with pytest.raises(ConfigError) as caught:
        validate(Training, {"learning_rate": "fast"}, "training")
    assert caught.value.path == "training.learning_rate"
    assert caught.value.value == "'fast'"
    assert caught.value.expected == "a valid number"


def test_the_prefix_stands_before_suggested_paths_too():
    with pytest.raises(ConfigError, match=r"^run\.learning_rate .*\"run\.training\.learning_rate\""):
        validate(Root, {"name": "x", "learning_rate": 1}, "run")


def test_a_long_value_is_cut():
    with pytest.raises(ConfigError) as caught:
        validate(Training, {"learning_rate": "x" * 500})
    assert len(str(caught.value)) < 200


def test_right_data_becomes_the_model():
    assert validate(Root, {"name": "x", "training": {"batch_unrolls": 4}}).training.batch_unrolls == 4
