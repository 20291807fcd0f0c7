"""Options of plug-ins are checked before anything is built, and show the defaults that the plug-ins give them."""

from __future__ import annotations

import sys
import textwrap

import pytest

from aioseed.errors import ConfigError, PluginError
from aioseed.host.acting import build_agent
from aioseed.host.config import load_config
from aioseed.host.options import resolved
from aioseed.plugins import environment_plugin
from aioseed.presets import list_presets
from aioseed.specs import ArraySpec, discrete
from aioseed.types import EnvironmentSpec

LOCAL = """
    class Plugin:
        preset_package = "local_options"
        def make(self, name, options, count): raise AssertionError("nothing is built")
        def task(self, name, options):
            if options.get("level") == 0:
                raise ZeroDivisionError("level")
            return {}

    plugin = Plugin()

    def net(observation, action, heads, *, sizes=((1, 2), (3,)), wild=float("inf"), width=4, **more) -> "Network": ...
"""


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Put a module with an environment plugin and a network onto the path."""
    (tmp_path / "local_options.py").write_text(textwrap.dedent(LOCAL))
    (tmp_path / "needs_more.py").write_text("import nobody_has_this\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("local_options", None)


def test_every_default_is_there_and_what_was_given_stays():
    config = resolved(load_config("cartpole", ["agent.lambda_=0.5", "transforms=[{name: normalize, clip: 2}]"]))
    agent, network = config.agent.section(), config.network.section()
    assert (agent["lambda_"], agent["clip_rho"]) == (0.5, 1.0)
    assert network == {"name": "mlp", "hidden": [64, 64], "activation": "tanh", "shared_torso": True}
    assert config.transforms[0].section() == {"name": "normalize", "clip": 2, "epsilon": 1e-3, "only": []}
    assert config.environment.options["max_rebuilds"] == 3


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets()])
def test_presets_resolve_and_what_is_resolved_stays_as_it_is(preset):
    given = load_config(preset)
    once = resolved(given)
    assert resolved(once) == once
    assert type(once).model_validate_json(once.model_dump_json()) == once
    plugin, name = environment_plugin(given.environment.plugin), given.environment.name
    assert plugin.task(name, once.environment.options) == plugin.task(name, given.environment.options)


def test_an_agent_is_built_from_what_was_resolved():
    config = resolved(load_config("cartpole"))
    spec = EnvironmentSpec(ArraySpec("float32", (4,)), discrete(2))
    assert build_agent(config.agent.section(), config.network.section(), spec).spec == spec


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("agent.discont=0.5", 'agent.discont is not a known key (did you mean "discount"?)'),
        ("agent.discount=2", "agent.discount is 2"),
        ("network.bogus=1", "network.bogus is not a known key (known to mlp: hidden, activation, shared_torso)"),
        ("network.hidden=64", "network.hidden is 64: expected a list"),
        ("transforms=[{name: scale, only: image}]", "transforms.0.only is 'image': expected a list"),
        ("environment.options.nope=3", "environment.options.nope is not a known key"),
        ("transforms=[{name: scale, factr: 2}]", 'transforms.0.factr is not a known key (did you mean "factor"?)'),
    ],
)
def test_a_wrong_option_is_said_before_anything_is_built(override, said):
    with pytest.raises(ConfigError) as caught:
        resolved(load_config("cartpole", [override]))
    assert str(caught.value).startswith(said)


def test_a_misspelt_plugin_is_never_passed_over():
    for override in ("agent.name=vtraec", "network.name=mpl", "environment.plugin=gymnasum"):
        with pytest.raises(PluginError, match="did you mean"):
            resolved(load_config("cartpole", [override]), lambda error: None)


def test_what_cannot_be_imported_here_keeps_its_options_and_is_told(local):
    config = load_config("cartpole", ["network={name: 'needs_more:net', width: 3}"])
    told = []
    assert resolved(config, told.append).network == config.network
    assert [str(error) for error in told] == [
        'the module "needs_more" needs the module "nobody_has_this", which is not installed'
    ]
    with pytest.raises(PluginError, match="nobody_has_this"):
        resolved(config)


def test_plugins_of_ones_own_tell_what_they_can(local):
    words = ["environment.plugin=local_options:plugin", "network={name: 'local_options:net', other: 1}"]
    config = resolved(load_config("cartpole", [*words, "environment.options={level: 1}"]))
    assert config.environment.options == {"level": 1}
    assert config.network.section() == {"name": "local_options:net", "width": 4, "other": 1}
    with pytest.raises(PluginError, match='"local_options:plugin" failed: ZeroDivisionError: level'):
        resolved(load_config("cartpole", [*words, "environment.options={level: 0}"]))
