"""Learn an environment's specs from a child process, so that the learner never loads an environment itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

from aioseed import errors
from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.probe import Description
from aioseed.errors import AioseedError, EnvironmentFailed

PROBE_TIMEOUT_S = 120.0


async def probe(config: EnvironmentConfig) -> Description:
    """Describe the configured environment. Safe to cancel: the child ends by itself. Several callers may run at once.

    Raises:
        ConfigError: There is no such environment, or an option is wrong.
        PluginError: The plugin or a package that it needs is missing.
        SpaceError: A space cannot be served.
        EnvironmentFailed: The environment raised, crashed or did not answer.
    """
    out, err, code = await asyncio.to_thread(_ask, config)
    lines = out.decode(errors="replace").strip().splitlines()
    try:
        form = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        form = None
    if not isinstance(form, dict):
        said = err.decode(errors="replace").strip().splitlines()
        words = said[-1] if said else f"exit code {code}"
        raise EnvironmentFailed(f"environment {config.name} could not be built: {words}")
    if "error" in form:
        raise _same_error(str(form.get("kind")), str(form["error"]))
    return Description.from_json(form)


def _ask(config: EnvironmentConfig) -> tuple[bytes, bytes, int]:
    """Run the child; `subprocess` never runs fork handlers of other libraries, which a loop's own way may."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "aioseed.actor.probe"],
            input=config.model_dump_json().encode(),
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailed(f"environment {config.name} was not built within {PROBE_TIMEOUT_S:.0f} s") from error
    return child.stdout, child.stderr, child.returncode


def _same_error(kind: str, message: str) -> AioseedError:
    known: dict[str, type[AioseedError]] = {
        "ConfigError": errors.ConfigError,
        "PluginError": errors.PluginError,
        "SpaceError": errors.SpaceError,
    }
    return known.get(kind, EnvironmentFailed)(message)
