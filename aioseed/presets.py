"""Read configuration: presets that environment plugins ship, files, and overrides from the command line.

Reading gives plain data (dicts, lists, numbers, strings); `validate` makes a model of it.
"""

from __future__ import annotations

import json
import logging
import re
import tomllib
from collections.abc import Callable, Hashable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

import yaml

from aioseed import plugins
from aioseed.errors import ConfigError, PluginError
from aioseed.lookup import did_you_mean
from aioseed.validation import validate

__all__ = ["PresetInfo", "apply_overrides", "list_presets", "read", "validate"]

Data: TypeAlias = dict[str, object]
"""What a configuration file holds."""

_log = logging.getLogger(__name__)


class PresetInfo(NamedTuple):
    """Name a preset that an environment plugin ships."""

    name: str
    plugin: str
    path: Path
    summary: str
    """First comment of the file."""


def list_presets() -> list[PresetInfo]:
    """Return the presets of all environment plugins, sorted by name.

    A plugin that does not load has none; that is logged as a warning, for the others can still be used.
    """
    found: list[PresetInfo] = []
    for name in plugins.names("aioseed.envs"):
        try:
            package = plugins.environment_plugin(name).preset_package
            folder = Path(str(files(package))) / "presets"
        except (PluginError, ImportError) as error:
            _log.warning("no presets of %s: %s", name, error)
            continue
        paths = [path for path in folder.glob("*") if path.suffix in (".yaml", ".yml")]
        found.extend(PresetInfo(path.stem, name, path, _summary(path)) for path in paths)
    return sorted(found)


def read(source: str) -> Data:
    """Return what a preset or a file (``.yaml``, ``.yml``, ``.toml``, ``.json``) says, unvalidated.

    Anything with one of these endings is a file, all else the name of a preset.

    Raises:
        ConfigError: No such preset or file, or it cannot be parsed; then the message gives file and line.
    """
    path = Path(source)
    if path.suffix in _PARSERS:
        return _read_file(path)
    presets = list_presets()
    matching = [preset for preset in presets if preset.name == source]
    if not matching:
        names = sorted({preset.name for preset in presets})
        listed = f"presets are {', '.join(names) or 'not installed'}; files end in .yaml, .toml or .json"
        message = f'there is no preset "{source}"{did_you_mean(source, names)}: {listed}'
        raise ConfigError(message, value=source, expected="a preset or a file")
    if len(matching) > 1:
        owners = " and ".join(preset.plugin for preset in matching)
        raise ConfigError(f'{owners} both have a preset "{source}": give the path of its file', value=source)
    return _read_file(matching[0].path)


def apply_overrides(data: Data, overrides: Sequence[str]) -> Data:
    """Return a copy of `data` in which each ``dotted.path=value`` is set.

    Values are read as YAML; a number in a path is an item of a list. Sections that are not there are made. A section
    that YAML's anchors put into several places changes in the one that is named.

    Raises:
        ConfigError: An override without ``=``, with a value that is not YAML, or through something that is no section;
            or a section that holds itself.
    """
    result = {key: _unshared(value, (data,)) for key, value in data.items()}
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f'"{override}" is not of the form dotted.path=value', value=override, expected="dotted.path=value"
            )
        _set(result, keys, _parse_value(path.strip(), text))
    return result


def _unshared(data: object, above: tuple[object, ...]) -> object:
    """Return a copy in which each place has an object of its own; `copy.deepcopy` keeps what is shared shared."""
    if not isinstance(data, dict | list):
        return data
    if any(data is one for one in above):
        raise ConfigError("a section of the configuration holds itself: an anchor is used within what it names")
    above = (*above, data)
    if isinstance(data, dict):
        return {key: _unshared(value, above) for key, value in data.items()}
    return [_unshared(value, above) for value in data]


def _set(data: object, keys: list[str], value: object) -> None:
    for i, key in enumerate(keys):
        last = i + 1 == len(keys)
        if isinstance(data, dict):
            if last:
                data[key] = value
            elif data.get(key) is None:
                data[key] = {}
            data = data[key]
        elif isinstance(data, list) and key in map(str, range(len(data))):
            if last:
                data[int(key)] = value
            data = data[int(key)]
        else:
            path, parent = ".".join(keys), ".".join(keys[:i])
            has = f"a list of {len(data)}" if isinstance(data, list) else repr(data)
            raise ConfigError(f'{path} cannot be set: {parent} is {has} and has no "{key}"', path=path)


def _parse_value(path: str, text: str) -> object:
    try:
        return _load_yaml(text)
    except yaml.YAMLError as error:
        message = f"{path} is {text!r}: expected a value in YAML (put quotation marks around a text)"
        raise ConfigError(message, path=path, value=text, expected="a value in YAML") from error


def _read_file(path: Path) -> Data:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read: {reason}", value=str(path)) from error
    try:
        data = _PARSERS[path.suffix](text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise _malformed(path, line, error.problem or "not YAML") from error
    except yaml.YAMLError as error:
        raise _malformed(path, 1, str(error).splitlines()[0]) from error
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        raise _malformed(path, line, re.sub(r" \(at .*\)$", "", str(error))) from error
    except json.JSONDecodeError as error:
        raise _malformed(path, error.lineno, error.msg) from error
    except ValueError as error:
        raise _malformed(path, 1, str(error)) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise _malformed(path, 1, f"the file holds a {type(data).__name__} where keys and values are expected")
    return cast("Data", data)


def _malformed(path: Path, line: int, problem: str) -> ConfigError:
    return ConfigError(f"{path}:{line}: {problem}", value=str(path))


def _summary(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("#")), "")


class _Loader(yaml.SafeLoader):
    """Read YAML 1.1 as PyYAML does, but 1e-3 is a number, a date is a text, and a key stands once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Build a dict and refuse a key that is there twice or that is not a text."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key}" is there twice', key_node.start_mark
                )
            seen.add(key)
        return cast("dict[Hashable, object]", super().construct_mapping(node, deep=deep))


_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 wants a dot in front of an exponent and a sign in it; YAML 1.2, and everybody who types 1e-3, does not.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _load_yaml(text: str) -> object:
    return cast("object", yaml.load(text, _Loader))


def _load_json(text: str) -> object:
    return cast("object", json.loads(text, object_pairs_hook=_unique_keys))


def _unique_keys(pairs: list[tuple[str, object]]) -> Data:
    keys = [key for key, _ in pairs]
    twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
    if twice is not None:
        raise ValueError(f'the key "{twice}" is there twice')
    return dict(pairs)


_PARSERS: dict[str, Callable[[str], object]] = {
    ".yaml": _load_yaml,
    ".yml": _load_yaml,
    ".toml": tomllib.loads,
    ".json": _load_json,
}
