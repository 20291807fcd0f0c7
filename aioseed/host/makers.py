"""Functions that plugins name and the configuration gives options to: networks and transforms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from aioseed.errors import ConfigError
from aioseed.lookup import did_you_mean
from aioseed.plugins import Group, load

Made = TypeVar("Made")


def maker(
    group: Group, section: Mapping[str, object], path: str, kind: type[Made], *, given: int
) -> Callable[..., Made]:
    """Return the function that a section names, with the section's options bound to it.

    What it returns raises ConfigError where the function refuses an option or makes something else than `kind`.

    Args:
        group: Where the name is looked up.
        section: Name and options; lists become tuples.
        path: Of the section in the configuration, for messages.
        kind: What the function makes.
        given: Number of its first arguments that are no options.

    Raises:
        ConfigError: An option is not known, or what was named is no function.
        PluginError: Nothing has that name.
    """
    name = str(section["name"])
    make = load(group, name)
    if not callable(make):
        raise ConfigError(f"{path}.name: {name} is not callable", path=f"{path}.name", value=name)
    options = {
        key: tuple(value) if isinstance(value, list) else value for key, value in section.items() if key != "name"
    }
    _check_options(make, name, options, path, given)

    def made(*arguments: object) -> Made:
        try:
            result = make(*arguments, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {error}", path=path, value=str(options)) from error
        if not isinstance(result, kind):
            raise ConfigError(f"{path}.name: {name} does not return a {kind.__name__}", path=f"{path}.name")
        return result

    return made


def _check_options(
    make: Callable[..., object], name: str, options: Mapping[str, object], path: str, given: int
) -> None:
    """Raise ConfigError for an option that the function does not know."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except ValueError:
        return  # written in C; what it makes of its options it says itself
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters[given:]]
    for key, value in options.items():
        if key not in known:
            hint = did_you_mean(key, known) or f" (known to {name}: {', '.join(known) or 'none'})"
            raise ConfigError(f"{path}.{key} is not a known key{hint}", path=f"{path}.{key}", value=str(value))
