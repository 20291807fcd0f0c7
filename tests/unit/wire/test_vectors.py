"""The vectors are what the code writes, and the code reads them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from aioseed.errors import ProtocolError
from aioseed.specs import action_from_json, check_servable, observation_from_json
from aioseed.wire import packing
from aioseed.wire.columns import ActionLayout, StepLayout, StepMessage, step_views
from aioseed.wire.messages import decode_control

VECTORS = json.loads((Path(__file__).parents[3] / "docs/reference/wire-vectors.json").read_text(encoding="utf-8"))
SPECS = {entry["name"]: entry for entry in VECTORS["specs"]}


def named(section: str) -> list[object]:
    return [pytest.param(entry, id=entry["name"]) for entry in VECTORS[section]]


def step_layout(name: str) -> StepLayout:
    return StepLayout(observation_from_json(SPECS[name]["observation"]), SPECS[name]["metrics"])


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_vectors", Path(__file__).with_name("generate_vectors.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_generator_writes(generator: ModuleType) -> None:
    assert generator.FILE.read_text(encoding="utf-8") == generator.render(), "run tests/unit/wire/generate_vectors.py"


def test_every_kind_of_message_has_a_vector() -> None:
    kinds = {entry["decoded"]["type"] for entry in VECTORS["control"]}
    assert kinds == set("hello starting welcome refused lease revoke ping pong drain bye error".split())


@pytest.mark.parametrize("entry", named("control"))
def test_control_messages_decode_to_what_the_vector_says(entry: dict[str, object]) -> None:
    message = decode_control(bytes.fromhex(str(entry["hex"])))
    assert json.loads(message.encode()) == entry["decoded"]


@pytest.mark.parametrize("entry", named("specs"))
def test_specs_are_servable(entry: dict[str, object]) -> None:
    check_servable(observation_from_json(entry["observation"]), action_from_json(entry["action"]))


@pytest.mark.parametrize("entry", named("step"))
def test_a_step_written_column_by_column_has_the_bytes_of_the_vector(entry: dict[str, object]) -> None:
    layout, payload = step_layout(entry["spec"]), bytes.fromhex(str(entry["hex"]))
    views = step_views(layout, payload)
    message = StepMessage(layout, entry["rows"])
    for field in ("slot", "epoch", "sequence", "flags", "reward", "metrics"):
        getattr(message.columns, field)[...] = getattr(views, field)
    for target, source in zip(message.columns.observation, views.observation, strict=True):
        target[...] = source
    assert message.tobytes() == payload


@pytest.mark.parametrize("entry", named("action"))
def test_an_action_is_the_identity_of_its_step_and_the_actions(entry: dict[str, object]) -> None:
    step = next(step for step in VECTORS["step"] if step["name"] == entry["name"])
    rows, payload = entry["rows"], bytes.fromhex(str(entry["hex"]))
    layout = ActionLayout(action_from_json(SPECS[entry["spec"]]["action"]))
    identity = bytes.fromhex(step["hex"])[8 : step_layout(entry["spec"]).identity_bytes(rows)]
    decoded = layout.decode(payload)
    assert layout.encode(rows, identity, decoded.action.tobytes()) == payload
    assert decoded.action.reshape(-1).tolist() == entry["decoded"]["action"]
    assert np.array_equal(decoded.epoch, [int(text) for text in step["decoded"]["epoch"]])


@pytest.mark.parametrize("entry", named("invalid"))
def test_bad_messages_get_the_error_that_the_vector_says(entry: dict[str, object]) -> None:
    payload = bytes.fromhex(str(entry["hex"]))
    with pytest.raises(ProtocolError) as caught:
        if entry["kind"] == "control":
            decode_control(payload)
        elif entry["kind"] == "step":
            step_layout(entry["spec"]).rows(payload, entry["max_rows"])
        else:
            layout = step_layout(entry["spec"])
            packing.unpack(layout, payload, packing.packed_rows(layout, payload, entry["max_rows"], 2**20))
    assert (caught.value.code, caught.value.fatal) == (entry["code"], entry["fatal"])
