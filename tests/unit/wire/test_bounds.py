"""Bounds of control messages, as docs/reference/wire.md states them: the last value on either side of each."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from aioseed.errors import ProtocolError
from aioseed.wire.messages import decode_control

SPECS = {"observation": {}, "action": {}}
HELLO = {"type": "hello", "library": "test", "actor_id": "a", "environments": 1, **SPECS}
WELCOME = {
    "type": "welcome", "library": "test", "run_id": "r", "slots": [], "epochs": [], "max_step_rows": 1,
    "max_message_bytes": 1, "step_deadline_s": 1, "ping_interval_s": 1, "ping_timeout_s": 1, "resume_token": "t",
}  # fmt: skip
ROW = {"slot": 0, "epoch": 0, "sequence": 0, "code": "x"}
TASK_KEYS_BYTES = len('{"a":""}')


def hello(**keys: object) -> dict[str, object]:
    return {**HELLO, **keys}


def error(**keys: object) -> dict[str, object]:
    return {"type": "error", "code": "x", "rows": [{**ROW, **keys}]}


def metric(name: str) -> dict[str, object]:
    return {"name": name, "fold": "sum"}


def nested(levels: int) -> object:
    value: object = 0
    for _ in range(levels - 1):
        value = [value]
    return value


INTEGERS: list[tuple[Callable[[int], dict[str, object]], int, int]] = [
    (lambda number: hello(environments=number), 1, 2**20),
    (lambda number: hello(acknowledged_rows=number), 0, 2**63 - 1),
    (lambda number: hello(actor_index=number), 0, 2**32 - 1),
    (lambda number: hello(protocol=[number]), 0, 65_535),
    (lambda number: {**WELCOME, "seed": number}, 0, 2**63 - 1),
    (lambda number: {**WELCOME, "credit": number}, 1, 2**32 - 1),
    (lambda number: {**WELCOME, "max_step_rows": number}, 1, 2**32 - 1),
    (lambda number: {**WELCOME, "max_message_bytes": number}, 1, 2**32 - 1),
    (lambda number: {"type": "lease", "slots": [number], "epochs": [1]}, 0, 2**32 - 1),
    (lambda number: {"type": "revoke", "slots": [1], "epochs": [number]}, 0, 2**64 - 1),
    (lambda number: {"type": "ping", "number": number}, 0, 2**53 - 1),
    (lambda number: {"type": "pong", "number": number}, 0, 2**53 - 1),
    (lambda number: error(slot=number), 0, 2**32 - 1),
    (lambda number: error(epoch=number), 0, 2**64 - 1),
    (lambda number: error(sequence=number), 0, 2**32 - 1),
]

LENGTHS: list[tuple[Callable[[int], dict[str, object]], int, int]] = [
    (lambda length: hello(protocol=[1] * length), 1, 16),
    (lambda length: hello(library="l" * length), 0, 512),
    (lambda length: hello(resume_token="t" * length), 0, 512),
    (lambda length: hello(actor_id="a" * length), 1, 128),
    (lambda length: hello(metrics=[metric(str(number)) for number in range(length)]), 0, 64),
    (lambda length: hello(metrics=[metric("m" * length)]), 1, 64),
    (lambda length: hello(task={"name": "n" * length}), 0, 256),
    (lambda length: hello(task={"name": "", "config": {"a": "b" * (length - TASK_KEYS_BYTES)}}), 8, 16 * 2**10),
    (lambda length: hello(task={"name": "", "config": {"a": nested(length)}}), 1, 100),
    (lambda length: hello(observation=nested(length)), 1, 100),
    (lambda length: hello(observation=[0] * (length - 1)), 1, 20_000),
    (lambda length: {"type": "error", "code": "x", "rows": [ROW] * length}, 0, 1024),
    (lambda length: error(code="c" * length), 0, 32),
]


@pytest.mark.parametrize(("make", "least", "most"), INTEGERS)
def test_integers_have_the_bounds_of_the_reference(
    make: Callable[[int], dict[str, object]], least: int, most: int
) -> None:
    for number in (least, most):
        decode_control(json.dumps(make(number)).encode())
    for number in (least - 1, most + 1):
        with pytest.raises(ProtocolError):
            decode_control(json.dumps(make(number)).encode())


@pytest.mark.parametrize(("make", "least", "most"), LENGTHS)
def test_lengths_have_the_bounds_of_the_reference(
    make: Callable[[int], dict[str, object]], least: int, most: int
) -> None:
    for length in (least, most):
        decode_control(json.dumps(make(length)).encode())
    with pytest.raises(ProtocolError):
        decode_control(json.dumps(make(most + 1)).encode())


@pytest.mark.parametrize("key", ["protocol", "actor_id", "metrics"])
def test_what_may_not_be_empty_is_not(key: str) -> None:
    empty = {"protocol": [], "actor_id": "", "metrics": [metric("")]}[key]
    with pytest.raises(ProtocolError):
        decode_control(json.dumps(hello(**{key: empty})).encode())
