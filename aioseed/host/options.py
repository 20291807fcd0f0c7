"""Options of plug-ins: checked before anything is built, with the defaults that the plug-ins give them.

The model of the configuration cannot know them, since each plug-in brings its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pydantic import BaseModel

from aioseed.actor.config import EnvironmentConfig
from aioseed.errors import AioseedError, PluginError
from aioseed.host.config import PluginSection, RunConfig
from aioseed.host.makers import resolved_options
from aioseed.lookup import sentence_of
from aioseed.plugins import Group, environment_plugin, load
from aioseed.validation import validate

Section = TypeVar("Section", EnvironmentConfig, PluginSection)
PassOver = Callable[[PluginError], None]


def _insist(error: PluginError) -> None:
    raise error


def resolved(config: RunConfig, pass_over: PassOver = _insist) -> RunConfig:
    """Check the options of environment, agent, network and transforms, and return `config` with all of their defaults.

    Imports the plug-ins. What only the specs of an environment can tell (a value that does not fit them) is found when
    the agent is built.

    Args:
        pass_over: Told of a plug-in that cannot be imported here; its options stay as they are. By default it is
            raised.

    Raises:
        ConfigError: An option is wrong.
        PluginError: There is no such plug-in, or it is none of its kind.
    """

    def tried(resolve: Callable[[Section], Section], section: Section) -> Section:
        try:
            return resolve(section)
        except PluginError as error:
            if not (error.extra or isinstance(error.__cause__, ImportError)):
                raise
            pass_over(error)
            return section

    transforms = tuple(
        tried(partial(_made, "aioseed.transforms", f"transforms.{i}"), section)
        for i, section in enumerate(config.transforms)
    )
    sections = {
        "environment": tried(_environment, config.environment),
        "agent": tried(_agent, config.agent),
        "network": tried(partial(_made, "aioseed.nets", "network"), config.network),
        "transforms": transforms,
    }
    return config.model_copy(update=sections)


def _environment(section: EnvironmentConfig) -> EnvironmentConfig:
    plugin = environment_plugin(section.plugin)
    model = getattr(plugin, "options_model", None)
    if isinstance(model, type) and issubclass(model, BaseModel):
        options = validate(model, section.options, "environment.options").model_dump(mode="json", by_alias=True)
        return section.model_copy(update={"options": options})
    try:
        plugin.task(section.name, section.options)  # which refuses wrong options, but does not tell its defaults
    except AioseedError:
        raise
    except Exception as error:
        message = f'the environment plugin "{section.plugin}" failed: {sentence_of(error)}'
        raise PluginError(message, group="aioseed.envs", name=section.plugin) from error
    return section


def _agent(section: PluginSection) -> PluginSection:
    # Says what to install where JAX is missing, without which the next line fails.
    load("aioseed.agents", section.name)
    from aioseed.host.acting import agent_options

    _, options = agent_options(section.section())
    return PluginSection.model_validate({"name": section.name, **options.model_dump(mode="json", by_alias=True)})


def _made(group: Group, path: str, section: PluginSection) -> PluginSection:
    return PluginSection.model_validate({"name": section.name, **resolved_options(group, section.section(), path)})
