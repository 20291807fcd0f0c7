"""The guards of tests/conftest.py are on: a guard that does nothing looks exactly like code without faults."""

from __future__ import annotations

import asyncio
import os
import time
import types
from pathlib import Path

import pytest
from blockbuster import BlockingError
from hypothesis import settings

import aioseed


def sleeping_function_of_aioseed() -> types.FunctionType:
    """Return a function that blocks and whose frames look like aioseed's own."""
    place = Path(aioseed.__file__).parent / "pretended.py"
    namespace = {"time": time}
    exec(compile("def block():\n    time.sleep(0)\n", str(place), "exec"), namespace)
    block = namespace["block"]
    assert isinstance(block, types.FunctionType)
    return block


async def test_a_blocking_call_of_aioseed_on_the_loop_fails():
    with pytest.raises(BlockingError):
        sleeping_function_of_aioseed()()


async def test_a_blocking_call_of_aioseed_in_a_thread_is_fine():
    await asyncio.to_thread(sleeping_function_of_aioseed())


async def test_a_blocking_call_of_the_test_itself_is_its_own_affair():
    time.sleep(0)  # noqa: ASYNC251


@pytest.mark.may_block("the guard's own test")
async def test_the_marker_allows_blocking():
    sleeping_function_of_aioseed()()


def test_without_a_loop_blocking_is_fine():
    sleeping_function_of_aioseed()()


async def test_coroutines_run_in_debug_mode():
    assert asyncio.get_running_loop().get_debug()


@pytest.mark.every_loop
async def test_coroutines_that_ask_for_it_run_on_every_loop(request):
    wanted = "uvloop" if "uvloop" in request.node.name else "asyncio"
    assert type(asyncio.get_running_loop()).__module__.split(".")[0] == wanted


def test_property_tests_look_at_the_same_examples_every_time():
    assert settings.default is not None
    assert settings.default.derandomize or settings.get_current_profile_name() != "ci"


def test_jax_stays_on_the_processor_unless_told_otherwise():
    assert os.environ["JAX_PLATFORMS"]
