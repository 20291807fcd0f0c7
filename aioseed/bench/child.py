"""A process of the benchmark that is told what to do in JSON lines, one answer to each."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping

from aioseed.errors import AioseedError

_END_S = 5.0


class Child:
    """Run a module of the benchmark in a process of its own, which ends when its standard input closes.

    Thread: one event loop; one order at a time.
    """

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name = name
        self._process = process

    @classmethod
    async def start(cls, name: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start ``python -P -m aioseed.bench.<name>``.

        Args:
            name: Of the module.
            environment: Variables beside those of this process.
        """

        def start() -> subprocess.Popen[str]:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", f"aioseed.bench.{name}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **(environment or {})},
            )

        return cls(name, await asyncio.to_thread(start))

    async def order(self, order: Mapping[str, object]) -> dict[str, object]:
        """Give an order and return its answer. Cancelling it leaves the process with an answer that nobody reads.

        Raises:
            AioseedError: It failed or died.
        """
        line = await asyncio.to_thread(self._exchange, json.dumps(order))
        answer: dict[str, object] = json.loads(line) if line else {"error": "its process died"}
        if "error" in answer:
            raise AioseedError(f"the {self._name} failed: {answer['error']}")
        return answer

    async def close(self) -> None:
        """End the process. Idempotent."""
        await asyncio.to_thread(self._end)

    def _exchange(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline()

    def _end(self) -> None:
        try:
            self._process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
