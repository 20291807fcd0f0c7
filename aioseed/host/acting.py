"""Where an agent meets the rooms that carry it: trees on the agent's side, flat leaves on theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from aioseed.agents.agent import ActInput, Agent, AgentPlugin
from aioseed.errors import ConfigError
from aioseed.lookup import did_you_mean
from aioseed.nets.network import Heads, Network
from aioseed.plugins import load
from aioseed.serving.inference import Acting, ActRows
from aioseed.specs import ActionSpec, ArraySpec, ObservationSpec, spec_leaves, unflatten
from aioseed.types import EnvironmentSpec, UnrollLayout
from aioseed.validation import validate


class BuiltAgent(NamedTuple):
    """Hold an agent built for one environment spec."""

    agent: Agent
    spec: EnvironmentSpec


def build_agent(
    agent_section: Mapping[str, object], network_section: Mapping[str, object], spec: EnvironmentSpec
) -> BuiltAgent:
    """Build the agent that the sections ``agent`` and ``network`` name, for `spec`.

    Raises:
        ConfigError: An option of the agent or the network is wrong.
        PluginError: No such agent or network.
        SpaceError: The agent cannot take these spaces.
    """
    agent_name, network_name = str(agent_section["name"]), str(network_section["name"])
    plugin = load("aioseed.agents", agent_name)
    if not isinstance(plugin, AgentPlugin):
        raise ConfigError(f"agent.name: {agent_name} is not an AgentPlugin", path="agent.name", value=agent_name)
    options = {key: value for key, value in agent_section.items() if key != "name"}
    config = validate(plugin.config_type, options, "agent")
    make_network = load("aioseed.nets", network_name)
    if not callable(make_network):
        raise ConfigError(f"network.name: {network_name} is not callable", path="network.name", value=network_name)
    _check_options(make_network, network_name, network_section)
    network_options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in network_section.items()
        if key != "name"
    }

    def factory(observation: ObservationSpec, action: ActionSpec, heads: Heads) -> Network:
        try:
            network = make_network(observation, action, heads, **network_options)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"network: {error}", path="network", value=str(network_options)) from error
        if not isinstance(network, Network):
            raise ConfigError(f"network.name: {network_name} does not return a Network", path="network.name")
        return network

    agent = plugin.build(config, spec, factory)
    return BuiltAgent(agent, spec)


def _check_options(make_network: Callable[..., object], name: str, section: Mapping[str, object]) -> None:
    """Raise ConfigError for an option that the network does not know; the first three arguments are not options."""
    try:
        parameters = list(inspect.signature(make_network).parameters.values())
    except ValueError:
        return  # written in C; what it makes of its options it says itself
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters[3:]]
    for key in section:
        if key != "name" and key not in known:
            hint = did_you_mean(key, known) or f" (known to {name}: {', '.join(known) or 'none'})"
            raise ConfigError(f"network.{key} is not a known key{hint}", path=f"network.{key}", value=str(section[key]))


def acting_of(built: BuiltAgent, *, greedy: bool) -> Acting:
    """Return the agent as inference sees it."""
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
        )
        out, after = agent.act(params, key, jax.tree_util.tree_unflatten(tree, list(state)), inputs, greedy)
        return out.action, jax.tree_util.tree_leaves(out.extras), jax.tree_util.tree_leaves(after)

    return Acting(initial, act)


def layout_of(built: BuiltAgent, unroll_steps: int) -> UnrollLayout:
    """Return the shape of the agent's unrolls."""
    agent, spec = built
    is_spec = lambda leaf: isinstance(leaf, ArraySpec)  # noqa: E731 - a predicate of one line
    extras = tuple(jax.tree_util.tree_leaves(agent.extras(), is_leaf=is_spec))
    state = tuple(
        ArraySpec(np.dtype(leaf.dtype).name, tuple(leaf.shape))
        for leaf in jax.tree_util.tree_leaves(agent.initial_state())
    )
    return UnrollLayout(
        spec_leaves(spec.observation), spec.action.array, extras, state, unroll_steps, agent.overlap_steps
    )
