"""Whatever bytes a peer sends, reading them ends in a message, a ProtocolError or a SpaceError, and costs little.

AIOSEED_FUZZ_EXAMPLES sets how many examples each test tries; with it, they are different ones in every run.
"""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioseed.errors import ProtocolError, SpaceError
from aioseed.specs import (
    ArraySpec,
    Json,
    action_from_json,
    check_servable,
    discrete,
    first_difference,
    observation_from_json,
)
from aioseed.wire import packing
from aioseed.wire.columns import MAX_ROWS, ActionLayout, RowWriter, StepLayout, step_views
from aioseed.wire.messages import MAX_CONTROL_BYTES, Hello, clip, decode_control

EXAMPLES = os.environ.get("AIOSEED_FUZZ_EXAMPLES")
fuzz = settings(max_examples=int(EXAMPLES or 100), derandomize=EXAMPLES is None)

VECTORS = json.loads((Path(__file__).parents[2] / "docs/reference/wire-vectors.json").read_text(encoding="utf-8"))
CONTROL = [bytes.fromhex(entry["hex"]) for entry in [*VECTORS["control"], *VECTORS["invalid"]]]
COLUMNS = [bytes.fromhex(entry["hex"]) for entry in [*VECTORS["step"], *VECTORS["action"]] if len(entry["hex"]) < 2000]
PACKED = [
    bytes.fromhex(entry["hex"])
    for entry in [*VECTORS["packed_step"], *VECTORS["invalid"]]
    if entry.get("kind", "packed_step") == "packed_step" and len(entry["hex"]) < 2000
]
SPECS = {
    entry["name"]: (observation_from_json(entry["observation"]), action_from_json(entry["action"]), entry["metrics"])
    for entry in VECTORS["specs"]
}
SNIPPETS = [
    b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 400, b"null", b"true", b"{}", b"[]", b'""', b'"\\ud800"', b"\xff",
    b"\xef\xbb\xbf", b"\0", b'{"type":', b'"type":"bye",', b"[" * 300, b"18446744073709551616", b"1.5", b" ",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return a known payload after a few cuts, flips, insertions and repetitions."""
    payload = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(payload)))
        end = min(len(payload), at + draw(st.integers(0, 12)))
        match draw(st.sampled_from(["cut", "flip", "insert", "repeat", "end"])):
            case "cut":
                del payload[at:end]
            case "flip" if at < len(payload):
                payload[at] ^= draw(st.integers(1, 255))
            case "insert":
                payload[at:at] = draw(st.sampled_from(SNIPPETS) | st.binary(max_size=4))
            case "repeat":
                payload[at:at] = payload[at:end] * draw(st.integers(1, 50))
            case "end":
                del payload[at:]
    return bytes(payload)


WEIRD_NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**31 + 1, 2**53, 2**63, 2**64, 10**400, 10**4000, 1.5, 1e308])
SPEC_KEYS = ["dict", "tuple", "dtype", "shape", "kind", "sizes", "low", "high", "x"]
JSON_VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | WEIRD_NUMBERS | st.floats() | st.text(max_size=8)
    | st.sampled_from(["uint8", "float32", "box", "discrete", "multi_discrete", "bool", "object"]),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.sampled_from(SPEC_KEYS), values),
    max_leaves=12,
)  # fmt: skip


@st.composite
def replaced(draw: st.DrawFn) -> bytes:
    """Return a control message in which one value, somewhere, is another."""
    message = json.loads(draw(st.sampled_from([entry["hex"] for entry in VECTORS["control"]]).map(bytes.fromhex)))
    node, value = message, draw(JSON_VALUES)
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not node[key] or not isinstance(node[key], dict | list) or draw(st.booleans()):
            node[key] = value
            return json.dumps(message).encode()
        node = node[key]


def read_control(payload: bytes) -> None:
    """Read as a session does: decode, write the error into a log, look at the specs of a HELLO."""
    try:
        message = decode_control(payload)
    except ProtocolError as error:
        assert error.code in ("malformed", "unknown_message")
        assert str(error).isprintable() and len(str(error)) <= 200
        return
    assert decode_control(message.encode()) == message
    if isinstance(message, Hello):
        read_specs(message.observation, message.action)
        first_difference({"task": message.task.config if message.task else {}}, {"task": {"a": [1, {"b": 2}]}})


def read_specs(observation_form: Json, action_form: Json) -> None:
    try:
        observation = observation_from_json(observation_form)
        check_servable(observation, action_from_json(action_form))
        StepLayout(observation, 64).size_bytes(MAX_ROWS)
    except SpaceError as error:
        assert len(clip(str(error), 1000)) < 500


def expect_only(error: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except error:
        pass


@fuzz
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"{" + tail))
def test_random_bytes_are_no_control_message_and_do_no_harm(payload: bytes) -> None:
    read_control(payload)


@fuzz
@given(mutated(CONTROL))
def test_mutated_control_messages_do_no_harm(payload: bytes) -> None:
    read_control(payload)


@fuzz
@given(replaced())
def test_control_messages_with_a_value_exchanged_do_no_harm(payload: bytes) -> None:
    read_control(payload)


@fuzz
@given(JSON_VALUES)
def test_any_value_as_a_spec_is_a_spec_or_a_space_error(form: Json) -> None:
    expect_only(SpaceError, lambda: observation_from_json(form))
    expect_only(SpaceError, lambda: action_from_json(form))
    read_specs(form, form)


@fuzz
@given(st.binary(max_size=300) | mutated(COLUMNS), st.sampled_from(sorted(SPECS)), st.integers(1, 8))
def test_any_bytes_as_columns_are_a_message_of_that_size_or_a_protocol_error(
    payload: bytes, name: str, max_rows: int
) -> None:
    observation, action, metrics = SPECS[name]
    layout, answers = StepLayout(observation, metrics), ActionLayout(action)
    expect_only(ProtocolError, lambda: step_views(layout, payload))
    expect_only(ProtocolError, lambda: answers.decode(payload))
    try:
        rows = layout.rows(payload, max_rows)
    except ProtocolError as error:
        assert error.code in ("truncated", "unexpected_message", "version", "row_count", "size_mismatch")
        return
    assert 1 <= rows <= max_rows and layout.size_bytes(rows) == len(payload)
    RowWriter(layout, layout.allocate(max_rows)).write(payload, rows, max_rows - rows)


@fuzz
@given(st.binary(max_size=300) | mutated(PACKED), st.sampled_from(sorted(SPECS)), st.integers(1, 8))
def test_any_bytes_as_a_packed_step_are_a_step_of_that_size_or_a_protocol_error(
    payload: bytes, name: str, max_rows: int
) -> None:
    observation, _, metrics = SPECS[name]
    layout = StepLayout(observation, metrics)
    try:
        rows = packing.packed_rows(layout, payload, max_rows, 2**20)
        plain = packing.unpack(layout, payload, rows)
    except ProtocolError as error:
        assert error.code in ("truncated", "unexpected_message", "version", "row_count", "size_mismatch", "malformed")
        return
    assert layout.rows(plain, max_rows) == rows and len(payload) < len(plain)


@fuzz
@given(st.integers(0, 255), st.integers(0, 3), st.integers(0, 2**32 - 1), st.integers(0, 400))
def test_whatever_a_header_claims_the_size_decides(kind: int, version: int, rows: int, tail: int) -> None:
    layout = StepLayout(ArraySpec("uint8", (3,)), 0)
    payload = struct.pack("<BBHI", kind, version, 0, rows) + bytes(tail)
    try:
        assert layout.rows(payload) == rows
    except ProtocolError:
        return
    assert (kind, version) == (1, 1) and len(payload) == layout.size_bytes(rows)


@pytest.mark.parametrize(
    "filling",
    [b"[" * 300_000, b"[1" + b",1" * 120_000 + b"]", b"[{}" + b",{}" * 80_000 + b"]", b'"' + b"\\n" * 120_000 + b'"'],
)
def test_reading_a_control_message_costs_a_bounded_multiple_of_its_size(filling: bytes) -> None:
    payload = json.dumps({"type": "hello", "observation": 0, "action": 0}).encode()[:-1] + b',"x":' + filling + b"}"
    tracemalloc.start()
    try:
        expect_only(ProtocolError, lambda: decode_control(payload))
        assert tracemalloc.get_traced_memory()[1] < 128 * MAX_CONTROL_BYTES
    finally:
        tracemalloc.stop()


def test_a_claim_of_many_rows_of_many_numbers_allocates_nothing() -> None:
    layout = StepLayout(ArraySpec("float64", (2**31,)), 64)
    payload = struct.pack("<BBHI", 1, 1, 0, MAX_ROWS) + bytes(1000)
    tracemalloc.start()
    try:
        expect_only(ProtocolError, lambda: step_views(layout, payload))
        expect_only(ProtocolError, lambda: ActionLayout(discrete(2)).decode(payload))
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()
