from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from aioseed.host.accelerator import FOLDER, default_cache

JAXLIB = tuple(int(number) for number in version("jaxlib").split(".")[:3])
written_as_text = pytest.mark.skipif(JAXLIB < (0, 10, 1), reason="it writes its options down in bytes")
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


DOT, CONVOLUTION, REDUCE = "INDIVIDUAL_DOT", "INDIVIDUAL_CONVOLUTION", "REDUCE"
COMPILE = """
from aioseed.host.accelerator import prepare
import jax, os
before = os.environ.get("XLA_FLAGS")
prepare(None)
assert os.environ.get("XLA_FLAGS") == before
jax.jit(lambda x: x + 1)(1.0)
"""


def options_of_xla(folder: Path, said: dict[str, str]) -> list[str]:
    """Return the options that XLA compiled with, in a process that was set up, as lines ``name: value``."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    flags = f"--xla_dump_to={folder} {said.get('XLA_FLAGS', '')}"
    ran = [sys.executable, "-c", COMPILE]
    subprocess.run(ran, env=environment | said | {"XLA_FLAGS": flags}, check=True, timeout=60)
    return next(folder.rglob("compile_options.textproto")).read_text().split("\n")


@written_as_text
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"NPROC": "1"}, False),
        ({"NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true"}, True),
        ({"NPROC": "2"}, True),
    ],
    ids=["one thread", "the user has a say", "several threads"],
)
def test_one_thread_of_xla_is_handed_no_parts_of_products(tmp_path: Path, said: dict[str, str], expected: bool) -> None:
    options = [line.strip() for line in options_of_xla(tmp_path, said)]
    assert ("xla_cpu_multi_thread_eigen: true" in options) is expected


@written_as_text
@pytest.mark.skipif(not version("jaxlib").startswith("0.10."), reason="it has no such library, or nobody has looked")
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, {DOT, REDUCE}),
        ({"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"},
         {CONVOLUTION}),
    ],
    ids=["nothing is said", "the user has a say"],
)  # fmt: skip
def test_convolutions_are_not_handed_to_the_newest_library(
    tmp_path: Path, said: dict[str, str], expected: set[str]
) -> None:
    name = "xla_cpu_experimental_ynn_fusion_type: LIBRARY_FUSION_TYPE_"
    found = {line.strip().removeprefix(name) for line in options_of_xla(tmp_path, said) if name in line}
    assert found == expected


@pytest.mark.parametrize("platform", ["abacus", "cuda"])
def test_a_platform_that_this_machine_does_not_have_is_named(platform: str) -> None:
    show = f"import os; os.environ['JAX_PLATFORMS'] = '{platform}'; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
    show += "from aioseed.errors import ConfigError; from aioseed.host.accelerator import prepare\n"
    show += "try: prepare(None)\nexcept ConfigError as error: print(error.path, error, os.environ.get('XLA_FLAGS'))"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    ran = [sys.executable, "-c", show]
    shown = subprocess.run(ran, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert shown.startswith(f"JAX_PLATFORMS JAX cannot compute with JAX_PLATFORMS='{platform}': ")
    assert shown.endswith(" None\n")


def test_without_a_folder_to_write_to_nothing_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_cache() == tmp_path / "cache" / "aioseed" / FOLDER
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_cache() is None
