"""What must hold while things break, judged from outside: by the files of the run and by what its processes say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aioseed.host.doctor import imbalance

COUNTERS = ("ledger/accepted", "ledger/consumed", "ledger/evaluated", "run/policy_version")


class Verdicts:
    """Count what was checked, and keep what did not hold."""

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[str] = []

    def check(self, holds: bool, sentence: str) -> bool:
        """Note one check; `sentence` says what is wrong if it does not hold."""
        self.checked += 1
        if not holds:
            self.violations.append(sentence)
        return holds


class Sight(NamedTuple):
    """Hold when a version of the policy was seen."""

    at_s: float
    version: float


class Books:
    """Follow ``metrics.jsonl`` line by line: every ledger balances, and no counter falls within a process.

    Times are whatever monotonic clock the caller has. Thread: one at a time.
    """

    def __init__(self, path: Path, verdicts: Verdicts) -> None:
        self._path = path
        self._verdicts = verdicts
        self._read_bytes = 0
        self._floor: dict[str, float] = {}
        self._sights: list[Sight] = []
        self.newest: dict[str, float] = {}
        self.imbalance = 0.0
        """The largest that was seen."""

    def read(self, now_s: float) -> list[dict[str, float]]:
        """Take the lines that are new, and return them."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_bytes)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        lines = [json.loads(line) for line in whole.splitlines()]
        for line in lines:
            self._take(line, now_s)
        return lines

    def restarted(self, floor: Mapping[str, float]) -> None:
        """Begin with another process, whose counters start at `floor`, those of the checkpoint it goes on from."""
        self._floor = dict(floor)
        self._sights.clear()
        self.newest = {}

    def lost_s(self, now_s: float, version: float) -> float:
        """Return how much time of the present process is lost if a run goes on from `version`."""
        if not self._sights:
            return 0.0
        kept = [sight.at_s for sight in self._sights if sight.version <= version]
        return now_s - max(kept, default=self._sights[0].at_s)

    def _take(self, line: dict[str, float], now_s: float) -> None:
        off = imbalance(line)
        self.imbalance = max(self.imbalance, off, -off)
        self._verdicts.check(
            off == 0, f"the ledger is out of balance by {off:g} at {line.get('ledger/accepted')} steps"
        )
        for name, value in line.items():
            if name not in COUNTERS and not name.startswith("ledger/dropped_"):
                continue
            before = self._floor.get(name, 0)
            self._verdicts.check(value >= before, f"{name} fell from {before:g} to {value:g}")
            self._floor[name] = value
        self._sights.append(Sight(now_s, line.get("run/policy_version", 0)))
        self.newest = line
