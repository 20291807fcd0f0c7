"""Functions that plugins name and the configuration gives options to: networks and transforms."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from aioseed.errors import ConfigError
from aioseed.lookup import did_you_mean, is_reference, signature_of
from aioseed.plugins import Group, load

Made = TypeVar("Made")


_GIVEN: Mapping[Group, int] = {"aioseed.nets": 3, "aioseed.transforms": 1}
"""Number of the first arguments of a function that are no options: specs and heads."""
_MADE: Mapping[Group, str] = {"aioseed.nets": "Network", "aioseed.transforms": "Transform"}
"""What a function makes, by name: a machine without a learner's packages can show options too."""


def maker(group: Group, section: Mapping[str, object], path: str, kind: type[Made]) -> Callable[..., Made]:
    """Return the function that a section names, with the section's options bound to it.

    What it returns raises ConfigError where the function refuses an option or makes something else than `kind`.

    Args:
        group: Where the name is looked up.
        section: Name and options; lists become tuples.
        path: Of the section in the configuration, for messages.
        kind: What the function makes.

    Raises:
        ConfigError: An option is not known, or what was named is no function, or none of this kind.
        PluginError: Nothing has that name.
    """
    name = str(section["name"])
    make, given, _ = _checked(group, section, path)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}

    def made(*arguments: object) -> Made:
        try:
            result = make(*arguments, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {error}", path=path, value=str(options)) from error
        if not isinstance(result, kind):
            raise ConfigError(f"{path}.name: {name} does not return a {kind.__name__}", path=f"{path}.name")
        return result

    return made


def resolved_options(group: Group, section: Mapping[str, object], path: str) -> dict[str, object]:
    """Return the options of a section, and those defaults of its function that a configuration could say.

    Raises:
        ConfigError, PluginError: As `maker`.
    """
    _, options, known = _checked(group, section, path)
    defaults = {
        parameter.name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for parameter in known
        if _is_plain(parameter.default)
    }
    return {**defaults, **options}


def _is_plain(value: object) -> bool:
    """Say whether `value` comes back as itself from a configuration: a number or a text, or a flat tuple of such."""
    return all(
        item is None or isinstance(item, bool | int | str) or (isinstance(item, float) and math.isfinite(item))
        for item in (value if isinstance(value, tuple) else (value,))
    )


def _checked(
    group: Group, section: Mapping[str, object], path: str
) -> tuple[Callable[..., object], dict[str, object], list[inspect.Parameter]]:
    """Return the function that a section names, its options, and the parameters that may be options."""
    name = str(section["name"])
    make = load(group, name)
    if not callable(make):
        raise ConfigError(f"{path}.name: {name} is not callable", path=f"{path}.name", value=name)
    if is_reference(name) and not _says_it_makes(make, _MADE[group]):
        # A checkpoint from elsewhere names functions as well: subprocess:run would run what its options say.
        raise ConfigError(
            f"{path}.name: {name} does not say that it returns a {_MADE[group]}, and is not called: write "
            f"-> {_MADE[group]} after its arguments",
            path=f"{path}.name",
            value=name,
        )
    options = {key: value for key, value in section.items() if key != "name"}
    try:
        known = list(signature_of(make).parameters.values())[_GIVEN[group] :]
    except ValueError:
        return make, options, []  # written in C; what it makes of its options it says itself
    _check_options(known, name, options, path)
    return make, options, known


def _says_it_makes(make: Callable[..., object], kind: str) -> bool:
    """Say whether `make` is a class of this kind, or annotated as returning one; nothing of it is called."""
    try:
        made = make if isinstance(make, type) else signature_of(make).return_annotation
    except ValueError:
        return False
    made = getattr(made, "__forward_arg__", made)
    if isinstance(made, str):  # as it is written where annotations are not evaluated
        return made.strip("'\"").rpartition(".")[2] == kind
    return isinstance(made, type) and any(base.__name__ == kind for base in made.__mro__)


def _check_options(
    parameters: Sequence[inspect.Parameter], name: str, options: Mapping[str, object], path: str
) -> None:
    """Raise ConfigError for an option that the function does not know, or that is no list where it has one."""
    lists = {parameter.name for parameter in parameters if isinstance(parameter.default, tuple)}
    for key, value in options.items():
        if key in lists and not isinstance(value, list | tuple):
            # A text would be taken for a list of its letters.
            raise ConfigError(f"{path}.{key} is {value!r}: expected a list", path=f"{path}.{key}", value=str(value))
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for key, value in options.items():
        if key not in known:
            hint = did_you_mean(key, known) or f" (known to {name}: {', '.join(known) or 'none'})"
            raise ConfigError(f"{path}.{key} is not a known key{hint}", path=f"{path}.{key}", value=str(value))
