"""Set JAX up for a learner and start its backend.

Settings that a process can make only once. Without asynchronous dispatch on the CPU a computation runs in the thread
that asked for it, which saves a hand-over a call (measured 1.1x on two cores). XLA gets one thread less than there are
processors, since event loop, inference and local actors want one too: for a small network on two cores a second thread
of XLA makes an update no faster and costs half as much processor time again. Where images are seen it gets as many as
there are: with one thread for both, inference waits behind products of training (on two cores Pong trained 1.0 to 1.3
times as fast with two). A single thread of XLA is handed no parts of products: the thread that asks would only wait for
it. Convolutions on the CPU stay with Eigen: the library that XLA hands them to since jaxlib 0.10 copies every window of
an image, and takes a fifth longer for it (Pong trained 1.25 times as fast without); products of matrices stay with that
library, which takes a fifth less for them. The persistent compilation cache makes a second start fast, and stores
nothing under one second unless told to.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import jax

from aioseed.errors import ConfigError
from aioseed.host.compiled import remove_damaged
from aioseed.machine import processors
from aioseed.specs import ArraySpec, ObservationSpec, flatten

IMAGE_AXES = 3
ONE_THREAD = "xla_cpu_multi_thread_eigen"
"""XLA's flag of whether products are shared out among its threads."""
LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
"""XLA's flag of what is handed to its newest library. XLA ends the process over a flag that it does not know."""
WITH_LIBRARY = ("0.10.",)
"""Releases of jaxlib that know it, and hand convolutions on by themselves."""
FOLDER = "xla" if sys.version_info < (3, 14) else "xla-zstd"
"""JAX packs programs otherwise from Python 3.14 on, under the same names: neither reads what the other has packed."""
NO_CONVOLUTIONS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


def prepare(cache: Path | None, observation: ObservationSpec | None = None) -> None:
    """Apply the settings and start the backend; where one runs already (in somebody's own process), what comes too late
    does nothing.

    What the environment says already stays: ``JAX_CPU_ENABLE_ASYNC_DISPATCH``, ``NPROC`` (threads of XLA on the CPU),
    ``JAX_COMPILATION_CACHE_DIR``, and the flags `ONE_THREAD` and `LIBRARY` in ``XLA_FLAGS``.

    Args:
        cache: Folder of the compilation cache; None leaves it off.
        observation: What the networks see; None where that is not known yet.

    Raises:
        ConfigError: ``JAX_PLATFORMS`` names none that this machine has.
    """
    if os.environ.get("JAX_PLATFORMS", "cpu") == "cpu" and "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
        _set("jax_cpu_enable_async_dispatch", False)
    if "NPROC" not in os.environ:  # read when the backend starts
        spared = 0 if observation is not None and _sees_images(observation) else 1
        os.environ["NPROC"] = str(max(1, processors() - spared))
    wanted = {}
    if os.environ["NPROC"] == "1":
        wanted[ONE_THREAD] = "false"
    if version("jaxlib").startswith(WITH_LIBRARY):
        wanted[LIBRARY] = NO_CONVOLUTIONS
    _start_with(wanted)
    if cache is not None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        remove_damaged(cache)
        _set("jax_compilation_cache_dir", str(cache))
        _set("jax_persistent_cache_min_compile_time_secs", 0.0)
        _set("jax_persistent_cache_min_entry_size_bytes", 0)


def _sees_images(observation: ObservationSpec) -> bool:
    leaves: list[ArraySpec] = flatten(observation)
    return any(len(leaf.shape) >= IMAGE_AXES for leaf in leaves)


def _start_with(wanted: Mapping[str, str]) -> None:
    """Start the backend, which reads the flags of XLA, with those of `wanted` that the environment does not have.

    The environment is as before then: a child process may have another jaxlib, which would end over one of them.

    Raises:
        ConfigError: This machine has no platform of those that the environment names.
    """
    given = os.environ.get("XLA_FLAGS")
    added = [f"--{name}={value}" for name, value in wanted.items() if name not in (given or "")]
    os.environ["XLA_FLAGS"] = " ".join([*([given] if given else []), *added])
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for cuda without a device, and without a word
        value = os.environ.get("JAX_PLATFORMS", "")
        message = f"JAX cannot compute with JAX_PLATFORMS={value!r}: {str(error) or 'there is no such device'}"
        raise ConfigError(message, path="JAX_PLATFORMS", value=value, expected="a platform of this machine") from error
    finally:
        del os.environ["XLA_FLAGS"]
        if given is not None:
            os.environ["XLA_FLAGS"] = given


def _set(name: str, value: bool | float | str) -> None:
    jax.config.update(name, value)  # type: ignore[no-untyped-call]


def default_cache() -> Path | None:
    """Return the user's cache folder for compiled programs, None where the user has none that can be written to."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "aioseed" / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter: a user whom the system does not know
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
