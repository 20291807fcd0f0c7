from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

SHOW = """
from pathlib import Path
from aioseed.host.accelerator import prepare
prepare(Path("cache"))
import os, jax
print(os.environ["NPROC"], jax.config.values["jax_cpu_enable_async_dispatch"], jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [str(max(1, PROCESSORS - 1)), "False", "cache"]),
        (
            {"NPROC": "7", "JAX_CPU_ENABLE_ASYNC_DISPATCH": "1", "JAX_COMPILATION_CACHE_DIR": "mine"},
            ["7", "True", "mine"],
        ),
    ],
    ids=["nothing is said", "the environment has a say"],
)
def test_a_process_is_set_up_unless_its_environment_says_otherwise(said: dict[str, str], expected: list[str]) -> None:
    named = ("NPROC", "JAX_CPU_ENABLE_ASYNC_DISPATCH", "JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment | said, capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.split() == expected
