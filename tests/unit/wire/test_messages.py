from __future__ import annotations

import json
from typing import get_args

import pytest
from pydantic import ValidationError

from aioseed.errors import ProtocolError, UsageError
from aioseed.wire import messages
from aioseed.wire.messages import (
    MAX_CONTROL_BYTES,
    MAX_ERROR_ROWS,
    MAX_TASK_BYTES,
    Bye,
    Error,
    ErrorCode,
    Hello,
    Lease,
    Message,
    Ping,
    RefusalCode,
    RefusedRow,
    Revoke,
    Task,
    Welcome,
    clip,
    decode_control,
)

HELLO = {
    "type": "hello",
    "library": "test",
    "actor_id": "a",
    "environments": 1,
    "observation": {"dtype": "float32", "shape": [4]},
    "action": {"kind": "discrete", "dtype": "int32", "shape": [], "sizes": [2]},
}
MOST_SLOTS_THAT_ALWAYS_FIT = 7800


def hello(**keys: object) -> bytes:
    return json.dumps({**HELLO, **keys}).encode()


def hello_with(key: str, literal: str) -> bytes:
    """Return a HELLO with a key whose value is not what a JSON library would write."""
    return (json.dumps(HELLO)[:-1] + f', "{key}": {literal}}}').encode()


def refused(payload: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_control(payload)
    return caught.value


def welcome(slots: list[int], epochs: list[int]) -> Welcome:
    return Welcome(
        library="l" * 512,
        run_id="r" * 512,
        slots=slots,
        epochs=epochs,
        max_step_rows=2**32 - 1,
        max_message_bytes=2**32 - 1,
        step_deadline_s=60,
        ping_interval_s=5,
        ping_timeout_s=20,
        resume_token="t" * 512,
        seed=2**63 - 1,
    )


def test_every_class_of_the_union_names_its_kind_and_type_alike() -> None:
    for cls in get_args(messages.ControlMessage):
        assert issubclass(cls, Message)
        assert cls.model_fields["type"].default == cls.kind


def test_control_messages_begin_with_a_brace() -> None:
    assert Ping(number=1).encode() == b'{"type":"ping","number":1}'


@pytest.mark.parametrize(
    "literal",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        '{"a": [NaN]}',
        "[" * 300 + "]" * 300,
        "9" * 5000,
        "[" * 101 + "]" * 101,
        "[" + ",".join(["0"] * 20_000) + "]",
        '"\\ud800"',
        '"\\udc00x"',
    ],
)
@pytest.mark.parametrize("key", ["observation", "action"])
def test_values_that_json_does_not_have_are_malformed(key: str, literal: str) -> None:
    error = refused(hello_with(key, literal))
    assert (error.code, error.fatal) == ("malformed", True)


@pytest.mark.parametrize("literal", ["NaN", "1e999", "9" * 400, "0", "-1", "86401", "true", '"60"'])
def test_seconds_are_finite_positive_and_at_most_a_day(literal: str) -> None:
    assert refused(hello_with("step_deadline_s", literal)).code == "malformed"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("environments", 0),
        ("environments", 2**20 + 1),
        ("environments", "1"),
        ("environments", 1.0),
        ("environments", True),
        ("actor_index", -1),
        ("actor_index", 10**400),
        ("acknowledged_rows", 2**63),
        ("protocol", []),
        ("protocol", [10**400]),
        ("protocol", 1),
        ("role", "spectate"),
        ("actor_id", ""),
        ("actor_id", "a" * 129),
        ("library", "l" * 513),
        ("library", None),
        ("metrics", [{"name": "a", "fold": "mean"}]),
        ("metrics", [{"name": "a", "fold": "sum"}, {"name": "a", "fold": "last"}]),
        ("metrics", [{"name": str(i), "fold": "sum"} for i in range(65)]),
        ("task", {"config": {}}),
        ("task", {"name": "x", "config": []}),
        ("task", {"name": "x", "config": {"a": "b" * MAX_TASK_BYTES}}),
    ],
)
def test_hello_keys_keep_their_types_and_limits(key: str, value: object) -> None:
    error = refused(hello(**{key: value}))
    assert error.code == "malformed"
    assert key in str(error)


def test_a_whole_number_is_a_number_of_seconds() -> None:
    message = decode_control(hello(step_deadline_s=5))
    assert isinstance(message, Hello) and message.step_deadline_s == 5.0


def test_a_missing_key_is_malformed_and_named() -> None:
    without = {key: value for key, value in HELLO.items() if key != "environments"}
    assert "environments" in str(refused(json.dumps(without).encode()))


def test_unknown_keys_are_ignored() -> None:
    assert decode_control(hello(later="version")) == decode_control(hello())


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    assert decode_control(b'{"type":"ping","number":1,"number":2}') == Ping(number=2)


def test_the_largest_message_is_read_and_one_byte_more_is_not() -> None:
    padding = MAX_CONTROL_BYTES - len(hello(x=""))
    assert isinstance(decode_control(hello(x="x" * padding)), Hello)
    assert refused(hello(x="x" * (padding + 1))).code == "malformed"


@pytest.mark.parametrize("payload", [b"", b" ", b"\x01", b"[]", b'"ping"', b"\xef\xbb\xbf{}", b'\n{"type":"ping"}'])
def test_what_does_not_begin_with_a_brace_is_no_control_message(payload: bytes) -> None:
    assert refused(payload).code == "malformed"


@pytest.mark.parametrize("payload", [b'{"type":"bye\xff"}', b'{"type":"\xed\xa0\x80"}', b"{\x00}", b'{"type":"a\x00"}'])
def test_bytes_that_are_no_json_text_are_malformed(payload: bytes) -> None:
    assert refused(payload).code == "malformed"


@pytest.mark.parametrize("kind", ['"dance"', "5", "null", "[]", '"' + "x" * 60_000 + '"'])
def test_an_unknown_type_is_not_fatal(kind: str) -> None:
    error = refused(f'{{"type":{kind}}}'.encode())
    assert (error.code, error.fatal) == ("unknown_message", False)
    assert len(str(error)) < 200


def test_the_words_of_an_error_are_short_and_printable_whatever_the_peer_sent() -> None:
    key = "\x1b[31m" + "k" * 5000
    error = refused(hello(task={"name": "x", "config": {key: 1, "y": float("nan")}}))
    assert len(str(error)) <= 200 and str(error).isprintable()
    assert (
        refused(hello_with("task", json.dumps({"name": "x", "config": {key: 1}})[:-2] + ": NaN}}")).code == "malformed"
    )


@pytest.mark.parametrize("cls", [Lease, Revoke])
@pytest.mark.parametrize(("slots", "epochs"), [([1, 2], [1]), ([1], []), ([3, 3], [1, 2])])
def test_every_leased_slot_stands_once_and_has_an_epoch(
    cls: type[Lease | Revoke], slots: list[int], epochs: list[int]
) -> None:
    payload = json.dumps({"type": cls.kind, "slots": slots, "epochs": epochs}).encode()
    assert refused(payload).code == "malformed"
    with pytest.raises(ValidationError):
        cls(slots=slots, epochs=epochs)
    with pytest.raises(ValidationError):
        welcome(slots, epochs)


@pytest.mark.parametrize("epoch", [2**53 + 1, 2**63, 2**64 - 1])
def test_epochs_are_whole_u64_in_json(epoch: int) -> None:
    assert decode_control(Lease(slots=[2**32 - 1], epochs=[epoch]).encode()) == Lease(slots=[2**32 - 1], epochs=[epoch])


@pytest.mark.parametrize(("slot", "epoch"), [(2**32, 0), (-1, 0), (0, 2**64), (0, -1)])
def test_slots_and_epochs_beyond_their_columns_are_malformed(slot: int, epoch: int) -> None:
    assert refused(json.dumps({"type": "lease", "slots": [slot], "epochs": [epoch]}).encode()).code == "malformed"


def test_as_many_slots_as_documented_fit_whatever_their_numbers() -> None:
    slots = [2**32 - 1 - i for i in range(MOST_SLOTS_THAT_ALWAYS_FIT)]
    epochs = [2**64 - 1] * len(slots)
    assert decode_control(welcome(slots, epochs).encode()) == welcome(slots, epochs)


def test_a_message_that_no_peer_would_read_is_not_written() -> None:
    with pytest.raises(UsageError, match="welcome"):
        welcome(list(range(20_000)), [2**40] * 20_000).encode()


def test_an_error_that_names_as_many_rows_as_it_may_fits() -> None:
    row = RefusedRow(slot=2**32 - 1, epoch=2**64 - 1, sequence=2**32 - 1, code="c" * 32)
    error = Error(code="stale_epoch", message="\x00" * 512, rows=[row] * MAX_ERROR_ROWS)
    assert decode_control(error.encode()) == error
    with pytest.raises(ValidationError):
        Error(code="stale_epoch", rows=[row] * (MAX_ERROR_ROWS + 1))


def test_the_largest_task_and_specs_fit_into_a_hello() -> None:
    from aioseed.specs import MAX_SPEC_BYTES

    message = Hello(
        library="l" * 512,
        actor_id="a" * 128,
        environments=1,
        observation="o" * (MAX_SPEC_BYTES // 2),
        action="a" * (MAX_SPEC_BYTES // 2),
        task=Task(name="n" * 256, config={"c": "c" * (MAX_TASK_BYTES - 10)}),
        metrics=[{"name": f"{i:064d}", "fold": "last"} for i in range(64)],
        resume_token="t" * 512,
    )
    assert decode_control(message.encode()) == message


@pytest.mark.parametrize("text", ["plain", "\x1b[2J", "\ud800", "line\nbreak", "\u202e", "é" * 300, "\x00" * 300, ""])
def test_clipped_words_can_be_logged_and_sent(text: str) -> None:
    words = clip(text)
    assert words.isprintable() and len(words) <= 200
    assert decode_control(Bye(code="failed", reason=words).encode()) == Bye(code="failed", reason=words)


def test_codes_fit_where_they_are_sent() -> None:
    for code in ErrorCode:
        RefusedRow(slot=0, epoch=0, sequence=0, code=code)
    assert {code.value for code in RefusalCode} == {code.name.lower() for code in RefusalCode}
    assert {code.value for code in ErrorCode} == {code.name.lower() for code in ErrorCode}


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, {"a": object()}, float("nan"), [float("inf")], b"bytes"])
def test_what_json_cannot_say_is_not_taken_into_a_message(value: object) -> None:
    with pytest.raises(ValidationError):
        Hello(library="l", actor_id="a", environments=1, observation=value, action=0)


@pytest.mark.parametrize("junk", [b"[]", b"{}", b'""', b"-1", b"null"])
@pytest.mark.parametrize(
    "start", [b'"lease","slots":[],"epochs"', b'"lease","epochs":[],"slots"', b'"error","code":"x","rows"']
)
def test_of_thousands_of_mistakes_only_the_first_is_looked_at(start: bytes, junk: bytes) -> None:
    """Each mistake that is collected costs microseconds on the event loop."""
    if junk == b"{}" and b"rows" in start:
        junk = b'{"slot":1,"epoch":1,"sequence":1}'
    payload = b'{"type":' + start + b":[" + b",".join([junk] * 1000) + b"]}"
    cause = refused(payload).__context__
    assert isinstance(cause, ValidationError) and cause.error_count() == 1


def test_what_is_not_json_is_malformed_where_nobody_looks_too() -> None:
    assert refused(hello_with("later", "NaN")).code == "malformed"
