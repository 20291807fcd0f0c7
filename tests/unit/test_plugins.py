"""Plugins load by name, ours and a third party's by the same door; what is wrong is one sentence."""

from __future__ import annotations

import sys
import textwrap

import pytest

from aioseed.errors import PluginError
from aioseed.plugins import environment_plugin, load, names, transport_for
from aioseed.transport.memory import MemoryTransport

CARRIER = """
from aioseed.transport.channel import Transport

class Carrier(Transport):
    schemes = ("carrier",)
    async def listen(self, url, handler, options): ...
    async def dial(self, url, options): ...

instance = Carrier()
not_a_transport = 3
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that puts a distribution with entry points onto the path, as pip would."""

    def install(module: str, source: str, entry_points: str, extras: tuple[str, ...] = ()) -> None:
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        provides = "".join(f"Provides-Extra: {extra}\n" for extra in extras)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n{provides}")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        monkeypatch.delitem(sys.modules, module, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_our_own_plugins_are_found_by_the_same_door():
    assert "gymnasium" in names("aioseed.envs")
    assert {"websocket", "grpc"} <= set(names("aioseed.transports"))
    assert environment_plugin("gymnasium").preset_package == "aioseed_gymnasium"


def test_an_unknown_name_is_told_with_the_nearest_and_all_that_there_are():
    with pytest.raises(PluginError) as caught:
        load("aioseed.envs", "gymnasum")
    assert str(caught.value).startswith(
        'there is no environment plugin "gymnasum" (did you mean "gymnasium"?): installed:'
    )
    assert (caught.value.group, caught.value.name) == ("aioseed.envs", "gymnasum")


@pytest.mark.parametrize("name", ["memry", "own_carrier:instance"])
def test_a_transport_must_be_installed_and_no_reference_is_advised(name, tmp_path, monkeypatch):
    (tmp_path / "own_carrier.py").write_text(CARRIER)
    monkeypatch.syspath_prepend(tmp_path)
    hint = ' (did you mean "memory"?)' if name == "memry" else ""
    with pytest.raises(PluginError) as caught:
        load("aioseed.transports", name)
    assert str(caught.value) == (
        f'there is no transport "{name}"{hint}: installed: grpc, memory, websocket; '
        "one of your own needs an entry point of the group aioseed.transports"
    )


def test_a_local_object_is_named_by_module_and_attribute(tmp_path, monkeypatch):
    (tmp_path / "my_local_nets.py").write_text("def tiny(): return 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("aioseed.nets", "my_local_nets:tiny")() == 7


def test_a_third_partys_plugin_is_listed_and_loaded(install):
    install("third_party_net", "net = object()", "[aioseed.nets]\nresnet = third_party_net:net\n")
    assert "resnet" in names("aioseed.nets")
    assert load("aioseed.nets", "resnet") is sys.modules["third_party_net"].net


def test_the_extra_that_brings_a_missing_module_is_named(install):
    install("needs_more", "import nobody_has_this", "[aioseed.transports]\npigeon = needs_more:T\n", ("pigeon",))
    with pytest.raises(PluginError) as caught:
        load("aioseed.transports", "pigeon")
    assert str(caught.value) == (
        'the transport "pigeon" needs the module "nobody_has_this", which is not installed: '
        'pip install "needs_more[pigeon]"'
    )
    assert caught.value.extra == "pigeon"


def test_grpc_without_its_library_names_our_extra(monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] in ("grpc", "aioseed_grpc")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(PluginError) as caught:
        transport_for("grpc://127.0.0.1:1")
    assert 'pip install "aioseed[grpc]"' in str(caught.value)
    assert caught.value.extra == "grpc"


def test_an_agent_without_its_library_names_the_learners_extra(install):
    source, points = "import nobody_has_this", "[aioseed.agents]\nnew = needs_learner:agent\n"
    install("needs_learner", source, points, ("learner",))
    with pytest.raises(PluginError, match=r'pip install "needs_learner\[learner\]"'):
        load("aioseed.agents", "new")


@pytest.mark.parametrize(
    "broken",
    [
        "ImportError('libcudnn.so.9: cannot open shared object file', name='jaxlib.xla_client')",
        "ModuleNotFoundError('No module named jaxlib.xla_client', name='jaxlib.xla_client')",
    ],
)
def test_an_agent_whose_library_is_there_but_broken_says_what_mends_it(install, broken):
    install("breaks", f"raise {broken}", "[aioseed.agents]\nold = breaks:agent\n", ("learner",))
    with pytest.raises(PluginError) as caught:
        load("aioseed.agents", "old")
    assert str(caught.value).startswith('the agent "old": this needs a learner\'s packages, and jaxlib does not load (')
    assert str(caught.value).endswith(': pip install --force-reinstall "aioseed[learner]"')


def test_a_plugin_that_raises_is_told_with_its_error(install):
    install("raises", "raise RuntimeError('no licence')", "[aioseed.nets]\nraising = raises:net\n")
    with pytest.raises(
        PluginError, match=r'^the network "raising" \(raises:net\) does not load: RuntimeError: no licence$'
    ):
        load("aioseed.nets", "raising")


def test_two_packages_with_one_name_are_told_apart_by_the_user(install):
    install("first_of_two", "x = 1", "[aioseed.nets]\nsame = first_of_two:x\n")
    install("second_of_two", "x = 2", "[aioseed.nets]\nsame = second_of_two:x\n")
    with pytest.raises(PluginError, match=r'two packages offer the network "same": first_of_two:x and second_of_two:x'):
        load("aioseed.nets", "same")


def test_what_cannot_make_environments_is_no_environment_plugin(install):
    install("no_envs", "class plugin: preset_package = 'x'", "[aioseed.envs]\nhollow = no_envs:plugin\n")
    with pytest.raises(PluginError, match='"hollow" is no environment plugin: it has no make and no task'):
        environment_plugin("hollow")


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_the_scheme_chooses_the_transport_and_imports_no_other(scheme, install, monkeypatch):
    install("raises", "raise RuntimeError", "[aioseed.transports]\nbad = raises:T\n")
    assert "ws" in transport_for(f"{scheme}://127.0.0.1:1").schemes
    assert "raises" not in sys.modules


def test_memory_is_a_network_of_its_own():
    assert isinstance(transport_for("memory://here"), MemoryTransport)


@pytest.mark.parametrize("attribute", ["Carrier", "instance"])
def test_a_third_partys_transport_is_found_by_its_schemes(install, attribute):
    install("carriers", CARRIER, f"[aioseed.transports]\npost = carriers:{attribute}\n")
    assert transport_for("carrier://somewhere").schemes == ("carrier",)


def test_an_unknown_scheme_lists_those_that_there_are_and_the_plugins_that_fail(install):
    install("carriers", CARRIER, "[aioseed.transports]\npost = carriers:Carrier\nodd = carriers:not_a_transport\n")
    with pytest.raises(PluginError) as caught:
        transport_for("carier://somewhere")
    assert str(caught.value) == (
        'no transport takes "carier://" (did you mean "carrier"?): there are memory, ws, wss, grpc, grpcs, carrier; '
        '"odd" is not a Transport'
    )


def test_an_address_without_a_scheme_is_told_what_one_looks_like():
    with pytest.raises(PluginError, match=r'^"127\.0\.0\.1:8700" is no address: .* ws://127\.0\.0\.1:8700$'):
        transport_for("127.0.0.1:8700")
