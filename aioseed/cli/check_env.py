"""``aioseed check-env``: try an environment for some steps and say what would go wrong with it, before a run does."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from aioseed.cli.common import Parser, guarded
from aioseed.cli.environment import add_environment_arguments, environment_of
from aioseed.cli.streams import answer_alone
from aioseed.errors import PluginError
from aioseed.plugins import environment_plugin
from aioseed.specs import Json


class Finding(Protocol):
    """Say one thing about an environment."""

    @property
    def level(self) -> str:
        """Return ``error``, ``warning`` or ``note``."""

    @property
    def text(self) -> str:
        """Return the sentence."""


@runtime_checkable
class Checks(Protocol):
    """Be an environment plugin that can look at its environments."""

    def check(self, name: str, options: Mapping[str, Json]) -> Sequence[Finding]:
        """Return what there is to say about an environment."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code: 0 if the environment can be used, else 1."""
    return guarded("check-env", lambda: _check_env(argv))


def _check_env(argv: Sequence[str]) -> int:
    words = Parser(
        prog="aioseed check-env", description="Try an environment for some steps and say what would go wrong with it."
    )
    add_environment_arguments(words, positional=True)
    words.add_argument("--json", action="store_true", help="print one JSON object a finding")
    chosen = words.parse_intermixed_args(argv)
    config = environment_of(chosen)
    plugin = environment_plugin(config.plugin)
    if not isinstance(plugin, Checks):
        raise PluginError(f'the environment plugin "{config.plugin}" has no check', group="aioseed.envs")
    with answer_alone():
        findings = plugin.check(config.name, config.options)
    for finding in findings:
        form = {"level": finding.level, "text": finding.text}
        sys.stdout.write(f"{json.dumps(form) if chosen.json else f'{finding.level}: {finding.text}'}\n")
    return 1 if any(finding.level == "error" for finding in findings) else 0
