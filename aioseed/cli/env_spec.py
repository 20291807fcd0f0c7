"""``aioseed env-spec``: describe an environment as learners see it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.probe import describe
from aioseed.cli.common import Parser, guarded


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return guarded("env-spec", lambda: _env_spec(argv))


def _env_spec(argv: Sequence[str]) -> int:
    words = Parser(prog="aioseed env-spec", description="Print an environment's specs as JSON.")
    words.add_argument("--env", required=True, metavar="NAME|module:function")
    words.add_argument("--plugin", default="gymnasium")
    chosen = words.parse_args(argv)
    sys.path.insert(0, str(Path.cwd()))
    description = describe(EnvironmentConfig(plugin=chosen.plugin, name=chosen.env))
    sys.stdout.write(json.dumps(description.to_json(), indent=2) + "\n")
    return 0
