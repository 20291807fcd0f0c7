"""The examples of the how-to guides run: an agent and a network that are no part of aioseed."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import pytest

from aioseed.agents.agent import Agent
from aioseed.agents.sac import agent as sac
from aioseed.agents.vtrace import agent as vtrace
from aioseed.nets.mlp import mlp
from aioseed.specs import ActionSpec, ArraySpec, discrete
from aioseed.testing.agent_kit import CHECKS, AgentUnderTest
from aioseed.testing.network_kit import check_network
from aioseed.types import EnvironmentSpec

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SPEC = EnvironmentSpec(ArraySpec("float32", (4,)), discrete(2))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def own_agent() -> AgentUnderTest:
    plugin = example("own_agent").agent
    return AgentUnderTest(plugin.build(plugin.config_type(), SPEC, partial(mlp, hidden=(16,))), SPEC)


@cache
def own_network() -> AgentUnderTest:
    network = partial(example("own_network").normalised_mlp, units=16)
    return AgentUnderTest(vtrace.build(vtrace.config_type(entropy_cost=0.01), SPEC, network), SPEC)


ROBOT = EnvironmentSpec(
    {"camera": ArraySpec("uint8", (48, 64, 3)), "joints": ArraySpec("float32", (6,)), "mode": ArraySpec("int32", ())},
    ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, -1.0), high=(1.0, 1.0)),
)
"""What the guide to networks shows as an observation of several parts."""


@cache
def changed_agent() -> AgentUnderTest:
    plugin = example("changed_agent").agent
    return AgentUnderTest(plugin.build(plugin.config_type(entropy_cost=0.01), SPEC, partial(mlp, hidden=(16,))), SPEC)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("subject", [own_agent, own_network, changed_agent])
def test_an_example_keeps_the_contract(
    subject: Callable[[], AgentUnderTest], check: Callable[[AgentUnderTest], None]
) -> None:
    check(subject())


@pytest.mark.parametrize("name", ["own_agent", "own_network"])
def test_the_guide_shows_the_code_that_runs(name: str) -> None:
    code = "".join((EXAMPLES / f"{file}.py").read_text() for file in (name, "changed_agent"))
    guide = (EXAMPLES.parent / "howto" / f"{name.replace('_', '-')}.md").read_text()
    shown = [block for block in re.findall(r"```python\n(.*?)```", guide, re.S) if "aioseed.testing" not in block]
    assert shown and [block for block in shown if block.strip() not in code] == []


def test_the_check_in_the_guide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    guide = (EXAMPLES.parent / "howto" / "own-agent.md").read_text()
    (check,) = [block for block in re.findall(r"```python\n(.*?)```", guide, re.S) if "check_agent" in block]
    asked = []
    monkeypatch.setattr("aioseed.testing.agent_kit.check_agent", lambda agent, spec: asked.append((agent, spec)))
    exec(check, {})
    ((agent, spec),) = asked
    assert isinstance(agent, Agent) and spec == SPEC


def test_the_check_in_the_guide_to_networks_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    guide = (EXAMPLES.parent / "howto" / "own-network.md").read_text()
    (check,) = [block for block in re.findall(r"```python\n(.*?)```", guide, re.S) if "check_network" in block]
    exec(check, {})


def test_the_network_of_several_parts_keeps_the_contract() -> None:
    check_network(partial(example("own_network").camera_and_joints, units=16), ROBOT)


def test_the_network_of_several_parts_serves_heads_that_take_the_action() -> None:
    # SAC refuses a network whose critic does not see it.
    agent = sac.build(sac.config_type(), ROBOT, partial(example("own_network").camera_and_joints, units=16))
    assert isinstance(agent, Agent)
