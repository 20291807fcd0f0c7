"""Two million mutated payloads, shown to codec, handshake, intake and actor: none ends in an undocumented exception."""

from __future__ import annotations

import pytest

from aioseed.chaos.fuzz import fuzz

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("seed", range(10))
def test_only_documented_errors_come_out(seed: int, full: bool) -> None:
    inputs = 2_000_000 if full else 200_000
    assert fuzz(seed, inputs).inputs == inputs
