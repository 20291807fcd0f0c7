"""Gymnasium environments for aioseed: any registered id, and any own environment as ``package.module:function``.

This is the thin face: it makes environments and ships presets.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from threading import Thread

from aioseed.errors import AioseedError
from aioseed.specs import Json
from aioseed.types import BatchEnvironment
from aioseed.validation import validate
from aioseed_gymnasium.adapter import PlainEnvironment
from aioseed_gymnasium.check import Finding, findings_of
from aioseed_gymnasium.check_vector import COUNT, vector_findings_of
from aioseed_gymnasium.naming import plain_builder, vector_builder
from aioseed_gymnasium.options import OPTIONS_PATH, GymnasiumOptions
from aioseed_gymnasium.vector import VectorEnvironment

__all__ = ["Finding", "GymnasiumOptions", "GymnasiumPlugin", "plugin"]


class GymnasiumPlugin:
    """Make Gymnasium environments (an `aioseed.types.EnvironmentPlugin`)."""

    preset_package = "aioseed_gymnasium"
    options_model = GymnasiumOptions
    """What ``environment.options`` may say, for the schema of the configuration."""

    def make(self, name: str, options: Mapping[str, Json], count: int) -> BatchEnvironment:
        """Build `count` environments `name`: a Gymnasium id or ``package.module:function``.

        Raises:
            ConfigError: No such environment (the message offers near names) or a wrong option.
            PluginError: A package is missing.
            SpaceError: A space cannot be sent.
            EnvironmentFailed: The environment raised while it was built.
        """
        settings = validate(GymnasiumOptions, options, OPTIONS_PATH)
        if settings.vectorized:
            return VectorEnvironment(vector_builder(name, settings, count), count, name, settings)
        return PlainEnvironment(plain_builder(name, settings), count, name, settings)

    def task(self, name: str, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return what must be equal between actors: name, arguments, wrappers and time limit, but no rendering.

        Raises:
            ConfigError: A wrong option.
        """
        settings = validate(GymnasiumOptions, options, OPTIONS_PATH)
        said = settings.model_dump(mode="json", include={"kwargs", "wrappers", "max_episode_steps"})
        said["kwargs"].pop("render_mode", None)
        return {"name": name, **said}

    def check(self, name: str, options: Mapping[str, Json]) -> list[Finding]:
        """Try an environment for some steps and return what there is to say about it, in sentences for its author.

        It lives in a thread of its own, as in a run: there is no event loop in it, and no signal can be handled.
        """
        found: Future[list[Finding]] = Future()

        def look() -> None:
            try:
                found.set_result(self._look(name, options))
            except BaseException as error:
                found.set_exception(error)

        # A daemon, so that an environment that hangs does not keep an interrupted process.
        Thread(target=look, name="aioseed-check", daemon=True).start()
        return found.result()

    def _look(self, name: str, options: Mapping[str, Json]) -> list[Finding]:
        try:
            settings = validate(GymnasiumOptions, options, OPTIONS_PATH)
            if settings.vectorized:
                return vector_findings_of(vector_builder(name, settings, COUNT), name, settings)
            return findings_of(plain_builder(name, settings), settings)
        except AioseedError as error:
            return [Finding("error", str(error))]


plugin = GymnasiumPlugin()
"""What the entry point names."""
