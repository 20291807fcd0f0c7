"""How `env-spec` and `check-env` are told which environment is meant: by name, or by the section of a preset."""

from __future__ import annotations

import argparse

from aioseed import presets
from aioseed.actor.config import EnvironmentConfig
from aioseed.cli.common import Parser, add_overrides, split_overrides
from aioseed.errors import UsageError
from aioseed.validation import validate


def add_environment_arguments(words: Parser, *, positional: bool) -> None:
    """Accept an environment's name, or ``--preset``, and overrides.

    Args:
        positional: The name stands alone instead of behind ``--env``.
    """
    help_of_name = "environment to make, or package.module:function for one's own"
    if positional:
        words.add_argument("env", nargs="?", metavar="NAME", help=help_of_name)
    else:
        words.add_argument("--env", metavar="NAME", help=help_of_name)
    words.add_argument("--preset", help="preset or configuration file; its section environment is read")
    words.add_argument("--plugin", help="environment plugin (default: gymnasium)")
    add_overrides(words)


def environment_of(words: argparse.Namespace) -> EnvironmentConfig:
    """Return the environment that the parsed words mean.

    Raises:
        UsageError: They name none or two, or an option is wrong.
    """
    overrides = list(words.overrides)
    name = words.env
    # A positional name is optional, so the first override may have been taken for it.
    if name is not None and "=" in name:
        name, overrides = None, [name, *overrides]
    if (name is None) == (words.preset is None):
        raise UsageError("name one environment, or a --preset that has one")
    data: presets.Data = presets.read(words.preset) if name is None else {"environment": {"name": name}}
    if words.plugin is not None:
        overrides.append(f"environment.plugin={words.plugin}")
    section = presets.apply_overrides(data, split_overrides(overrides)).get("environment") or {}
    if not isinstance(section, dict):
        raise UsageError(f"environment is {section!r}: expected keys and values")
    return validate(EnvironmentConfig, section, "environment")
