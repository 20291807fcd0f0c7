"""Where an agent meets the rooms that carry it: trees on the agent's side, flat leaves on theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from pydantic import BaseModel

from aioseed.agents.agent import ActInput, Agent, AgentPlugin
from aioseed.agents.transformed import transformed
from aioseed.errors import ConfigError, SpaceError
from aioseed.host.forms import checked_agent, checked_answer, extras_of, guarded, state_of, telling
from aioseed.host.makers import maker
from aioseed.nets.network import Network
from aioseed.nets.transforms import Transform, chain
from aioseed.plugins import load
from aioseed.serving.inference import Acting, ActRows
from aioseed.specs import leaf_paths, spec_leaves, unflatten
from aioseed.types import EnvironmentSpec, UnrollLayout
from aioseed.validation import validate

Greedy: TypeAlias = Literal["never", "evaluating", "always"]
"""Which rows take the likeliest action: none, those of the role evaluate if an agent draws (beside training), all."""


class BuiltAgent(NamedTuple):
    """Hold an agent built for one environment spec."""

    agent: Agent
    spec: EnvironmentSpec


def build_agent(
    agent_section: Mapping[str, object],
    network_section: Mapping[str, object],
    spec: EnvironmentSpec,
    transform_sections: Sequence[Mapping[str, object]] = (),
) -> BuiltAgent:
    """Build the agent that the sections ``agent``, ``network`` and ``transforms`` name, for `spec`.

    Raises:
        ConfigError: An option of the agent, the network or a transform is wrong.
        PluginError: No such agent, network or transform, or the agent's plug-in raised or built what is no agent.
        SpaceError: The agent cannot take these spaces, or JAX would cut an observation's numbers to 32 bits.
    """
    _check_computable(spec)
    plugin, config = agent_options(agent_section)
    name = str(agent_section["name"])
    network = maker("aioseed.nets", network_section, "network", Network)
    build = telling(plugin.build, f"build of {name}")
    if not transform_sections:
        return BuiltAgent(checked_agent(build(config, spec, network), name), spec)
    makers = [
        maker("aioseed.transforms", section, f"transforms.{i}", Transform)
        for i, section in enumerate(transform_sections)
    ]
    transform = chain(spec.observation, makers)
    agent = checked_agent(build(config, spec._replace(observation=transform.observation), network), name)
    # What is raised by a transform is told as well.
    return BuiltAgent(guarded(transformed(agent, transform), name), spec)


def _check_computable(spec: EnvironmentSpec) -> None:
    paths = leaf_paths(spec.observation)
    for leaf, path in zip(spec_leaves(spec.observation), paths, strict=True):
        taken = jax.dtypes.canonicalize_dtype(leaf.dtype).name
        if taken != leaf.dtype:
            raise SpaceError(
                f"{path} is {leaf.dtype}, of which JAX would keep {taken}: let the environment send {taken}, or let "
                f"JAX compute with 64 bits (JAX_ENABLE_X64=1 where the learner runs)"
            )


def agent_options(section: Mapping[str, object]) -> tuple[AgentPlugin[BaseModel], BaseModel]:
    """Return the agent that the section ``agent`` names, and its options, checked.

    Raises:
        ConfigError: An option is wrong.
        PluginError: No such agent.
    """
    name = str(section["name"])
    plugin = load("aioseed.agents", name)
    if not isinstance(plugin, AgentPlugin):
        raise ConfigError(f"agent.name: {name} is not an AgentPlugin", path="agent.name", value=name)
    options = {key: value for key, value in section.items() if key != "name"}
    return plugin, validate(plugin.config_type, options, "agent")


def acting_of(built: BuiltAgent, *, greedy: Greedy) -> Acting:
    """Return the agent as inference sees it; its `act` raises PluginError, when traced, for arrays of another form."""
    agent, spec = built
    initial, tree = jax.tree_util.tree_flatten(agent.initial_state())

    def act(
        params: object, key: jax.Array, state: Sequence[jax.Array], rows: ActRows[jax.Array]
    ) -> tuple[jax.Array, Sequence[jax.Array], Sequence[jax.Array]]:
        inputs = ActInput(
            observation=unflatten(spec.observation, rows.observation),
            reward=rows.reward,
            flags=rows.flags,
            previous_action=rows.previous_action,
            slot=rows.slot,
            epoch_low=rows.epoch_low,
            sequence=rows.sequence,
            evaluation=rows.evaluation,
            takes_mode=rows.evaluation if greedy == "evaluating" else jnp.zeros_like(rows.evaluation),
        )
        before = jax.tree_util.tree_unflatten(tree, list(state))
        answer = agent.act(params, key, before, inputs, greedy == "always")
        out, after = checked_answer(agent, spec.action.array, answer)
        return out.action, jax.tree_util.tree_leaves(out.extras), jax.tree_util.tree_leaves(after)

    return Acting(initial, act)


def layout_of(built: BuiltAgent, unroll_steps: int) -> UnrollLayout:
    """Return the shape of the agent's unrolls."""
    agent, spec = built
    extras, state = tuple(extras_of(agent)), tuple(state_of(agent))
    return UnrollLayout(
        spec_leaves(spec.observation), spec.action.array, extras, state, unroll_steps, agent.overlap_steps
    )
