"""The commands that the documentation shows are commands, and the reference has all their options and no other."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from aioseed.cli import bench, suite
from aioseed.cli.common import split_overrides
from aioseed.cli.main import _COMMANDS
from aioseed.host.config import load_config
from aioseed.plugins import names
from aioseed.presets import list_presets

from .pages import DOCS, blocks

REFERENCE = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
COMMANDS = [name for name, command in _COMMANDS.items() if find_spec(command.module)]
PRESETS = {preset.name for preset in list_presets()}


class _Caught(BaseException):
    """Carry a parser out of the command that made it, before it parses."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def parsers_of(command: str, monkeypatch: pytest.MonkeyPatch) -> list[argparse.ArgumentParser]:
    """Return the parser of a command; `bench` and `suite` have one for each of their kinds."""
    if command in ("bench", "suite"):
        room = bench if command == "bench" else suite
        return [room.parser(kind) for kind in room.KINDS]
    return [parser_of(command, monkeypatch)]


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    def catch(self: argparse.ArgumentParser, *words: object) -> None:
        raise _Caught(self)

    with monkeypatch.context() as patch:
        for name in ("parse_args", "parse_intermixed_args", "parse_known_args"):
            patch.setattr(argparse.ArgumentParser, name, catch)
        with pytest.raises(_Caught) as caught:
            import_module(_COMMANDS[command].module).main([])
    return caught.value.parser


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    found: set[str] = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*(options_of(inner) for inner in action.choices.values()))
        found |= {option for option in action.option_strings if option.startswith("--")}
    return found - {"--help"}


def shown() -> list[tuple[str, str]]:
    """Return (place, command line) for every line of a console block that begins with aioseed."""
    return [
        (block.name, line.removeprefix("$ "))
        for block in blocks()
        if block.language == "console"
        for line in re.sub(r" \\\n\s*", " ", block.text).splitlines()
        if line.startswith("$ aioseed ")
    ]


def suites_shown() -> list[tuple[str, str]]:
    """Return those of `shown` that train a suite which is installed."""
    lines = [(place, line) for place, line in shown() if line.startswith("aioseed suite ")]
    return [(place, line) for place, line in lines if line.split()[2] in names("aioseed.suites")]


def test_every_kind_of_measurement_is_named() -> None:
    assert [kind for kind in bench.KINDS if f"`{kind}" not in REFERENCE] == []


def test_every_command_has_a_section() -> None:
    assert set(re.findall(r"^## aioseed (\S+)$", REFERENCE, re.M)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_has_every_option_and_no_other(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    section = re.search(rf"^## aioseed {command}\n(.*?)(?=^## |\Z)", REFERENCE, re.M | re.S)
    assert section is not None
    documented = {
        option for row in re.findall(r"^\| (`--.*?) \|", section[1], re.M) for option in re.findall(r"`(--[\w-]+)", row)
    }
    assert documented == set().union(*(options_of(parser) for parser in parsers_of(command, monkeypatch)))


@pytest.mark.parametrize(("place", "line"), shown())
def test_a_command_that_is_shown_parses(place: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del place
    words = shlex.split(re.split(r" (?:>|&&|\|) ", line)[0])[1:]
    if words[0] == "bench":
        words = words[1:]
        parser = bench.parser(words[0])
    elif words[:2] in (["suite", "report"], ["suite", "list"]):
        words = words[1:]
        parser = suite.parser(words[0])
    else:
        parser = parser_of(words[0], monkeypatch)
    has_subcommands = any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
    parsed = (parser.parse_args if has_subcommands else parser.parse_intermixed_args)(words[1:])
    overrides = split_overrides(getattr(parsed, "overrides", []))
    preset = getattr(parsed, "config", None) or getattr(parsed, "preset", None)
    # One command is shown for the sake of its error.
    if preset in PRESETS and "envs_per_group=3" not in overrides:
        load_config(preset, overrides)


@pytest.mark.parametrize(("place", "line"), suites_shown())
def test_a_suite_that_is_shown_can_be_run(
    place: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del place
    monkeypatch.chdir(tmp_path)
    # Raises where a task is wrong, or where a run of it would never end.
    suite._planned(suite.parser("run").parse_intermixed_args(shlex.split(line)[2:]))


def test_a_wrong_option_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from aioseed.errors import UsageError

    with pytest.raises(UsageError, match="--nonsense"):
        parser_of("train", monkeypatch).parse_intermixed_args(["cartpole", "--nonsense"])
