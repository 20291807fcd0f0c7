"""What holds for every test: JAX on the CPU, repeatable examples, and no blocking call of ours on an event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

# Before anything imports JAX. A machine with an accelerator may say otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

OUR_PACKAGES = (
    "aioseed",
    "aioseed_websocket",
    "aioseed_grpc",
    "aioseed_gymnasium",
    "aioseed_football",
    "aioseed_dmlab",
)

# Same examples in every run, so that red means broken; `pytest --hypothesis-profile=thorough` looks for new ones.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose the loops that a coroutine test runs on; see the markers in pyproject.toml."""
    if item.get_closest_marker("virtual_time"):
        from aioseed.testing.virtual_time import VirtualTimeLoop

        return {"virtual": VirtualTimeLoop}
    if item.get_closest_marker("every_loop") and importlib.util.find_spec("uvloop"):
        import uvloop

        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def _blocking_calls() -> BlockBuster:
    """Return a detector of blocking calls that have a frame of ours below them on the stack."""
    specs = [importlib.util.find_spec(name) for name in OUR_PACKAGES]
    # Not imported: a package that does not import must fail its own tests, not everybody's.
    return BlockBuster([importlib.util.module_from_spec(spec) for spec in specs if spec is not None])


@pytest.fixture(autouse=True)
def _no_blocking_call_on_the_loop(request: pytest.FixtureRequest, _blocking_calls: BlockBuster) -> Iterator[None]:
    """Fail a coroutine test in which aioseed blocks the event loop."""
    is_coroutine = request.node.get_closest_marker("asyncio") is not None
    if not is_coroutine or request.node.get_closest_marker("may_block"):
        yield
        return
    _blocking_calls.activate()
    try:
        yield
    finally:
        _blocking_calls.deactivate()


@pytest.fixture(autouse=True)
def _logs_reach_the_test() -> Iterator[None]:
    """Undo what a command run in this process did to our log: `caplog` listens at the root."""
    ours = logging.getLogger("aioseed")
    handlers, level = list(ours.handlers), ours.level
    ours.propagate = True
    yield
    for handler in [handler for handler in ours.handlers if handler not in handlers]:
        ours.removeHandler(handler)
        handler.close()
    ours.setLevel(level)
    ours.propagate = True
