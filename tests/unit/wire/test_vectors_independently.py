"""The vectors and the example in docs/reference/wire.md, read by a second decoder that was written from wire.md alone.

Nothing of aioseed is imported here: the file shows that a client in another language needs nothing of ours.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
VECTORS = json.loads((REFERENCE / "wire-vectors.json").read_text(encoding="utf-8"))
SPECS = {entry["name"]: entry for entry in VECTORS["specs"]}
FORMATS = {
    "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "uint64": "Q", "int64": "q",
    "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
KEYS: dict[str, dict[str, object]] = {
    "hello": {
        "protocol": [1], "library": ..., "actor_id": ..., "actor_index": None, "role": "train", "environments": ...,
        "observation": ..., "action": ..., "task": None, "metrics": [], "resume_token": None, "acknowledged_rows": 0,
        "step_deadline_s": 60,
    },
    "starting": {"message": ""},
    "welcome": {
        "protocol": 1, "library": ..., "run_id": ..., "slots": ..., "epochs": ..., "credit": 1, "max_step_rows": ...,
        "max_message_bytes": ..., "step_deadline_s": ..., "ping_interval_s": ..., "ping_timeout_s": ...,
        "resume_token": ..., "seed": 0, "packings": [],
    },
    "refused": {"code": ..., "message": ..., "field": "", "ours": "", "theirs": "", "retry": False},
    "lease": {"slots": ..., "epochs": ...},
    "revoke": {"slots": ..., "epochs": ..., "reason": ""},
    "ping": {"number": ...},
    "pong": {"number": ..., "stepping_share": None},
    "drain": {"reason": ""},
    "bye": {"code": ..., "reason": ""},
    "error": {"code": ..., "message": "", "rows": []},
}  # fmt: skip
"""Keys of each message with their defaults; an ellipsis stands for none."""


def read_control(payload: bytes) -> dict[str, object]:
    assert payload[:1] == b"{" and len(payload) <= 262_144
    sent = json.loads(payload.decode("utf-8"))
    message = {key: sent.get(key, default) for key, default in KEYS[sent["type"]].items()}
    assert ... not in message.values()
    return {"type": sent["type"], **message}


def leaves(spec: dict[str, object]) -> list[tuple[str, int]]:
    """Return (dtype, elements of a row) of each leaf."""
    if "dict" in spec:
        return [leaf for _, branch in sorted(spec["dict"].items()) for leaf in leaves(branch)]
    if "tuple" in spec:
        return [leaf for branch in spec["tuple"] for leaf in leaves(branch)]
    size = 1
    for dimension in spec["shape"]:
        size *= dimension
    return [(spec["dtype"], size)]


def read_columns(payload: bytes, kind: int, columns: list[tuple[str, int]]) -> list[tuple[str, bytes, tuple]]:
    """Return (dtype, bytes, numbers) of each column."""
    assert payload[0] == kind and payload[1] == 1
    (rows,) = struct.unpack_from("<I", payload, 4)
    offset, found = 8, []
    for dtype, size in columns:
        start = offset + (-offset) % 8
        assert payload[offset:start] == bytes(start - offset), "the gap is not zero"
        layout = struct.Struct(f"<{rows * size}{FORMATS[dtype]}")
        offset = start + layout.size
        found.append((dtype, payload[start:offset], layout.unpack_from(payload, start)))
    assert offset == len(payload)
    return found


def shown(column: tuple[str, bytes, tuple]) -> object:
    dtype, raw, numbers = column
    if len(numbers) > 64:
        return {"count": len(numbers), "sha256": hashlib.sha256(raw).hexdigest()}
    return [str(number) for number in numbers] if dtype.endswith("int64") else list(numbers)


IDENTITY = [("uint64", 1), ("uint32", 1), ("uint32", 1)]


def read_step(payload: bytes, observation: dict[str, object], metrics: int) -> dict[str, object]:
    fixed = [*IDENTITY, ("float32", 1), ("float32", metrics), ("uint8", 1)]
    columns = [shown(column) for column in read_columns(payload, 1, [*fixed, *leaves(observation)])]
    names = ("epoch", "slot", "sequence", "reward", "metrics", "flags")
    return {**dict(zip(names, columns[:6], strict=True)), "observation": columns[6:]}


def read_action(payload: bytes, action: dict[str, object]) -> dict[str, object]:
    columns = [shown(column) for column in read_columns(payload, 2, [*IDENTITY, *leaves(action)])]
    return dict(zip(("epoch", "slot", "sequence", "action"), columns, strict=True))


@pytest.mark.parametrize("entry", VECTORS["control"], ids=lambda entry: entry["name"])
def test_control_messages(entry: dict[str, object]) -> None:
    assert read_control(bytes.fromhex(entry["hex"])) == entry["decoded"]


@pytest.mark.parametrize("entry", VECTORS["step"], ids=lambda entry: entry["name"])
def test_steps(entry: dict[str, object]) -> None:
    spec = SPECS[entry["spec"]]
    assert read_step(bytes.fromhex(entry["hex"]), spec["observation"], spec["metrics"]) == entry["decoded"]


@pytest.mark.parametrize("entry", VECTORS["packed_step"], ids=lambda entry: entry["name"])
def test_packed_steps(entry: dict[str, object]) -> None:
    step = next(step for step in VECTORS["step"] if step["name"] == entry["step"])
    whole, packed, spec = bytes.fromhex(step["hex"]), bytes.fromhex(entry["hex"]), SPECS[entry["spec"]]
    begin, rows = 8, step["rows"]
    for dtype, size in [*IDENTITY, ("float32", 1), ("float32", spec["metrics"]), ("uint8", 1)]:
        begin += (-begin) % 8 + struct.calcsize(f"<{rows * size}{FORMATS[dtype]}")
    begin += (-begin) % 8
    assert packed[0] == 3 and packed[1:begin] == whole[1:begin] and len(packed) < len(whole)
    assert zlib.decompress(packed[begin:], wbits=-15) == whole[begin:]


@pytest.mark.parametrize("entry", VECTORS["action"], ids=lambda entry: entry["name"])
def test_actions(entry: dict[str, object]) -> None:
    assert read_action(bytes.fromhex(entry["hex"]), SPECS[entry["spec"]]["action"]) == entry["decoded"]


def test_the_example_session_keeps_the_rules_of_rows() -> None:
    hello = read_control(bytes.fromhex(VECTORS["session"][0]["hex"]))
    last: dict[int, int] = {}
    answers: dict[tuple[int, int], int] = {}
    for entry in VECTORS["session"]:
        payload = bytes.fromhex(entry["hex"])
        if payload[0] == 1:
            step = read_step(payload, hello["observation"], 0)
            rows = list(zip(step["slot"], step["sequence"], step["flags"], strict=True))
            gap = any(sequence not in (last.get(slot, -1), last.get(slot, -1) + 1) for slot, sequence, _ in rows)
            assert all(flags & 1 for _, sequence, flags in rows if sequence == 0)
            last.update({} if gap else {slot: sequence for slot, sequence, _ in rows})
            refused = gap
        elif payload[0] == 2:
            action = read_action(payload, hello["action"])
            for slot, sequence, number in zip(action["slot"], action["sequence"], action["action"], strict=True):
                assert last[slot] == sequence and not refused
                assert answers.setdefault((slot, sequence), number) == number
        elif read_control(payload)["type"] == "error":
            assert refused
    assert last == {7: 2, 8: 2} and len(answers) == 6


def test_the_session_in_the_text_is_that_of_the_vectors() -> None:
    text = (REFERENCE / "wire.md").read_text(encoding="utf-8")
    session = text[text.index("## A whole session") : text.index("## Vectors")]
    told: list[tuple[str, str]] = []
    for line in (line for block in re.findall(r"```text\n(.*?)```", session, re.S) for line in block.splitlines()):
        speaker, words = line[:9].strip(), line[9:]
        if not words.startswith(("{", '"')):
            words = re.split(r" {2,}", words)[0].replace(" ", "")  # without the remark
        told = [*told, (speaker, words)] if speaker else [*told[:-1], (told[-1][0], told[-1][1] + words)]
    assert told == [(entry["from"], entry.get("text", entry["hex"])) for entry in VECTORS["session"]]
