"""The transport that the reference shows, and the test that it shows for it, do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aioseed.testing.transport_kit import TRANSPORT_CHECKS, Check

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "transports.md"


@pytest.fixture(scope="module")
def page() -> dict[str, object]:
    """Run the Python of the page, in order, and return the names that it leaves."""
    names: dict[str, object] = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


@pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
async def test_example_passes_the_kit(check: Check, page: dict[str, object]) -> None:
    test = page["test_transport"]
    assert callable(test)
    await test(check)
