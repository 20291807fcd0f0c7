"""Check configuration against a pydantic model and turn whatever is wrong into one sentence.

The base under every section of the configuration and under the options of the environment plugins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aioseed.errors import ConfigError
from aioseed.lookup import did_you_mean, near_names

__all__ = ["DeviceName", "validate"]

ModelT = TypeVar("ModelT", bound=BaseModel)

_OPENING = re.compile(r"^(Value error, |Assertion failed, |\w+ should (be |have |match )?)")
_ENDING = re.compile(r"( after validation, not \d+|, unable to (parse|interpret) .*)$")
"""What surrounds the expectation in a message of pydantic."""
_SHOWN_CHARACTERS = 80
_SHOWN_PLACES = 5


def _device_name(name: str) -> str:
    if re.fullmatch(r"default|(cpu|gpu|tpu):\d+", name) is None:
        raise ValueError("default, or platform and index such as cpu:0 or gpu:1")
    return name


DeviceName = Annotated[str, AfterValidator(_device_name)]
"""Name of a device as JAX numbers them; whether this machine has it is found out later."""


def validate(model: type[ModelT], data: Mapping[str, object], path_prefix: str = "") -> ModelT:
    """Return `data` as a `model`.

    Args:
        model: What is expected; a model that refuses unknown keys has ``extra="forbid"``.
        data: What was given.
        path_prefix: Dotted path of `data` in the whole configuration, put in front of every path in a message.

    Raises:
        ConfigError: One sentence about the first thing that is wrong: the path, the value, what was expected; for an
            unknown key the nearest known one. Unknown keys come first, since what is missing is often only misspelt.
            It ends with the paths of whatever else is wrong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = min(details, key=lambda detail: _rank(model, data, detail))
        raise _config_error(model, data, first, path_prefix, _others(data, details, first, path_prefix)) from error


def _rank(model: type[BaseModel], data: Mapping[str, object], detail: ErrorDetails) -> int:
    """Return 0 for what is told first."""
    if detail["type"] != "extra_forbidden":
        return 1
    *parents, key = _keys_in_data(data, detail["loc"])
    # A key that another member of a union takes is not what is wrong.
    return 2 if key in _known_keys(model, parents) else 0


def _others(data: Mapping[str, object], details: list[ErrorDetails], first: ErrorDetails, prefix: str) -> str:
    """Return how the sentence about `first` ends: where else something is wrong.

    Pydantic complains for every member of a union; that is one place.
    """
    places = [_joined(prefix, *_keys_in_data(data, detail["loc"], up_to_unions=True)) for detail in details]
    told = places[details.index(first)]
    others = [place for place in dict.fromkeys(places) if place not in ("", told)]
    if not others:
        return ""
    cut = f" and {len(others) - _SHOWN_PLACES} more" if len(others) > _SHOWN_PLACES else ""
    return f"; also wrong: {', '.join(others[:_SHOWN_PLACES])}{cut}"


def _config_error(
    model: type[BaseModel], data: Mapping[str, object], detail: ErrorDetails, prefix: str, more: str
) -> ConfigError:
    keys = _keys_in_data(data, detail["loc"])
    path = _joined(prefix, *keys)
    if detail["type"] == "extra_forbidden":
        hint = _nearest_key(model, keys, prefix)
        return ConfigError(f"{path} is not a known key{hint}{more}", path=path, value=_shown(detail["input"]))
    if detail["type"] == "missing":
        return ConfigError(f"{path} is missing{more}", path=path, expected="a value")
    expected = _expected(detail)
    where = path or "the configuration"
    if detail["type"] == "value_error" and isinstance(detail["input"], Mapping):
        # A rule between keys of a section: a sentence of its own, and the section is no single value that was wrong.
        return ConfigError(f"{where}: {expected}{more}", path=path)
    value = _shown(detail["input"])
    return ConfigError(f"{where} is {value}: expected {expected}{more}", path=path, value=value, expected=expected)


def _expected(detail: ErrorDetails) -> str:
    text = detail["msg"]
    if detail["type"] in ("model_type", "dict_type"):
        return "keys and values"
    if detail["type"] in ("tuple_type", "list_type"):
        return "a list"
    return _ENDING.sub("", _OPENING.sub("", text)) or "another value"


def _keys_in_data(data: object, location: tuple[int | str, ...], *, up_to_unions: bool = False) -> list[str]:
    """Return the parts of a pydantic location that are keys of the data; the others name members of a union.

    With `up_to_unions` only those before the first of these.
    """
    keys: list[str] = []
    for i, part in enumerate(location):
        if isinstance(data, Mapping) and (part in data or i + 1 == len(location)):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        elif up_to_unions:
            break
        else:
            continue
        keys.append(str(part))
    return keys


def _nearest_key(model: type[BaseModel], keys: list[str], prefix: str) -> str:
    *parents, unknown = keys
    siblings = _known_keys(model, parents)
    if near_names(unknown, siblings):
        return did_you_mean(unknown, siblings)
    elsewhere = [path for path in _paths(model) if path.rsplit(".", 1)[-1] == unknown]
    if elsewhere:
        return f' (did you mean "{_joined(prefix, elsewhere[0])}"?)'
    return f" (known here: {', '.join(siblings)})" if siblings else ""


def _known_keys(model: type[BaseModel], parents: list[str]) -> list[str]:
    """Return the keys of the section at `parents`; those of all members where it is a union."""
    sections = [model]
    for key in parents:
        if key.isdigit():
            continue  # an item of a list; its model was found in the annotation of the list
        fields = [section.model_fields[key] for section in sections if key in section.model_fields]
        sections = [inner for field in fields for inner in _models_in(field.annotation)]
    return [name for section in sections for name in section.model_fields]


def _paths(model: type[BaseModel], depth: int = 0) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for inner in _models_in(field.annotation) if depth < 4 else ():
            yield from (f"{name}.{path}" for path in _paths(inner, depth + 1))


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
