"""What differs between the configuration that a run had and the one that it goes on with, in one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator

from aioseed.specs import Json

SHOWN_CHANGES = 8
SHOWN_CHARACTERS = 60
"""Longest that a value is written out."""


def changes_said(before: str, now: str) -> str:
    """Return a sentence that names each key whose value changed; empty if none did, or `before` cannot be read.

    A key that only one of the two has, such as an option of another version, is named as well.

    Args:
        before: The configuration that the run had, as JSON with every default.
        now: The one that it goes on with, likewise.
    """
    try:
        had = dict(_leaves(json.loads(before), ""))
    except ValueError:
        return ""
    has = dict(_leaves(json.loads(now), ""))
    found = [
        f"{path} is {_shown(has, path)} (was {_shown(had, path)})"
        for path in [*has, *(path for path in had if path not in has)]
        if path not in has or path not in had or has[path] != had[path]
    ]
    if not found:
        return ""
    more = f", and {len(found) - SHOWN_CHANGES} more" if len(found) > SHOWN_CHANGES else ""
    return f"configured otherwise than before: {', '.join(found[:SHOWN_CHANGES])}{more}"


def _leaves(value: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Yield the values under their dotted paths; a list is one value unless it holds sections."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}.{number}")
    else:
        yield path, value


def _shown(leaves: dict[str, Json], path: str) -> str:
    if path not in leaves:
        return "not there"
    text = json.dumps(leaves[path], ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
