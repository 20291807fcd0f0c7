"""Bytes that nobody should send end in documented errors; tests/chaos shows millions of them."""

from __future__ import annotations

import random

import pytest

from aioseed.chaos.fuzz import UndocumentedError, fuzz, mutated
from aioseed.wire.columns import StepLayout

pytestmark = pytest.mark.timeout(300)


def test_mutated_payloads_end_in_a_message_or_a_documented_error() -> None:
    fuzzed = fuzz(seed=1, inputs=20_000)
    assert sum(fuzzed.outcomes.values()) == fuzzed.inputs == 20_000
    for reader in ("codec", "handshake", "intake", "actor"):
        endings = {outcome for outcome in fuzzed.outcomes if outcome.startswith(reader)}
        assert f"{reader}: read" in endings and len(endings) > 3  # sound ones get through, others are told apart


def test_an_exception_that_is_not_documented_is_found_with_its_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: StepLayout, payload: bytes, max_rows: int = 1) -> int:
        return payload[4]  # no check of anything

    monkeypatch.setattr(StepLayout, "rows", careless)
    with pytest.raises(UndocumentedError, match="raised") as caught:
        fuzz(seed=1, inputs=5_000)
    assert caught.value.payload


def test_equal_seeds_make_equal_inputs() -> None:
    corpus = [b"{}", b"\x01abc" * 5]
    one, other = ([mutated(random.Random(seed), corpus) for seed in range(50)] for _ in range(2))
    assert one == other and len({*one}) > 20
