"""How often an environment may be built anew, and with which seed."""

from __future__ import annotations

import logging

import pytest

from aioseed.errors import EnvironmentFailed
from aioseed.rebuilds import Rebuilds, close_quietly


def test_failures_are_counted_over_a_life_and_logged(caplog):
    rebuilds = Rebuilds("environment 3", 2)
    with caplog.at_level(logging.WARNING):
        rebuilds.spend(ValueError("first"))
        rebuilds.spend(ValueError("second"))
    assert "environment 3 failed and is built anew (2 of 2): ValueError: second" in caplog.messages
    with pytest.raises(EnvironmentFailed, match=r"failed 3 times, the last time: ValueError: third"):
        rebuilds.spend(ValueError("third"))


def test_each_failure_gives_another_seed_and_always_the_same():
    def seeds():
        rebuilds = Rebuilds("environment 3", 2)
        for _ in range(2):
            rebuilds.spend(ValueError())
            yield rebuilds.seed_after(7)

    first, second = seeds()
    assert len({7, first, second}) == 3
    assert [first, second] == list(seeds())
    assert Rebuilds("environment 3", 2).seed_after(None) is None


def test_what_close_raises_is_logged(caplog):
    class Stuck:
        def close(self):
            raise OSError("busy")

    close_quietly(Stuck(), "environment 3")
    assert caplog.messages == ["environment 3 could not be closed: OSError: busy"]
