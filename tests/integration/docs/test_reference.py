"""The reference pages say what the source says: keys, errors, metrics, events, threads and the stops of the road."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aioseed
from aioseed import errors
from aioseed.agents.agent import ActInput, Unroll
from aioseed.errors import AioseedError
from aioseed.host import events
from aioseed.serving.rule import Close
from aioseed.telemetry.ledger import Reason

from .pages import DOCS, ROOT, cells

ROOMS = ("actor", "agents", "experience", "host", "serving", "telemetry", "training")


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ROOT / "aioseed" / room).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_the_page_of_the_configuration_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate_configuration", DOCS / "generate_configuration.py")
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    assert page("reference/configuration.md") == generator.page(), "run python docs/generate_configuration.py"


def family(error: type[AioseedError]) -> list[type[AioseedError]]:
    return [error, *(kind for child in error.__subclasses__() for kind in family(child))]


def test_the_page_of_errors_has_the_tree() -> None:
    rows = {tuple(cell.strip("`") for cell in row[:4]) for row in cells(page("reference/errors.md"))}
    tree = [kind for kind in family(AioseedError) if kind.__module__ == errors.__name__]
    assert rows == {(kind.__name__, kind.__base__.__name__, str(kind.exit_code), kind.counter) for kind in tree}


def written_name(argument: ast.expr) -> list[str]:
    """Return the names that an argument of `counter`, `gauge` or `quantiles` may stand for; `<>` for what varies."""
    match argument:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.JoinedStr(values=parts):
            return ["".join(str(part.value) if isinstance(part, ast.Constant) else "<>" for part in parts)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*written_name(body), *written_name(orelse)]
        case ast.Attribute(value=ast.Name(id=kind), attr="counter"):
            return [getattr(errors, kind).counter]
        case _:
            return []


def names_in_the_source() -> set[str]:
    """Return the names that are asked of `Metrics` and those that are keys of dicts of figures."""
    found: set[str] = set()
    for path, tree in sources():
        figures = path.parent.name in ("host", "agents") or path.parent.parent.name == "agents"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                if node.func.attr in ("counter", "gauge", "quantiles"):
                    found.update(written_name(node.args[0]))
            elif isinstance(node, ast.Dict | ast.DictComp) and figures:
                keys = [node.key] if isinstance(node, ast.DictComp) else [key for key in node.keys if key is not None]
                found.update(name for key in keys for name in written_name(key) if "/" in name)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                target = node.targets[0]
                if isinstance(target.value, ast.Name) and target.value.id in ("metrics", "parts"):
                    found.update(written_name(target.slice))
    return {name for name in found if "learner/" not in name}


def names_in_the_page() -> set[str]:
    found = {name for row in cells(page("reference/metrics.md")) for name in re.findall(r"`([^`]+)`", row[0])}
    return {re.sub("<.*?>", "<>", name) for name in found}


def test_the_page_of_metrics_has_every_name_and_no_other() -> None:
    assert names_in_the_page() == names_in_the_source()


def test_the_page_of_metrics_explains_every_cause_of_a_close() -> None:
    (row,) = [row for row in cells(page("reference/metrics.md")) if "serving/close_<cause>" in row[0]]
    assert {cause.value for cause in Close} <= set(re.findall(r"`(\w+)`", row[1]))


def test_the_page_of_the_ledger_has_every_reason() -> None:
    assert {reason.value for reason in Reason} <= set(re.findall(r"^\| `(\w+)` \|", page("topics/ledger.md"), re.M))


def fields_of(event: type) -> list[str]:
    properties = [name for name, value in vars(event).items() if isinstance(value, property)]
    return [*event._fields, *properties]  # type: ignore[attr-defined]


def test_the_python_api_has_every_event_with_its_fields() -> None:
    section = page("reference/python-api.md").split("## Events")[1].split("\n## ")[0]
    rows = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in cells(section)}
    known = [kind for kind in vars(events).values() if isinstance(kind, type) and hasattr(kind, "_fields")]
    assert rows == {kind.__name__: fields_of(kind) for kind in known}


@pytest.mark.parametrize(("kind", "before"), [(ActInput, "`loss` gets"), (Unroll, "\n## ")])
def test_the_page_on_agents_has_every_field_that_a_function_gets(kind: type[ActInput | Unroll], before: str) -> None:
    section = page("howto/own-agent.md").split(f"gets `{kind.__name__}`:")[1].split(before)[0]
    assert [name for row in cells(section) for name in re.findall(r"`(\w+)`", row[0])] == list(kind._fields)


def test_the_python_api_has_every_public_name() -> None:
    rows = re.findall(r"^\| `aioseed\.(\w+)` \|", page("reference/python-api.md"), re.M)
    assert set(rows) == set(aioseed.__all__) - {"__version__"}


def defined(tree: ast.Module) -> set[str]:
    """Return the functions of a module and the methods of its classes, as they are called: ``f``, ``C.f``."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {node.name for node in tree.body if isinstance(node, kinds)}
    for holder in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        found |= {f"{holder.name}.{node.name}" for node in holder.body if isinstance(node, kinds)}
    return found


STOPS = [(row[2].strip("`"), row[3].strip("`")) for row in cells(page("topics/road-of-an-observation.md"))]


@pytest.mark.parametrize(("file", "function"), STOPS)
def test_a_stop_of_the_road_is_where_the_page_says(file: str, function: str) -> None:
    assert function in defined(ast.parse((ROOT / file).read_text(encoding="utf-8")))


def test_the_road_names_only_its_stops() -> None:
    told = page("topics/road-of-an-observation.md").split("## The stops in a table")[0]
    qualified = set(re.findall(r"`(\w+\.\w+)`", told)) - {"StepMessage.tobytes"}
    assert qualified and qualified <= {function for _, function in STOPS}


def test_threads_are_called_what_the_page_says() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path, _ in sources())
    text += "".join((ROOT / f"aioseed/cli/{name}.py").read_text(encoding="utf-8") for name in ("actor", "logfile"))
    named = set(re.findall(r"`(aioseed-[a-z-]+?)(?:-0)?`", page("topics/threads.md")))
    assert named and {name for name in named if f'"{name}' not in text} == set()
