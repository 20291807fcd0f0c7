"""Write docs/reference/configuration.md from the models that read the configuration, so that the page cannot be wrong.

Run it from anywhere after a key has changed: ``python docs/generate_configuration.py``. A test compares the page with
what this would write.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from aioseed_atari.options import AtariOptions
from aioseed_described import DescribedOptions, MetricOptions
from aioseed_gymnasium.options import GymnasiumOptions, WrapperOptions
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from aioseed.agents.ppo.config import PpoConfig
from aioseed.agents.r2d2.config import R2d2Config
from aioseed.agents.sac.config import SacConfig
from aioseed.agents.vtrace.config import VtraceConfig
from aioseed.experience.replay.config import HindsightConfig, ReplayConfig
from aioseed.host.config import PluginSection, RunConfig
from aioseed.nets.images import dqn, impala_deep, impala_shallow, r2d2
from aioseed.nets.mlp import mlp
from aioseed.nets.recurrent import mlp_dueling_lstm, mlp_lstm

PAGE = Path(__file__).parent / "reference" / "configuration.md"

HEAD = """\
<!-- Written by docs/generate_configuration.py: change the models or that file, not this page. -->
# Configuration

Every key of a run with its type, its default and its meaning. [Configuration files](configuration-files.md) says where
values come from and how to override them. `aioseed config show PRESET` prints all of them resolved, and
`aioseed config schema` the JSON Schema for editors. The full path of a key is the heading, a dot and the name in the
table: `actor.processes`. Keys whose default is — must be given.
"""

# What a model does not say itself.
MEANINGS = {
    "seed": "Of parameters, sampling and environments.",
    "serving.max_batch_rows": "Largest inference batch; no STEP may carry more rows.",
    "serving.ping_interval_s": "Seconds between two PINGs to an actor.",
    "serving.hello_timeout_s": "Longest time between an open channel and its HELLO.",
    "training.optimizer.learning_rate": "At the beginning, where a schedule changes it.",
    "training.optimizer.name": "Which optimiser.",
    "training.optimizer.schedule.kind": "Shape of the schedule.",
    "transport.max_message_bytes": "Largest message; a larger one closes its channel.",
    "telemetry.every_s": "Seconds between two reports: events, `metrics.jsonl`, TensorBoard.",
    "telemetry.tensorboard": "Write TensorBoard events into the run directory.",
    "replay.sampling": "How unrolls are drawn: by priority, or all alike.",
    "stop.episodes": "Number of finished episodes that the mean is over.",
}


def page() -> str:
    """Return the whole page."""
    parts = [
        HEAD,
        *_model(RunConfig, "", "## The run", "A run directory holds all of this, resolved, in `config.json`."),
    ]
    sections = (
        ("agent", "`vtrace`: the options of V-trace", VtraceConfig),
        ("agent", "`ppo`: the options of PPO", PpoConfig),
        ("agent", "`r2d2`: the options of R2D2", R2d2Config),
        ("agent", "`sac`: the options of SAC", SacConfig),
        ("environment.options", "`gymnasium`: how its environments are made", GymnasiumOptions),
        ("environment.options.wrappers.0", "one wrapper", WrapperOptions),
        ("environment.options", "`atari`: how games are played and seen", AtariOptions),
        ("environment.options", "`described`: environments that their own clients play", DescribedOptions),
        ("environment.options.metrics.0", "one metric", MetricOptions),
    )
    parts += _model(ReplayConfig, "replay", "## `replay`, where it is not null")
    parts += _model(HindsightConfig, "replay.hindsight", "### `replay.hindsight`, where it is not null")
    parts.append("## Options of the plugins that come with aioseed\n")
    for path, title, model in sections:
        parts += _model(model, path, f"### `{path}` for {title}")
    networks = {
        "mlp": mlp,
        "lstm": mlp_lstm,
        "dueling_lstm": mlp_dueling_lstm,
        "dqn": dqn,
        "r2d2": r2d2,
        "impala-shallow": impala_shallow,
        "impala-deep": impala_deep,
    }
    for name, network in networks.items():
        parts += _function(network, f"### `network` for `{name}`")
    return "\n".join(parts)


def _model(model: type[BaseModel], path: str, heading: str, introduction: str = "") -> list[str]:
    """Return the table of a model, then those of the models in it."""
    said, schema = _docstrings(model), model.model_json_schema()
    rows, nested = [], []
    for name, field in model.model_fields.items():
        key = f"{path}.{name}" if path else name
        inner = _model_in(field.annotation)
        if inner is not None:
            nested.append((inner, key))
            continue
        meaning = _description(schema["properties"][name]) or said.get(name) or MEANINGS.get(key, "")
        if not meaning:
            raise ValueError(f"{key} has no meaning: give its field a description")
        rows.append(_row(name, _kind(schema["properties"][name], schema), field.get_default(), meaning))
    table = [heading, "", introduction or _sentence(model), "", *_table(rows)]
    for inner, key in nested:
        if inner is PluginSection:
            table += [f"## `{key}`", "", f"Names the {key} and holds its options, which stand beside `name`.", ""]
            table += _table([_row("name", "text", model.model_fields[key].get_default().name, "See below.")])
        else:
            table += _model(inner, key, f"{'##' if '.' not in key else '###'} `{key}`")
    return table


def _function(make: Callable[..., object], heading: str) -> list[str]:
    """Return the table of the keyword-only arguments of a network's maker."""
    # Python 3.13 and later take the indentation off by themselves.
    said = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", inspect.getdoc(make) or "", re.M))
    rows = []
    for name, parameter in inspect.signature(make).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            kind = _annotation(parameter.annotation, make)
            rows.append(_row(name, kind, parameter.default, " ".join(said[name].split())))
    return [heading, "", _sentence(make), "", *_table(rows)]


def _annotation(annotation: str, make: Callable[..., object]) -> str:
    known = {"int": "integer", "bool": "truth value", "tuple[int, ...]": "list of integers"}
    choices = get_args(inspect.getmodule(make).__dict__.get(annotation))
    return known[annotation] if annotation in known else ", ".join(f"`{choice}`" for choice in choices)


def _table(rows: list[str]) -> list[str]:
    return ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]


def _row(key: str, kind: str, default: object, meaning: str) -> str:
    shown = "—" if default is PydanticUndefined else f"`{json.dumps(default, default=list)}`"
    # A row is one line: a break in a docstring would end the table.
    told = " ".join(meaning.split()).replace("|", chr(92) + "|")
    return f"| `{key}` | {kind} | {shown} | {told} |"


def _kind(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Return a JSON Schema in words."""
    if "$ref" in schema:
        return "keys and values"
    if "anyOf" in schema:
        return " or ".join(_kind(branch, root) for branch in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    words = {"integer": "integer", "number": "number", "boolean": "truth value", "string": "text", "null": "null"}
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], root)}"
    if schema.get("type") == "object":
        return "keys and values"
    kind = words[schema["type"]]
    if "minimum" in schema and "maximum" in schema:
        return f"{kind}, {_bound(schema['minimum'])} to {_bound(schema['maximum'])}"
    bounds = [
        f"{sign} {_bound(schema[key])}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _bound(number: float) -> str:
    """Return a bound in digits: pydantic takes that of a float as it was written, or as a float."""
    if number == 2**63:
        return "2^63"
    return str(int(number) if number == int(number) else number)


def _description(schema: Mapping[str, Any]) -> str:
    """Return the description of a field, which may stand in one branch of a union."""
    branches = (str(branch.get("description", "")) for branch in schema.get("anyOf", ()))
    return str(schema.get("description", "")) or next(filter(None, branches), "")


def _model_in(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _sentence(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return what stands as a text below each field of a model."""
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
                found[field.target.id] = " ".join(text.value.value.split()).replace("``", "`")
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
