"""``aioseed presets``: list what is installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from aioseed.cli.common import Parser, guarded
from aioseed.presets import list_presets


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return guarded("presets", lambda: _presets(argv))


def _presets(argv: Sequence[str]) -> int:
    Parser(prog="aioseed presets", description="List the presets that are installed.").parse_args(argv)
    presets = list_presets()
    width = max((len(preset.name) for preset in presets), default=0)
    for preset in presets:
        sys.stdout.write(f"{preset.name:<{width}}  {preset.summary}\n")
    return 0
