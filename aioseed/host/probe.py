"""Learn an environment's specs from a child process, so that the learner never loads an environment itself."""

from __future__ import annotations

import asyncio
import json
import sys

from aioseed import errors
from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.probe import Description
from aioseed.errors import AioseedError, EnvironmentFailed

PROBE_TIMEOUT_S = 120.0


async def probe(config: EnvironmentConfig) -> Description:
    """Describe the configured environment. Safe to cancel: the child is ended. Several callers may run at once.

    Raises:
        ConfigError: There is no such environment, or an option is wrong.
        PluginError: The plugin or a package that it needs is missing.
        SpaceError: A space cannot be served.
        EnvironmentFailed: The environment raised, crashed or did not answer.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aioseed.actor.probe",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            out, err = await child.communicate(config.model_dump_json().encode())
    except TimeoutError:
        raise EnvironmentFailed(f"environment {config.name} was not built within {PROBE_TIMEOUT_S:.0f} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    lines = out.decode(errors="replace").strip().splitlines()
    try:
        form = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        form = None
    if not isinstance(form, dict):
        said = err.decode(errors="replace").strip().splitlines()
        words = said[-1] if said else f"exit code {child.returncode}"
        raise EnvironmentFailed(f"environment {config.name} could not be built: {words}")
    if "error" in form:
        raise _same_error(str(form.get("kind")), str(form["error"]))
    return Description.from_json(form)


def _same_error(kind: str, message: str) -> AioseedError:
    known: dict[str, type[AioseedError]] = {
        "ConfigError": errors.ConfigError,
        "PluginError": errors.PluginError,
        "SpaceError": errors.SpaceError,
    }
    return known.get(kind, EnvironmentFailed)(message)
