"""Descriptors that peers leave alone, and the limit that programs raise."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows sets no such limit")

BOUNDED = """
import resource, socket
from aioseed.transport.descriptors import KEPT, few_left, raise_limit

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
taken = []
while not few_left():
    taken.append(socket.socket())
print(100 - KEPT - taken[-1].fileno())
taken.pop().close()
print(few_left())
raise_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
taken += [socket.socket() for _ in range(50)]
print(few_left())
"""


def test_some_are_kept_and_the_limit_is_raised_to_what_the_system_allows() -> None:
    ran = subprocess.run([sys.executable, "-c", BOUNDED], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split("\n")[:4] == ["1", "False", "(200, 200)", "False"]
