"""Copy large columns with several threads, where processors are left over.

One thread moves pictures at a fraction of what memory gives: a learner host with an accelerator spends more time on
copies of observations than on anything else. NumPy lets go of the interpreter's lock while it copies.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aioseed.machine import processors

PART_BYTES = 2**20
"""What is worth the hand-over to another thread."""
MOST_THREADS = 8
SPARED_PROCESSORS = 4
"""For event loop, inference, training and the system."""


class Copier:
    """Share copies out among threads. Thread: any; several may copy at once.

    Args:
        threads: Beside the one that asks; 0 copies in that one alone.
    """

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "aioseed-copy") if threads else None

    def run(self, work: Callable[[int, int], None], count: int, size_bytes: int) -> None:
        """Do `work` on the range [0, `count`), in parts that do not touch one another, and return when all is done.

        Args:
            work: Copies what belongs to [start, stop).
            count: How many pieces there are.
            size_bytes: Of all of them together.

        Raises:
            Exception: What `work` raises, of one part.
        """
        parts = min(self._threads + 1, count, size_bytes // PART_BYTES)
        if self._pool is None or parts < 2:
            work(0, count)
            return
        bounds = [count * part // parts for part in range(parts + 1)]
        others = [self._pool.submit(work, start, stop) for start, stop in itertools.pairwise(bounds[1:])]
        try:
            work(0, bounds[1])
        finally:
            for other in others:  # nobody may still copy when the caller goes on
                other.exception()
        for other in others:
            other.result()


def usual_threads(count: int | None = None) -> int:
    """Return how many threads help with copies where there are so many processors; by default this process's."""
    if count is None:
        count = processors()
    return max(0, min(MOST_THREADS, count - SPARED_PROCESSORS))
