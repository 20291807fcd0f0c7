"""Learn an environment's specs from a child process, so that the learner never loads an environment itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from typing import BinaryIO

from aioseed import errors
from aioseed.actor.config import EnvironmentConfig
from aioseed.actor.probe import Description
from aioseed.errors import AioseedError, EnvironmentFailed
from aioseed.host.actors import end_group

PROBE_TIMEOUT_S = 120.0


async def probe(config: EnvironmentConfig) -> Description:
    """Describe the configured environment. Safe to cancel: the child is ended. Several callers may run at once.

    Raises:
        ConfigError: There is no such environment, or an option is wrong.
        PluginError: The plugin or a package that it needs is missing.
        SpaceError: A space cannot be served.
        EnvironmentFailed: The environment raised, crashed or did not answer.
    """
    if config.name.startswith("__main__:"):
        raise errors.ConfigError(
            f"environment.name is {config.name}, which only the program that was started knows, and environments are "
            f"looked at in a process of their own: put it into a module and name it module{config.name[8:]}",
            path="environment.name",
            value=config.name,
            expected="package.module:function",
        )
    child = _Child(config)
    try:
        out, err, code = await asyncio.to_thread(child.run)
    except asyncio.CancelledError:
        child.end()
        raise
    lines = out.decode(errors="replace").strip().splitlines()
    try:
        form = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        form = None
    if not isinstance(form, dict):
        said = err.decode(errors="replace").strip().splitlines()
        words = said[-1] if said else f"its process ended with code {code}"
        raise EnvironmentFailed(f"environment {config.name} could not be built: {words}")
    if "error" in form:
        raise _same_error(str(form.get("kind")), str(form["error"]))
    return Description.from_json(form)


class _Child:
    """Run ``python -P -m aioseed.actor.probe``.

    `subprocess` never runs fork handlers of other libraries, which a loop's own way may. The child has a process group
    of its own, so that a Ctrl-C does not reach it and its simulators end with it, and ends when its standard input
    closes, so that it does not outlive this process.
    """

    def __init__(self, config: EnvironmentConfig) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False

    def run(self) -> tuple[bytes, bytes, int]:
        """Return what the child wrote to its two outputs, and its exit code. Thread: any but the event loop's."""
        # Files, not pipes: nobody has to read both ends at once, and a talkative environment is not blocked.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self._wait(out, err)
            out.seek(0)
            err.seek(0)
            return out.read(), err.read(), code

    def end(self) -> None:
        """End the child and what it started. Idempotent. Thread: any."""
        self._ending = True
        if self._process is not None:
            end_group(self._process)

    def _wait(self, out: BinaryIO, err: BinaryIO) -> int:
        try:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "aioseed.actor.probe"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise EnvironmentFailed(f"no process could be started to build {self._config.name}: {error}") from error
        with process:
            if self._ending:
                end_group(process)
            try:
                self._tell(process)
                return process.wait(PROBE_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                message = f"environment {self._config.name} was not built within {PROBE_TIMEOUT_S:.0f} s"
                raise EnvironmentFailed(message) from error
            finally:
                end_group(process)

    def _tell(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(self._config.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return  # it died already; what it said and its exit code tell why


def _same_error(kind: str, message: str) -> AioseedError:
    known: dict[str, type[AioseedError]] = {
        "ConfigError": errors.ConfigError,
        "PluginError": errors.PluginError,
        "SpaceError": errors.SpaceError,
    }
    return known.get(kind, EnvironmentFailed)(message)
