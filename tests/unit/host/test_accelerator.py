from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

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


ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"
MANY_THREADS = "--xla_cpu_multi_thread_eigen=true"
OTHER = "--xla_cpu_enable_fast_math=false"
DOTS = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
NOTHING = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INVALID"
LIBRARY = [DOTS] if version("jaxlib").startswith("0.10.") else []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"NPROC": "1"}, [ONE_THREAD, *LIBRARY]),
        ({"NPROC": "1", "XLA_FLAGS": OTHER}, [OTHER, ONE_THREAD, *LIBRARY]),
        ({"NPROC": "1", "XLA_FLAGS": MANY_THREADS}, [MANY_THREADS, *LIBRARY]),
        ({"NPROC": "2", "XLA_FLAGS": NOTHING}, [NOTHING]),
        ({"NPROC": "2"}, LIBRARY),
    ],
    ids=["one thread", "beside the user's flags", "the user has a say", "and over the library", "several threads"],
)
def test_flags_that_xla_is_started_with(said: dict[str, str], expected: list[str]) -> None:
    """XLA ends a process over flags that it does not know: it is started with them."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    show = "from aioseed.host.accelerator import prepare; import jax, os; prepare(None); jax.devices(); "
    show += "print(os.environ.get('XLA_FLAGS', ''))"
    shown = subprocess.run(
        [sys.executable, "-c", show], env=environment | said, capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.split() == expected
