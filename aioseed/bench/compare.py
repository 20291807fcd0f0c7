"""What changed between two measurements that were printed as JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple, TypeGuard

from aioseed.errors import UsageError


class Change(NamedTuple):
    """Hold one figure of both measurements."""

    name: str  # dotted path
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """Return after / before; NaN where both are 0."""
        if self.before:
            return self.after / self.before
        return math.inf if self.after else math.nan


class Comparison(NamedTuple):
    """Hold what two measurements have in common and what sets them apart."""

    changes: tuple[Change, ...]  # figures that both have
    settings: tuple[tuple[str, str, str], ...]  # (path, before, after) of all else that differs

    def figures(self) -> dict[str, object]:
        """Return what --json prints."""
        return {
            "changes": {
                change.name: {"before": change.before, "after": change.after, "ratio": _finite(change.ratio)}
                for change in self.changes
            },
            "settings": {path: {"before": before, "after": after} for path, before, after in self.settings},
        }

    def text(self) -> str:
        """Return what a person reads: what differs in the circumstances first, then every figure."""
        lines = [f"  {path}: {before} -> {after}" for path, before, after in self.settings]
        if lines:
            lines = ["measured under different circumstances:", *lines, ""]
        width = max((len(change.name) for change in self.changes), default=0)
        lines += [
            f"{change.name:<{width}}  {change.before:>14,.6g}  {change.after:>14,.6g}  {_ratio(change.ratio)}"
            for change in self.changes
        ]
        return "\n".join(lines) + "\n"


def compare_files(before: Path, after: Path) -> Comparison:
    """Compare two files, each with a measurement as its last line of JSON.

    Raises:
        UsageError: A file cannot be read or holds no measurement.
    """
    return compare(read(before), read(after))


def compare(before: dict[str, object], after: dict[str, object]) -> Comparison:
    """Compare two measurements: numbers by their ratio, everything else only where it differs."""
    mine, other = _flat(before), _flat(after)
    changes = [
        Change(path, float(was), float(is_now))
        for path, was in mine.items()
        if _is_number(was) and _is_number(is_now := other.get(path))
    ]
    numbers = {change.name for change in changes}
    paths = [path for path in {**mine, **other} if path not in numbers and mine.get(path) != other.get(path)]
    settings = tuple((path, _shown(mine.get(path)), _shown(other.get(path))) for path in paths)
    return Comparison(tuple(changes), settings)


def read(path: Path) -> dict[str, object]:
    """Return the last JSON object of a file, one object a line.

    Raises:
        UsageError: The file cannot be read or has none.
    """
    try:
        lines = path.read_text(encoding="utf-8").strip().splitlines()
        form = json.loads(lines[-1]) if lines else None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as a measurement: {error}") from error
    if not isinstance(form, dict):
        raise UsageError(f"{path} holds no measurement: `aioseed bench ... --json` prints one")
    return form


def _flat(form: object, path: str = "") -> dict[str, object]:
    """Return the leaves of nested objects and lists under dotted paths."""
    if isinstance(form, dict):
        items = [(str(key), value) for key, value in form.items()]
    elif isinstance(form, list):
        items = [(str(index), value) for index, value in enumerate(form)]
    else:
        return {path: form}
    leaves: dict[str, object] = {}
    for key, value in items:
        leaves.update(_flat(value, f"{path}.{key}" if path else key))
    return leaves


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _ratio(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"x {value:.3f}"


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
