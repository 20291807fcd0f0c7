"""What this process may use of its machine: its processors and memory, less where a container has been given less.

On Linux a container, a job of a scheduler or a service is a control group, at most as large as every group around it.
What the system says of itself knows nothing of that: a process that goes by it starts threads that are stopped most of
the time, and is killed for memory that the machine still has.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

UNBOUNDED_BYTES = 2**63


class Groups(NamedTuple):
    """Say where the system tells of control groups."""

    own: Path = Path("/proc/self/cgroup")
    root: Path = Path("/sys/fs/cgroup")


def processors(groups: Groups = Groups()) -> int:  # noqa: B008 - a tuple of constants
    """Return how many processors this process keeps busy at most, at least 1; a share of one counts as one."""
    affinity = getattr(os, "sched_getaffinity", None)
    mine = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, math.ceil(min(mine, _least(groups, "cpu", _processors_of))))


def memory_bytes(groups: Groups = Groups()) -> int:  # noqa: B008 - a tuple of constants
    """Return how much memory this process may fill; `UNBOUNDED_BYTES` where nothing says so."""
    try:
        has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        has = UNBOUNDED_BYTES
    return int(min(has, _least(groups, "memory", _memory_of)))


def _least(groups: Groups, controller: str, bound_of: Callable[[Path], float]) -> float:
    least = math.inf
    for folder in _folders(groups, controller):
        try:
            least = min(least, bound_of(folder))
        except (OSError, ValueError):  # no such group as seen from here, or it has no bound
            continue
    return least


def _folders(groups: Groups, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's groups, from its own outwards, in both versions of control groups.

    Within a container the outermost is the container's, and the path may be one that is not seen from there.
    """
    try:
        lines = groups.own.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = groups.root / controller if controllers else groups.root
        inner = PurePosixPath(path.lstrip("/"))
        yield from (root / part for part in (inner, *inner.parents))


def _processors_of(folder: Path) -> float:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except FileNotFoundError:  # the first version
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    share = int(quota) / int(period)
    return share if share > 0 else math.inf


def _memory_of(folder: Path) -> float:
    try:
        return int((folder / "memory.max").read_text())
    except FileNotFoundError:
        return int((folder / "memory.limit_in_bytes").read_text())
