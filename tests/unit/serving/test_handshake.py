"""Whether a HELLO may join: each refusal names its code, the field that differs, and what either side has there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioseed import __version__
from aioseed.errors import ConfigError, RefusedError
from aioseed.serving.handshake import Contract, check_fits, contract_of, judge, refused
from aioseed.specs import ActionSpec, ArraySpec, discrete, multi_discrete, observation_to_json
from aioseed.types import EnvironmentMetric, EnvironmentSpec
from aioseed.wire.columns import StepLayout
from aioseed.wire.messages import Hello, Metric, Task, decode_control

OBSERVATION = {"image": ArraySpec("uint8", (84, 84, 4)), "speed": ArraySpec("float32", (3,))}
ACTION = discrete(6)
TASK = Task(name="Pong-v5", config={"frameskip": 4, "wrappers": [{"name": "crop"}]})
ROLES = frozenset({"train", "evaluate"})
CONTRACT = Contract(EnvironmentSpec(OBSERVATION, ACTION), TASK, (EnvironmentMetric("score", "last"),), ROLES)
LARGE = 2**24


def hello(**changes: Any) -> Hello:
    fields = {
        "library": "test",
        "actor_id": "a",
        "environments": 2,
        "observation": observation_to_json(OBSERVATION),
        "action": ACTION.to_json(),
        "task": TASK,
        "metrics": [Metric(name="score", fold="last")],
    }
    return Hello(**(fields | changes))


def refusal(message: Hello, contract: Contract = CONTRACT, max_message_bytes: int = LARGE) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        judge(message, contract, max_message_bytes)
    assert not caught.value.retry
    return caught.value


def test_an_actor_like_the_contract_is_accepted() -> None:
    judge(hello(), CONTRACT, LARGE)
    judge(hello(role="evaluate", protocol=[2, 1]), CONTRACT, LARGE)


@pytest.mark.parametrize(
    ("changes", "code", "field", "ours", "theirs"),
    [
        ({"protocol": [2, 3]}, "version", "protocol", [1], [2, 3]),
        ({"observation": observation_to_json(OBSERVATION["speed"])}, "observation", "observation.dict", None, None),
        (
            {"observation": observation_to_json({**OBSERVATION, "speed": ArraySpec("float32", (2,))})},
            "observation",
            "observation.dict.speed.shape.0",
            3,
            2,
        ),
        (
            {"observation": observation_to_json({**OBSERVATION, "image": ArraySpec("float32", (84, 84, 4))})},
            "observation",
            "observation.dict.image.dtype",
            "uint8",
            "float32",
        ),
        ({"action": discrete(4).to_json()}, "action", "action.sizes.0", 6, 4),
        ({"action": multi_discrete((6, 2)).to_json()}, "action", "action.kind", "discrete", "multi_discrete"),
        ({"metrics": []}, "metrics", "metrics", [{"name": "score", "fold": "last"}], []),
        ({"task": Task(name="Breakout-v5")}, "environment", "task.name", "Pong-v5", "Breakout-v5"),
        (
            {"task": Task(name="Pong-v5", config={"frameskip": 1, "wrappers": [{"name": "crop"}]})},
            "environment",
            "task.config.frameskip",
            4,
            1,
        ),
        (
            {"task": Task(name="Pong-v5", config={"frameskip": 4, "wrappers": []})},
            "environment",
            "task.config.wrappers",
            [{"name": "crop"}],
            [],
        ),
    ],
)
def test_a_difference_is_refused_with_its_field(
    changes: dict[str, Any], code: str, field: str, ours: object, theirs: object
) -> None:
    error = refusal(hello(**changes))
    assert (error.code, error.field) == (code, field)
    if ours is not None:
        assert (json.loads(error.ours), json.loads(error.theirs)) == (ours, theirs)
    assert field in str(error) and error.ours in str(error) and error.theirs in str(error)


def test_another_protocol_is_told_with_what_to_install() -> None:
    error = refusal(hello(protocol=[2], library="aioseed 9.0"))
    assert str(error).startswith("protocol differs: this run has [1], the actor has [2]; install the same release")
    assert f"(aioseed {__version__} here, aioseed 9.0 there)" in str(error)


def test_a_role_that_is_not_served_is_refused() -> None:
    error = refusal(hello(), CONTRACT._replace(roles=frozenset({"evaluate"})))
    assert (error.code, error.field, error.ours, error.theirs) == ("role", "role", '["evaluate"]', '"train"')


def test_an_actor_with_an_environment_of_its_own_is_judged_by_its_specs_alone() -> None:
    judge(hello(task=None), CONTRACT, LARGE)
    assert refusal(hello(task=None, action=discrete(4).to_json())).code == "action"


def test_a_run_without_a_task_takes_any() -> None:
    judge(hello(task=Task(name="anything")), CONTRACT._replace(task=None), LARGE)


def test_mixed_environments_may_be_allowed_but_their_specs_must_agree() -> None:
    mixed = CONTRACT._replace(allow_mixed_environments=True)
    judge(hello(task=Task(name="Breakout-v5")), mixed, LARGE)
    assert refusal(hello(task=Task(name="Breakout-v5"), action=discrete(4).to_json()), mixed).code == "action"


def test_specs_whose_messages_exceed_the_cap_are_refused_with_both_sizes() -> None:
    error = refusal(hello(), max_message_bytes=1000)
    assert (error.code, error.field, error.ours) == ("size", "observation", "1000")
    assert int(error.theirs) == StepLayout(OBSERVATION, 1).size_bytes(1)
    judge(hello(), CONTRACT, int(error.theirs))
    assert refusal(hello(), max_message_bytes=int(error.theirs) - 1).code == "size"


def test_a_run_does_not_start_with_specs_that_no_actor_could_have() -> None:
    """`check_fits` says before the start what `judge` would say to every actor."""
    row_bytes = StepLayout(OBSERVATION, 1).size_bytes(1)
    check_fits(CONTRACT, row_bytes)
    with pytest.raises(ConfigError) as caught:
        check_fits(CONTRACT, row_bytes - 1)
    error = caught.value
    assert (error.path, error.value, error.expected) == (
        "transport.max_message_bytes",
        str(row_bytes - 1),
        f"at least {row_bytes}",
    )
    assert f"{row_bytes:,}" in str(error) and f"{row_bytes - 1:,}" in str(error)
    assert refusal(hello(), max_message_bytes=row_bytes - 1).code == "size"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"observation": {"dtype": "object", "shape": [2]}}, "observation"),
        ({"observation": []}, "observation"),
        ({"observation": {"dtype": "float32", "shape": [2**40]}}, "observation"),
        ({"observation": {"tuple": [{"dtype": "uint8", "shape": []}] * 65}}, "observation"),
        ({"action": {"kind": "discrete", "dtype": "float64", "shape": [], "sizes": [2]}}, "action"),
        ({"action": "jump"}, "action"),
    ],
)
def test_specs_that_cannot_be_read_are_refused_as_such(changes: dict[str, Any], code: str) -> None:
    error = refusal(hello(**changes))
    assert (error.code, error.field) == (code, code)
    with pytest.raises(RefusedError) as caught:
        contract_of(hello(**changes), ROLES)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": [2**16 - 1] * 16, "library": "\n" * 512},
        {"observation": observation_to_json({"o" * 2000: OBSERVATION["speed"]})},
        {"task": Task(name="x" * 256)},
        {"task": Task(name="Pong-v5", config={"frameskip": "4" * 5000})},
    ],
)
def test_a_refusal_has_a_length_that_an_actor_reads_and_names_both_sides(changes: dict[str, Any]) -> None:
    error = refusal(hello(**changes), CONTRACT._replace(task=Task(name="Pong-v5", config={"frameskip": "1" * 5000})))
    told = refused(error)
    assert decode_control(told.encode()) == told
    assert (told.code, told.retry) == (error.code, error.retry)
    assert "this run has" in told.message and ("the actor has" in told.message or len(told.field) == 200)
    assert max(len(error.ours), len(error.theirs)) <= 200


def test_the_first_hello_proposes_the_contract_that_it_fulfils() -> None:
    contract = contract_of(hello(), ROLES)
    assert contract == CONTRACT
    judge(hello(), contract, LARGE)


ARRAYS = st.builds(
    ArraySpec, st.sampled_from(["uint8", "float32", "int32"]), st.tuples(st.integers(1, 3), st.integers(1, 3))
)
OBSERVATIONS = st.recursive(
    ARRAYS,
    lambda inner: (
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1) | st.lists(inner, min_size=1, max_size=2).map(tuple)
    ),
    max_leaves=4,
)
ACTIONS = st.builds(discrete, st.integers(1, 3)) | st.builds(
    multi_discrete, st.lists(st.integers(1, 3), min_size=1, max_size=2)
)


@given(OBSERVATIONS, ACTIONS, OBSERVATIONS, ACTIONS)
def test_two_specs_agree_if_and_only_if_they_are_equal(
    ours: Any, our_action: ActionSpec, theirs: Any, their_action: ActionSpec
) -> None:
    contract = Contract(EnvironmentSpec(ours, our_action), None, (), ROLES)
    message = hello(observation=observation_to_json(theirs), action=their_action.to_json(), metrics=[], task=None)
    if (ours, our_action) == (theirs, their_action):
        judge(message, contract, LARGE)
        return
    error = refusal(message, contract)
    assert error.code == ("observation" if ours != theirs else "action")
    assert error.ours != error.theirs
