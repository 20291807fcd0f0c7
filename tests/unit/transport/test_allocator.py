"""The allocator's thresholds: set where they can be and nobody says otherwise, and then large blocks cost no faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from aioseed.transport.allocator import give_back

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")
SHOW = """
import resource
from aioseed.transport.allocator import keep_large_blocks

print(keep_large_blocks())
for turn in range(50):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(450_000) for _ in range(4)]
    del blocks
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 40)
"""
OURS = ("AIOSEED_ALLOCATOR", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def faults(**said: str) -> tuple[bool, float]:
    """Return whether the thresholds were set, and page faults of a turn that takes and frees 1.8 MB."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment | said, capture_output=True, text=True, check=True
    )
    was_set, each = done.stdout.split()
    return was_set == "True", float(each)


def test_large_blocks_stay_in_the_process() -> None:
    was_set, each = faults()
    assert was_set and each < 5
    assert not faults(AIOSEED_ALLOCATOR="system")[0]
    # What it costs where a large block goes back at once. By glibc's own thresholds it depends on what else is in the
    # heap: with Python 3.13 these blocks happen to stay.
    was_set, each = faults(MALLOC_MMAP_THRESHOLD_="65536")
    assert not was_set and each > 50


@pytest.mark.parametrize("name", OURS[1:])
def test_what_the_environment_says_stays(name: str) -> None:
    value = "glibc.malloc.trim_threshold=1000000" if name == "GLIBC_TUNABLES" else "1000000"
    assert not faults(**{name: value})[0]


def test_free_memory_between_what_is_used_is_given_back() -> None:
    blocks = [bytearray(60_000) for _ in range(1000)]
    pins = blocks[::100]  # the heap cannot shrink from its end
    del blocks
    before = resident_bytes()
    assert give_back()
    assert before - resident_bytes() > 30_000_000 and len(pins) == 10


def resident_bytes() -> int:
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
