"""Load plugins: the one place that looks into entry points, for ours and a third party's alike.

Plugins are imported only when they are asked for, so that an actor over WebSockets never imports gRPC, and nothing here
imports an agent's JAX before somebody names the agent.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Literal, TypeAlias, cast

from aioseed.errors import PluginError
from aioseed.lookup import LEARNER_PACKAGES, did_you_mean, import_attribute, is_reference, sentence_of, without_learner
from aioseed.suites import Suite
from aioseed.transport.channel import Transport
from aioseed.transport.memory import MemoryTransport
from aioseed.types import EnvironmentPlugin

__all__ = ["Group", "environment_plugin", "jax_plugins", "load", "names", "suite", "transport_for"]

Group: TypeAlias = Literal[
    "aioseed.transports", "aioseed.envs", "aioseed.agents", "aioseed.nets", "aioseed.transforms", "aioseed.suites"
]
"""The entry-point groups in which plugins are found."""

_KINDS: dict[str, str] = {
    "aioseed.transports": "transport",
    "aioseed.envs": "environment plugin",
    "aioseed.agents": "agent",
    "aioseed.nets": "network",
    "aioseed.transforms": "transform",
    "aioseed.suites": "suite",
}
_LEARNER_SIDE = ("aioseed.agents", "aioseed.nets", "aioseed.transforms")
_SCHEMES = {"ws": "websocket", "wss": "websocket", "grpc": "grpc", "grpcs": "grpc"}


def names(group: Group) -> list[str]:
    """Return the names of the installed plugins of a group, sorted; none of them is imported."""
    return sorted({point.name for point in entry_points(group=group)})


def load(group: Group, name: str) -> object:
    """Import a plugin by its name, or an object as ``package.module:attribute`` from a local file.

    A transport must be installed: whoever dials looks for it by the scheme of an address, in a process of its own.

    Raises:
        PluginError: Nothing has that name (the message lists what there is), two packages claim it, or it cannot be
            imported; then the message names the extra that brings what is missing.
    """
    if is_reference(name) and group != "aioseed.transports":
        return import_attribute(name, group=group)
    points = {point.value: point for point in entry_points(group=group) if point.name == name}
    kind = _KINDS[group]
    if not points:
        known, own = names(group), "a local one is package.module:name"
        if group == "aioseed.transports":
            known, own = sorted([*known, "memory"]), f"one of your own needs an entry point of the group {group}"
        listed = f"installed: {', '.join(known)}" if known else "none is installed"
        message = f'there is no {kind} "{name}"{did_you_mean(name, known)}: {listed}; {own}'
        raise PluginError(message, group=group, name=name)
    if len(points) > 1:
        claims = " and ".join(sorted(points))
        raise PluginError(f'two packages offer the {kind} "{name}": {claims}', group=group, name=name)
    return _import(next(iter(points.values())))


def jax_plugins() -> list[EntryPoint]:
    """Return what JAX would load as a plugin of its own, for an accelerator; nothing is loaded."""
    return list(entry_points(group="jax_plugins"))


def environment_plugin(name: str) -> EnvironmentPlugin:
    """Return the environment plugin `name`.

    Raises:
        PluginError: As `load`, or what was loaded is no environment plugin.
    """
    plugin = load("aioseed.envs", name)
    lacking = [part for part in ("preset_package", "make", "task") if not hasattr(plugin, part)]
    if lacking:
        message = f'"{name}" is no environment plugin: it has no {" and no ".join(lacking)}'
        raise PluginError(message, group="aioseed.envs", name=name)
    return cast("EnvironmentPlugin", plugin)


def suite(name: str) -> Suite:
    """Return the suite `name`.

    Raises:
        PluginError: As `load`, or what was loaded is no suite.
    """
    found = load("aioseed.suites", name)
    if not isinstance(found, Suite):
        raise PluginError(f'"{name}" is a {type(found).__name__}, not a Suite', group="aioseed.suites", name=name)
    return found


def transport_for(url: str) -> Transport:
    """Return a transport that opens channels to `url`, chosen by its scheme.

    ``memory`` gives a new network at each call: whoever listens and whoever dials must share one instance.

    Raises:
        PluginError: No transport has this scheme, or the one that has cannot be imported.
    """
    scheme, colon, _ = url.partition("://")
    if not colon:
        message = f'"{url}" is no address: one begins with a transport, for example ws://127.0.0.1:8700'
        raise PluginError(message, group="aioseed.transports", name=url)
    if scheme == "memory":
        return MemoryTransport()
    if scheme in _SCHEMES:
        return _transport(_SCHEMES[scheme])
    foreign = [name for name in names("aioseed.transports") if name not in _SCHEMES.values()]
    schemes = ["memory", *_SCHEMES]
    broken: list[str] = []
    for name in foreign:
        try:
            transport = _transport(name)
        except PluginError as error:
            # It may be the one that is wanted, and then its failure is the answer.
            broken.append(str(error))
            continue
        if scheme in transport.schemes:
            return transport
        schemes.extend(transport.schemes)
    reasons = "".join(f"; {reason}" for reason in broken)
    message = (
        f'no transport takes "{scheme}://"{did_you_mean(scheme, schemes)}: there are {", ".join(schemes)}{reasons}'
    )
    raise PluginError(message, group="aioseed.transports", name=scheme)


def _transport(name: str) -> Transport:
    found = load("aioseed.transports", name)
    if isinstance(found, type) and issubclass(found, Transport):
        return found()
    if isinstance(found, Transport):
        return found
    raise PluginError(f'"{name}" is not a Transport', group="aioseed.transports", name=name)


def _import(point: EntryPoint) -> object:
    try:
        return cast("object", point.load())
    except PluginError:
        raise  # the plugin itself knows best what it lacks
    except Exception as error:
        words, extra = _failure(point, error)
        message = f'the {_KINDS[point.group]} "{point.name}"{words}'
        raise PluginError(message, group=point.group, name=point.name, extra=extra) from error


def _failure(point: EntryPoint, error: Exception) -> tuple[str, str]:
    """Say why `point` was not imported and what helps, and name the extra that brings what it lacks."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    # What is not there at all, an extra of the plugin's own distribution may bring; it mends nothing that is broken.
    broken = "" if missing in LEARNER_PACKAGES else without_learner(error)
    if broken:
        return f": {broken}", "learner"
    if not isinstance(error, ImportError):
        return f" ({point.value}) {_does_not_load(error)}", ""
    extra, distribution = _extra_of(point), point.dist.name if point.dist is not None else ""
    told = f'needs the module "{missing}", which is not installed' if missing else _does_not_load(error)
    return f" {told}" + (f': pip install "{distribution}[{extra}]"' if extra else ""), extra


def _does_not_load(error: Exception) -> str:
    return f"does not load: {sentence_of(error)}"


def _extra_of(point: EntryPoint) -> str:
    """Return the extra of the plugin's own distribution that is named like it, else its ``learner``, else nothing."""
    offered = (point.dist.metadata.get_all("Provides-Extra") or []) if point.dist is not None else []
    wanted = [point.name, *(["learner"] if point.group in _LEARNER_SIDE else [])]
    return next((extra for extra in wanted if extra in offered), "")
