"""How a run ends: training may take as long as a call of its update does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest

from aioseed.errors import TrainingFailed
from aioseed.host.run import LiveRun

pytestmark = pytest.mark.virtual_time


@pytest.fixture(autouse=True)
def no_threads(monkeypatch):
    async def in_no_time(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", in_no_time)


def run_whose_call_took(longest_s: float) -> LiveRun:
    """Return a run with stand-ins for all that it ends, whose calls of the update took so long at most."""
    run = LiveRun.__new__(LiveRun)
    loop = SimpleNamespace(is_over=False, longest_call_s=longest_s)
    run._runtime = Mock(loop=loop)
    run._server, run._listeners = Mock(drain=AsyncMock()), Mock(close=AsyncMock())
    run._failed = asyncio.get_running_loop().create_future()
    run.inference = Mock(stop=Mock(return_value=True))
    run._save = AsyncMock(return_value="digest")
    return run


async def test_a_call_of_the_update_that_takes_minutes_is_waited_for() -> None:
    run = run_whose_call_took(300.0)
    executor = Mock(result=lambda: asyncio.sleep(290.0))
    assert await run._end(executor, []) == "digest"


async def test_training_that_takes_much_longer_than_any_call_before_is_given_up() -> None:
    run = run_whose_call_took(10.0)
    with pytest.raises(TrainingFailed, match="training did not end within 70 s"):
        await run._end(Mock(result=lambda: asyncio.sleep(71.0)), [])
    run._save.assert_not_awaited()
