"""Write docs/reference/wire-vectors.json, the conformance vectors of the wire.

To write it anew: ``python tests/unit/wire/generate_vectors.py``.
`test_vectors.py` fails when the file is not what this program writes, and reads it with a decoder of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aioseed.errors import ProtocolError
from aioseed.specs import (
    ActionSpec,
    ArraySpec,
    Json,
    ObservationSpec,
    discrete,
    multi_discrete,
    observation_to_json,
)
from aioseed.types import FIRST, TERMINATED, TRUNCATED
from aioseed.wire import messages, packing
from aioseed.wire.columns import ActionLayout, StepLayout, StepMessage, flat_columns, step_views

FILE = Path(__file__).parents[3] / "docs" / "reference" / "wire-vectors.json"
MOST_NUMBERS_SHOWN = 64
MAX_ROWS = 2
MAX_BYTES = 2**20
"""Of a STEP, in the session of the invalid ones."""

SPECS: dict[str, tuple[ObservationSpec, ActionSpec, int]] = {
    "vector": (ArraySpec("float32", (4,)), discrete(2), 0),
    "image": (ArraySpec("uint8", (84, 84)), discrete(18), 0),
    "odd_image": (ArraySpec("uint8", (3, 5)), multi_discrete((3, 2, 5)), 2),
    "nested": (
        {
            "é": ArraySpec("uint64", ()),
            "camera": ArraySpec("uint8", (2, 3)),
            "Joints": (ArraySpec("float32", (3,)), ArraySpec("float64", (2,)), {"grip": ArraySpec("float16", (1,))}),
            "task": ArraySpec("int32", ()),
        },
        ActionSpec("box", ArraySpec("float32", (2,)), low=(-1.0, float("-inf")), high=(1.0, 0.5)),
        2,
    ),
}
ROWS = {"vector": (1, 2, 3), "image": (1,), "odd_image": (1, 3), "nested": (1, 2, 5)}

PACKED: dict[str, str] = {
    "image, 1 rows": (
        "6350f5ca9fb253cc3aa17515bb4e60d9ec03b24ee93d1bf98c236a171d57f1cc9bbc43d42abe65259b7640e9acfd328e69dd1b788dc2"
        "6b161e53f6c89db45dc432ae7905ab967fc9cc7dd20ea95deb790cc3aa171c5572cf99b84dd822b669398ba65ff18cbd52f6299debb8"
        "0d42abe61f5174cb9eb055c83ca67119b3866fd1f43d9276c91d6bb9f4432ae71d5670cdeadf226816ddb09449dda770da6e09dba4f6"
        "359c7ac115730fc9bb64f66d16308daa5fc2a8e65d307597b84d62db6a0edda0f23907e59c337a37f19b44d62d6618f5c7a83f46fd31"
        "ea8f517f8cfa63d41fa3fe18f5c7a83f46fd31ea8f517f8cfa63d41fa3fe18f5c7a83f46fd31ea8f517f8cfa63d41fa3fe18f5c7a83f"
        "06a13f00"
    ),
    "nested, 5 rows": (
        "63605038c8c0b0e6000383c37e06860a0706060e47068620207e0114d3006206a0d8152036018a0901d54e0089d93130cc008ac180ca"
        "0130d5200aa1195eec87d0fc50358a10da410bca9785aa6385d20c10f10629078693094719761d7076f080caa87ae54fd929669dd0ba"
        "8a5d27b06cf60159a7f49e8d7cc611b58b8eab78429500b11710e703f1140654a00aa5bda0743e9486a90300"
    ),
    "vector, 3 rows": "63605038c8c0b0e6000383c37e06860a0706060e47068620207e0114d3006206a0d8152036018a091d0400",
}
"""What the observations of some STEPs were deflated to once: other libraries, and other versions, yield other bytes."""
_EIGHT_THOUSAND_ZEROS = "edc101010000008090feafee080a0000000000000018"

HELLO: dict[str, Json] = {
    "type": "hello",
    "library": "vectors 1",
    "actor_id": "actor-é-1",
    "environments": 2,
    "observation": {"dtype": "float32", "shape": [4]},
    "action": {"kind": "discrete", "dtype": "int32", "shape": [], "sizes": [2]},
}
WELCOME: dict[str, Json] = {
    "type": "welcome",
    "library": "vectors 1",
    "run_id": "run-1",
    "slots": [7, 8],
    "epochs": [3, 4],
    "max_step_rows": 2,
    "max_message_bytes": 16_777_216,
    "step_deadline_s": 60,
    "ping_interval_s": 5,
    "ping_timeout_s": 20,
    "resume_token": "b25jZQ",
}
CONTROL: list[tuple[str, str, dict[str, Json]]] = [
    ("hello, shortest", "actor", HELLO),
    (
        "hello, everything",
        "actor",
        {
            **HELLO,
            "protocol": [1, 2],
            "actor_index": 0,
            "role": "evaluate",
            "task": {
                "name": "CartPole-v1",
                "config": {"max_episode_steps": 500, "wrappers": [["clip", 1.5]], "x": None},
            },
            "metrics": [{"name": "raw_score", "fold": "sum"}, {"name": "level", "fold": "last"}],
            "resume_token": "dG9rZW4",
            "acknowledged_rows": 9_007_199_254_740_993,
            "step_deadline_s": 2.5,
        },
    ),
    ("starting", "learner", {"type": "starting", "message": "compiling"}),
    ("starting, shortest", "learner", {"type": "starting"}),
    ("welcome, shortest", "learner", WELCOME),
    (
        "welcome, everything",
        "learner",
        {**WELCOME, "protocol": 1, "credit": 2, "seed": 42, "packings": ["deflate", "later"]},
    ),
    (
        "refused",
        "learner",
        {
            "type": "refused",
            "code": "observation",
            "message": "the observation differs at shape.0",
            "field": "observation.shape.0",
            "ours": "4",
            "theirs": "5",
            "retry": False,
        },
    ),
    ("refused, shortest", "learner", {"type": "refused", "code": "capacity", "message": "no slot is free"}),
    ("lease", "learner", {"type": "lease", "slots": [0, 4_294_967_295], "epochs": [5, 18_446_744_073_709_551_615]}),
    ("revoke", "learner", {"type": "revoke", "slots": [7], "epochs": [3], "reason": "no step for 60 s"}),
    ("ping", "either", {"type": "ping", "number": 1}),
    ("pong", "either", {"type": "pong", "number": 9_007_199_254_740_991}),
    ("pong, everything", "actor", {"type": "pong", "number": 1, "stepping_share": 0.625}),
    ("drain", "learner", {"type": "drain", "reason": "shutting down"}),
    ("bye", "either", {"type": "bye", "code": "run_over", "reason": "the run has reached its last step"}),
    ("bye, shortest", "either", {"type": "bye", "code": "leaving"}),
    (
        "error that names rows",
        "learner",
        {
            "type": "error",
            "code": "sequence_gap",
            "message": "1 row was refused",
            "rows": [{"slot": 7, "epoch": 3, "sequence": 9, "code": "sequence_gap"}],
        },
    ),
    ("error, shortest", "either", {"type": "error", "code": "unknown_message"}),
    ("a key that nobody knows", "either", {"type": "ping", "number": 2, "later": {"minor": "version"}}),
]
BAD_CONTROL: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("not an object", b"[]"),
    ("space before the object", b' {"type":"ping","number":1}'),
    ("byte order mark", b'\xef\xbb\xbf{"type":"ping","number":1}'),
    ("something behind the object", b'{"type":"ping","number":1}{}'),
    ("cut off", b'{"type":"ping"'),
    ("not UTF-8", b'{"type":"bye","code":"leaving","reason":"\xff"}'),
    ("half a surrogate pair", b'{"type":"bye","code":"leaving","reason":"\\ud800"}'),
    ("no type", b'{"number":1}'),
    ("unknown type", b'{"type":"dance"}'),
    ("type that is no string", b'{"type":1}'),
    ("missing key", b'{"type":"ping"}'),
    ("string for a number", b'{"type":"ping","number":"1"}'),
    ("boolean for a number", b'{"type":"ping","number":true}'),
    ("fraction for a whole number", b'{"type":"ping","number":1.5}'),
    ("negative number", b'{"type":"ping","number":-1}'),
    ("number beyond 2^53 - 1", b'{"type":"pong","number":9007199254740992}'),
    ("integer of 5000 digits", b'{"type":"ping","number":' + b"9" * 5000 + b"}"),
    ("400 lists in one another", b'{"type":"ping","number":' + b"[" * 400 + b"]" * 400 + b"}"),
    ("word of BYE that is not known", b'{"type":"bye","code":"sulking"}'),
    ("epoch beyond 2^64 - 1", b'{"type":"lease","slots":[1],"epochs":[18446744073709551616]}'),
    ("slots without epochs", b'{"type":"lease","slots":[1,2],"epochs":[1]}'),
    ("slot that stands twice", b'{"type":"lease","slots":[1,1],"epochs":[1,2]}'),
    ("NaN in a spec", json.dumps({**HELLO, "observation": float("nan")}).encode()),
    ("Infinity in a task", json.dumps({**HELLO, "task": {"name": "x", "config": {"a": float("inf")}}}).encode()),
    ("no environments", json.dumps({**HELLO, "environments": 0}).encode()),
    ("two metrics of one name", json.dumps({**HELLO, "metrics": [{"name": "a", "fold": "sum"}] * 2}).encode()),
]


def main() -> None:
    """Write the file."""
    FILE.write_text(render(), encoding="utf-8")


def render() -> str:
    """Return the text of the file: JSON with one vector a line."""
    sections: dict[str, list[Json]] = {
        "specs": [_spec_entry(name) for name in SPECS],
        "control": [_control_entry(*entry) for entry in CONTROL],
        "step": [_step_entry(name, rows) for name in SPECS for rows in ROWS[name]],
        "packed_step": [_packed_entry(name, deflated) for name, deflated in PACKED.items()],
        "action": [_action_entry(name, rows) for name in SPECS for rows in ROWS[name]],
        "session": _session(),
        "invalid": [*(_invalid_control(*entry) for entry in BAD_CONTROL), *_invalid_columns(), *_invalid_packed()],
    }
    lines = ['{"protocol": 1,']
    for section, entries in sections.items():
        rows = ",\n".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries)
        lines.append(f'"{section}": [\n{rows}\n]' + ("}" if section == "invalid" else ","))
    return "\n".join(lines) + "\n"


def step_message(name: str, rows: int) -> bytes:
    """Return a STEP of made-up numbers that every dtype holds exactly."""
    observation, _, metrics = SPECS[name]
    message = StepMessage(StepLayout(observation, metrics), rows)
    for column in flat_columns(message.columns):
        values = (37 * np.arange(column.size) % 200).reshape(column.shape)
        column[...] = values if column.dtype.kind in "ui" else values / 8 - 10
    columns = message.columns
    columns.slot[:] = 7 + np.arange(rows)
    columns.epoch[:] = 2**53 + 1 + np.arange(rows, dtype=np.uint64)
    columns.sequence[:] = 100 * np.arange(rows)
    columns.flags[:] = np.resize([FIRST, TERMINATED, TRUNCATED, TERMINATED | TRUNCATED, 0], rows)
    columns.reward[columns.flags == FIRST] = 0
    return message.tobytes()


def action_message(name: str, rows: int) -> bytes:
    """Return the ACTION that answers `step_message(name, rows)`."""
    observation, action, metrics = SPECS[name]
    step, layout = step_message(name, rows), StepLayout(observation, metrics)
    identity = step[8 : layout.identity_bytes(rows)]
    values = np.arange(rows * action.array.size).reshape(rows, *action.array.shape)
    values = values % np.array(action.sizes).reshape(action.array.shape) if action.sizes else values / 4 - 1
    return ActionLayout(action).encode(rows, identity, values.astype(action.array.numpy_dtype).tobytes())


def _spec_entry(name: str) -> Json:
    observation, action, metrics = SPECS[name]
    return {
        "name": name,
        "observation": observation_to_json(observation),
        "action": action.to_json(),
        "metrics": metrics,
    }


def _control_entry(name: str, sender: str, message: dict[str, Json]) -> Json:
    payload = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    decoded = json.loads(messages.decode_control(payload).encode())
    return {"name": name, "from": sender, "hex": payload.hex(), "decoded": decoded}


def _step_entry(name: str, rows: int) -> Json:
    observation, _, metrics = SPECS[name]
    payload = step_message(name, rows)
    columns = step_views(StepLayout(observation, metrics), payload)
    decoded: dict[str, Json] = {field: _numbers(getattr(columns, field)) for field in columns._fields[:-1]}
    decoded["observation"] = [_numbers(leaf) for leaf in columns.observation]
    return {"name": f"{name}, {rows} rows", "spec": name, "rows": rows, "hex": payload.hex(), "decoded": decoded}


def packed_message(name: str, rows: int, deflated: bytes) -> bytes:
    """Return the packed STEP that stands for `step_message(name, rows)`."""
    observation, _, metrics = SPECS[name]
    step = step_message(name, rows)
    return b"\3" + step[1 : StepLayout(observation, metrics).observation_at(rows)] + deflated


def _packed_entry(step: str, deflated: str) -> Json:
    name, rows = step.split(", ")[0], int(step.split()[1])
    payload = packed_message(name, rows, bytes.fromhex(deflated))
    layout = StepLayout(SPECS[name][0], SPECS[name][2])
    if packing.unpack(layout, payload, packing.packed_rows(layout, payload, rows, MAX_BYTES)) != step_message(
        name, rows
    ):
        raise AssertionError(f"{step} is packed wrongly")
    return {"name": f"{step}, packed", "spec": name, "step": step, "hex": payload.hex()}


def _action_entry(name: str, rows: int) -> Json:
    payload = action_message(name, rows)
    columns = ActionLayout(SPECS[name][1]).decode(payload)
    decoded: dict[str, Json] = {field: _numbers(getattr(columns, field)) for field in columns._fields}
    return {"name": f"{name}, {rows} rows", "spec": name, "rows": rows, "hex": payload.hex(), "decoded": decoded}


def _numbers(column: np.ndarray) -> Json:
    """Return a column in C order: 64-bit integers as text, since some JSON readers lose digits; a long one hashed."""
    if column.size > MOST_NUMBERS_SHOWN:
        return {"count": column.size, "sha256": hashlib.sha256(column.tobytes()).hexdigest()}
    flat: list[Json] = column.reshape(-1).tolist()
    return [str(value) for value in flat] if column.dtype.name in ("uint64", "int64") else flat


def _session() -> list[Json]:
    """Return the conversation in docs/reference/wire.md: two environments, observations uint8[3], two actions."""
    pair, seven, eight = ((7, 3), (8, 4)), ((7, 3),), ((8, 4),)
    hello = {**HELLO, "observation": {"dtype": "uint8", "shape": [3]}, "task": {"name": "Example-v0", "config": {}}}
    gap = {"slot": 7, "epoch": 3, "sequence": 3, "code": "sequence_gap"}
    return [
        _said("actor", hello),
        _said("learner", {"type": "starting", "message": "compiling"}),
        _said("learner", WELCOME),
        _stepped(pair, (0, 0), (FIRST, FIRST), (0, 0)),
        _acted(pair, (0, 0), (1, 0)),
        _stepped(pair, (1, 1), (0, TERMINATED), (1, 0.5)),
        _acted(pair, (1, 1), (0, 1)),
        _stepped(seven, (3,), (0,), (1,)),
        _said("learner", {"type": "error", "code": "sequence_gap", "message": "1 row was refused", "rows": [gap]}),
        _stepped(pair, (2, 2), (0, FIRST), (1, 0)),
        _acted(pair, (2, 2), (1, 1)),
        _stepped(eight, (2,), (FIRST,), (0,)),
        _acted(eight, (2,), (1,)),
        _said("learner", {"type": "ping", "number": 1}),
        _said("actor", {"type": "pong", "number": 1}),
        _said("learner", {"type": "drain", "reason": "the run is over"}),
        _said("learner", {"type": "bye", "code": "run_over", "reason": "the run is over"}),
    ]


def _said(sender: str, message: dict[str, Json]) -> Json:
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    messages.decode_control(text.encode())
    return {"from": sender, "text": text, "hex": text.encode().hex()}


def _stepped(
    slots: tuple[tuple[int, int], ...], sequence: tuple[int, ...], flags: tuple[int, ...], reward: tuple[float, ...]
) -> Json:
    message = StepMessage(StepLayout(ArraySpec("uint8", (3,)), 0), len(slots))
    columns = message.columns
    columns.slot[:], columns.epoch[:] = zip(*slots, strict=True)
    columns.sequence[:], columns.flags[:], columns.reward[:] = sequence, flags, reward
    columns.observation[0][:] = 16 * columns.slot[:, None] + columns.sequence[:, None] + np.arange(3)
    return {"from": "actor", "hex": message.tobytes().hex()}


def _acted(slots: tuple[tuple[int, int], ...], sequence: tuple[int, ...], actions: tuple[int, ...]) -> Json:
    slot, epoch = zip(*slots, strict=True)
    identity = StepMessage(StepLayout(ArraySpec("uint8", (3,)), 0), len(slots))
    identity.columns.slot[:], identity.columns.epoch[:], identity.columns.sequence[:] = slot, epoch, sequence
    step = identity.tobytes()
    rows = len(slots)
    payload = ActionLayout(discrete(2)).encode(
        rows, step[8 : identity.layout.identity_bytes(rows)], np.array(actions, "<i4").tobytes()
    )
    return {"from": "learner", "hex": payload.hex()}


def _invalid_control(name: str, payload: bytes) -> Json:
    try:
        messages.decode_control(payload)
    except ProtocolError as error:
        return {"name": name, "kind": "control", "hex": payload.hex(), "code": error.code, "fatal": error.fatal}
    raise AssertionError(f"{name} was accepted")


def _invalid_columns() -> list[Json]:
    good = step_message("vector", 2)
    bad = {
        "no header": good[:7],
        "header alone": good[:8],
        "one byte missing": good[:-1],
        "one byte too many": good + b"\0",
        "an ACTION where a STEP belongs": b"\2" + good[1:],
        "version 2": good[:1] + b"\2" + good[2:],
        "no rows": good[:4] + bytes(4),
        "more rows than the session allows": good[:4] + b"\3\0\0\0" + good[8:],
        "fewer rows than bytes": good[:4] + b"\1\0\0\0" + good[8:],
    }
    layout = StepLayout(SPECS["vector"][0], 0)
    return _refused(bad, "step", "vector", lambda payload: layout.rows(payload, MAX_ROWS))


def _invalid_packed() -> list[Json]:
    deflated = bytes.fromhex(PACKED["image, 1 rows"])
    good, whole = packed_message("image", 1, deflated), step_message("image", 1)
    head, missing = good[: -len(deflated)], len(whole) - len(good)
    bad = {
        "a STEP where a packed one belongs": whole,
        "packed: no header": good[:7],
        "packed: version 2": good[:1] + b"\2" + good[2:],
        "packed: no rows": good[:4] + bytes(4) + good[8:],
        "packed: more rows than the session allows": good[:4] + b"\3\0\0\0" + good[8:],
        "packed: nothing behind the flags": head,
        "packed: as long as the STEP": good + bytes(missing),
        "packed: the stream is cut": good[:-20],
        "packed: the stream is broken": head + b"\7" + deflated[1:],
        "packed: something behind the stream": good + b"\0",
        "packed: too few bytes": head + bytes.fromhex("010500faff") + bytes(5),
        "packed: too many bytes": head + bytes.fromhex(_EIGHT_THOUSAND_ZEROS),
    }
    layout = StepLayout(SPECS["image"][0], 0)

    def read(payload: bytes) -> None:
        packing.unpack(layout, payload, packing.packed_rows(layout, payload, MAX_ROWS, MAX_BYTES))

    return _refused(bad, "packed_step", "image", read)


def _refused(bad: dict[str, bytes], kind: str, spec: str, read: Callable[[bytes], object]) -> list[Json]:
    entries: list[Json] = []
    for name, payload in bad.items():
        try:
            read(payload)
        except ProtocolError as error:
            entry: dict[str, Json] = {"name": name, "kind": kind, "spec": spec, "max_rows": MAX_ROWS}
            entries.append({**entry, "hex": payload.hex(), "code": error.code, "fatal": error.fatal})
    if len(entries) != len(bad):
        raise AssertionError("a message that breaks the rules was accepted")
    return entries


if __name__ == "__main__":
    main()
