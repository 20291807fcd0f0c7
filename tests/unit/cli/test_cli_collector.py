"""The collector rests while a command starts, and leaves alone what was made by then."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from aioseed.cli import collector


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_it_rests_until_it_is_woken() -> None:
    with collector.at_rest():
        assert not gc.isenabled()
        collector.wake()
        assert gc.isenabled() and gc.get_freeze_count() > 1000
    assert gc.isenabled()


def test_it_works_again_where_a_command_fails_before() -> None:
    with pytest.raises(ValueError, match="mistyped"), collector.at_rest():
        raise ValueError("mistyped")
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_who_had_switched_it_off_keeps_it_off() -> None:
    gc.disable()
    with collector.at_rest():
        pass
    assert not gc.isenabled()
