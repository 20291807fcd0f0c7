"""``aioseed env-spec``: describe an environment as learners see it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from aioseed.actor.probe import describe
from aioseed.cli.common import Parser, guarded
from aioseed.cli.environment import add_environment_arguments, environment_of
from aioseed.cli.streams import answer_alone


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return guarded("env-spec", lambda: _env_spec(argv))


def _env_spec(argv: Sequence[str]) -> int:
    words = Parser(prog="aioseed env-spec", description="Print an environment's specs as JSON.")
    add_environment_arguments(words, positional=False)
    chosen = words.parse_intermixed_args(argv)
    with answer_alone():
        description = describe(environment_of(chosen))
    sys.stdout.write(json.dumps(description.to_json(), indent=2) + "\n")
    return 0
