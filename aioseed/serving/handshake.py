"""Whether a HELLO may join the run: one synchronous decision."""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

from aioseed import __version__
from aioseed.errors import ConfigError, RefusedError, SpaceError
from aioseed.specs import (
    ActionSpec,
    Json,
    ObservationSpec,
    action_from_json,
    check_servable,
    first_difference,
    observation_from_json,
    observation_to_json,
)
from aioseed.types import EnvironmentMetric, EnvironmentSpec
from aioseed.wire.columns import PROTOCOL_VERSION, StepLayout
from aioseed.wire.messages import Hello, RefusalCode, Refused, Task, clip

Role = Literal["train", "evaluate"]


class Contract(NamedTuple):
    """Fix what every session of a run agrees to."""

    spec: EnvironmentSpec
    task: Task | None  # None when the run does not know it: then any is accepted
    metrics: tuple[EnvironmentMetric, ...]
    roles: frozenset[Role]
    allow_mixed_environments: bool = False


def contract_of(hello: Hello, roles: frozenset[Role]) -> Contract:
    """Return the contract that the first HELLO of a run proposes.

    Raises:
        RefusedError: Its specs cannot be served.
    """
    observation, action = _specs(hello)
    metrics = tuple(EnvironmentMetric(metric.name, metric.fold) for metric in hello.metrics)
    return Contract(EnvironmentSpec(observation, action), hello.task, metrics, roles)


def check_fits(contract: Contract, max_message_bytes: int) -> None:
    """Refuse specs of which not even one row fits into a message: `judge` would turn every actor away.

    Raises:
        ConfigError: They are too large.
    """
    row_bytes = StepLayout(contract.spec.observation, len(contract.metrics)).size_bytes(1)
    if row_bytes > max_message_bytes:
        path = "transport.max_message_bytes"
        raise ConfigError(
            f"one step of this environment is {row_bytes:,} bytes, and messages carry {max_message_bytes:,}: make its "
            f"observations smaller with a wrapper (environment.options.wrappers), or raise {path}",
            path=path,
            value=str(max_message_bytes),
            expected=f"at least {row_bytes}",
        )


def judge(hello: Hello, contract: Contract, max_message_bytes: int) -> None:
    """Accept a HELLO or say which field differs.

    Raises:
        RefusedError: Carries the code, the path of the field, and what either side has there.
    """
    if PROTOCOL_VERSION not in hello.protocol:
        refusal = _refusal(RefusalCode.VERSION, "protocol", [PROTOCOL_VERSION], hello.protocol)
        hint = f"install the same release on both sides (aioseed {__version__} here, {clip(hello.library)} there)"
        raise RefusedError(
            refusal.code, f"{refusal}; {hint}", field=refusal.field, ours=refusal.ours, theirs=refusal.theirs
        )
    if hello.role not in contract.roles:
        raise _refusal(RefusalCode.ROLE, "role", sorted(contract.roles), hello.role)
    observation, action = _specs(hello)
    _compare(
        RefusalCode.OBSERVATION,
        "observation",
        observation_to_json(contract.spec.observation),
        observation_to_json(observation),
    )
    _compare(RefusalCode.ACTION, "action", contract.spec.action.to_json(), action.to_json())
    ours = [{"name": metric.name, "fold": metric.fold} for metric in contract.metrics]
    theirs = [{"name": metric.name, "fold": metric.fold} for metric in hello.metrics]
    if ours != theirs:
        raise _refusal(RefusalCode.METRICS, "metrics", ours, theirs)
    _same_task(hello, contract)
    row_bytes = StepLayout(observation, len(hello.metrics)).size_bytes(1)
    if row_bytes > max_message_bytes:
        raise RefusedError(
            RefusalCode.SIZE,
            f"one step of these specs is {row_bytes} bytes, messages carry {max_message_bytes} "
            "(transport.max_message_bytes)",
            field="observation",
            ours=str(max_message_bytes),
            theirs=str(row_bytes),
        )


def refused(refusal: RefusedError) -> Refused:
    """Return the message that tells an actor of a refusal, at a bounded length."""
    return Refused(
        code=refusal.code,
        message=clip(str(refusal), 500),
        field=clip(refusal.field),
        ours=clip(refusal.ours),
        theirs=clip(refusal.theirs),
        retry=refusal.retry,
    )


def _specs(hello: Hello) -> tuple[ObservationSpec, ActionSpec]:
    code = RefusalCode.ACTION
    try:
        action = action_from_json(hello.action)
        code = RefusalCode.OBSERVATION  # also where both together are too long: an action hardly ever is
        observation = observation_from_json(hello.observation)
        check_servable(observation, action)
    except SpaceError as error:
        raise RefusedError(code, clip(str(error)), field=code.value) from error
    return observation, action


def _same_task(hello: Hello, contract: Contract) -> None:
    if hello.task is None or contract.task is None or contract.allow_mixed_environments:
        return
    if hello.task.name != contract.task.name:
        raise _refusal(RefusalCode.ENVIRONMENT, "task.name", contract.task.name, hello.task.name)
    _compare(RefusalCode.ENVIRONMENT, "task.config", contract.task.config, hello.task.config)


def _compare(code: RefusalCode, field: str, ours: Json, theirs: Json) -> None:
    difference = first_difference({field: ours}, {field: theirs})
    if difference is not None:
        raise _refusal(code, *difference)


def _refusal(code: RefusalCode, field: str, ours: object, theirs: object) -> RefusedError:
    mine, other = clip(json.dumps(ours, default=str)), clip(json.dumps(theirs, default=str))
    return RefusedError(
        code, f"{field} differs: this run has {mine}, the actor has {other}", field=field, ours=mine, theirs=other
    )
