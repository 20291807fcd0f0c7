"""Say on what a figure was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aioseed import __version__
from aioseed.machine import processors

_PACKAGES = ("numpy", "jax", "jaxlib", "flax", "optax", "aiohttp", "uvloop", "grpcio", "gymnasium", "cpprb")


def machine() -> dict[str, object]:
    """Return processor, cores that this process may use, system and load."""
    return {
        "cpu": _cpu_model(),
        "cores": processors(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        # A busy machine shows here: only ratios of one run can then be relied on.
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, of aioseed and of what it stands on, as far as installed."""
    found = {"python": platform.python_version(), "aioseed": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
