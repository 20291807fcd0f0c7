"""``aioseed config show`` and ``aioseed config schema``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import yaml

from aioseed.cli.common import Parser, add_overrides, guarded, split_overrides
from aioseed.host.config import RunConfig, load_config
from aioseed.host.options import resolved


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return guarded("config", lambda: _config(argv))


def _config(argv: Sequence[str]) -> int:
    words = Parser(
        prog="aioseed config", description="Show a resolved configuration, or the JSON Schema of all of them."
    )
    which = words.add_subparsers(dest="which", required=True, parser_class=Parser)
    show = which.add_parser("show", help="print the resolved configuration as YAML")
    show.add_argument("config", metavar="PRESET-or-FILE")
    add_overrides(show)
    which.add_parser("schema", help="print the JSON Schema, for editors")
    chosen = words.parse_args(argv)
    if chosen.which == "schema":
        sys.stdout.write(json.dumps(RunConfig.model_json_schema(), indent=2) + "\n")
        return 0
    config = load_config(chosen.config, split_overrides(chosen.overrides))
    config = resolved(config, lambda error: _say(f"aioseed config: not checked, and shown without defaults: {error}"))
    sys.stdout.write(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
