"""What a process may use, by trees of files like those of the system."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from aioseed.machine import UNBOUNDED_BYTES, Groups, memory_bytes, processors

GIB = 2**30
Seen = Callable[[str, Mapping[str, str]], Groups]


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Let a machine of 64 processors and 256 GiB tell of control groups by these files."""
    pages = {"SC_PHYS_PAGES": 256 * GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "sysconf", pages.__getitem__, raising=False)

    def write(own: str, files: Mapping[str, str]) -> Groups:
        groups = Groups(tmp_path / "own", tmp_path / "groups")
        groups.own.write_text(own)
        for name, text in files.items():
            path = groups.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return groups

    return write


OF_CONTAINER = {"cpu.max": "150000 100000\n", "memory.max": f"{16 * GIB}\n"}
OF_JOB = {
    "a/cpu.max": "max 100000\n",
    "a/b/cpu.max": "800000 100000\n",
    "a/b/c/memory.max": "max\n",
    "a/memory.max": f"{32 * GIB}",
}
OF_DOCKER = {
    "cpu/cpu.cfs_quota_us": "250000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
    "memory/memory.limit_in_bytes": f"{8 * GIB}\n",
}
UNBOUNDED = {
    "cpu/x/cpu.cfs_quota_us": "-1\n",
    "cpu/x/cpu.cfs_period_us": "100000\n",
    "memory/x/memory.limit_in_bytes": "9223372036854771712\n",
}


@pytest.mark.parametrize(
    ("own", "files", "number", "gib"),
    [
        ("0::/\n", OF_CONTAINER, 2, 16),
        ("0::/kubepods/of/the/host\n", OF_CONTAINER, 2, 16),
        ("0::/a/b/c\n", OF_JOB, 8, 32),
        ("5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n1:name=systemd:/\n0::/\n", OF_DOCKER, 3, 8),
        ("5:cpu:/x\n4:memory:/x\n", UNBOUNDED, 64, 256),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1, 256),
        ("0::/\n", {"memory.max": "not a number\n", "cpu.max": "\n"}, 64, 256),
        ("0::/\n", {}, 64, 256),
    ],
    ids=["container", "container that sees the host's path", "the least of all around a job", "version 1", "unbounded",
         "a tenth of one", "damaged", "none"],
)  # fmt: skip
def test_a_process_may_use_what_all_groups_around_it_leave(
    seen: Seen, own: str, files: Mapping[str, str], number: int, gib: int
) -> None:
    groups = seen(own, files)
    assert processors(groups) == number
    assert memory_bytes(groups) == gib * GIB


def test_systems_that_say_nothing_bound_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Groups(tmp_path / "own", tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert processors(nowhere) == 1
    assert memory_bytes(nowhere) == UNBOUNDED_BYTES


def test_this_machine_has_some_of_both() -> None:
    assert 1 <= processors() <= (os.cpu_count() or 1)
    assert memory_bytes() > 2**26
