from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

SHOW = """
from pathlib import Path
from aioseed.host.accelerator import prepare
from aioseed.specs import ArraySpec
import os, jax, sys
shapes = {"pixels": (8, 8, 1), "vector": (4,)}
prepare(Path("cache"), ArraySpec("uint8", shapes[sys.argv[1]]) if len(sys.argv) > 1 else None)
print(os.environ["NPROC"], jax.config.values["jax_cpu_enable_async_dispatch"], jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(
    ("said", "seen", "expected"),
    [
        ({}, [], [str(max(1, PROCESSORS - 1)), "False", "cache"]),
        ({}, ["vector"], [str(max(1, PROCESSORS - 1)), "False", "cache"]),
        ({}, ["pixels"], [str(PROCESSORS), "False", "cache"]),
        (
            {"NPROC": "7", "JAX_CPU_ENABLE_ASYNC_DISPATCH": "1", "JAX_COMPILATION_CACHE_DIR": "mine"},
            ["pixels"],
            ["7", "True", "mine"],
        ),
    ],
    ids=["nothing is said", "vectors are seen", "images are seen", "the environment has a say"],
)
def test_a_process_is_set_up_unless_its_environment_says_otherwise(
    said: dict[str, str], seen: list[str], expected: list[str]
) -> None:
    named = ("NPROC", "JAX_CPU_ENABLE_ASYNC_DISPATCH", "JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    shown = subprocess.run(
        [sys.executable, "-c", SHOW, *seen],
        env=environment | said,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert shown.stdout.split() == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"NPROC": "1"}, "--xla_cpu_multi_thread_eigen=false"),
        (
            {"NPROC": "1", "XLA_FLAGS": "--xla_cpu_enable_fast_math=false"},
            "--xla_cpu_enable_fast_math=false --xla_cpu_multi_thread_eigen=false",
        ),
        ({"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true"}, "--xla_cpu_multi_thread_eigen=true"),
        ({"NPROC": "2"}, ""),
    ],
    ids=["one thread", "beside the user's flags", "the user has a say", "several threads"],
)
def test_one_thread_of_xla_is_handed_no_parts_of_products(said: dict[str, str], expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    show = (
        "from aioseed.host.accelerator import prepare; import os; prepare(None); print(os.environ.get('XLA_FLAGS', ''))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", show], env=environment | said, capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == expected
