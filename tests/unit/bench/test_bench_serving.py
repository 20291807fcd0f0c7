"""The serving measurement: what it prints, and that the load finds out when an answer is not that of its STEP."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from aioseed.bench.links import Asking, RoadLink
from aioseed.bench.load import LoadSession, Tally, _step
from aioseed.bench.scale import joined, measure_environments, spread
from aioseed.bench.serving import Contest, Measured, Round, ServingResult, measure_serving
from aioseed.bench.traffic import Traffic, Turn
from aioseed.errors import AioseedError, PluginError, ProtocolError, UsageError
from aioseed.transport.channel import Channel
from aioseed.wire.columns import ACTION_TYPE, HEADER
from aioseed.wire.messages import Bye, Ping, Pong

TRAFFIC = Traffic("memory", 2, 3, 5)


class Answering(Asking):
    """A link that answers as told, and ends the turn after some round trips."""

    def __init__(self, tally: Tally, answer: object, trips: int = 3) -> None:
        self.asked: list[bytes] = []
        self._tally = tally
        self._answer = answer
        self._trips = trips

    async def ask(self, payload: bytes) -> bytes:
        self.asked.append(payload)
        self._tally.over = len(self.asked) >= self._trips
        return self._answer(payload)  # type: ignore[operator,no-any-return]

    async def close(self) -> None:
        return


def session(answer: object) -> tuple[LoadSession, Tally, Answering]:
    tally = Tally()
    link = Answering(tally, answer)
    return LoadSession(link, _step(TRAFFIC, [4, 5, 6], [1, 1, 1]), TRAFFIC.action_bytes), tally, link


def echo(payload: bytes) -> bytes:
    return payload[: TRAFFIC.action_bytes]


def other_sequence(payload: bytes) -> bytes:
    end = TRAFFIC.steps.identity_bytes(3)
    sequence_at = TRAFFIC.steps.offsets(3).columns[2][0]
    changed = bytearray(payload[: TRAFFIC.action_bytes])
    assert HEADER.size < sequence_at < end
    changed[sequence_at] ^= 1
    return bytes(changed)


def other_slot(payload: bytes) -> bytes:
    changed = bytearray(payload[: TRAFFIC.action_bytes])
    changed[TRAFFIC.steps.offsets(3).columns[1][0]] ^= 1
    return bytes(changed)


async def test_a_session_sends_consecutive_steps_of_which_only_the_first_is_first() -> None:
    load, tally, link = session(echo)
    await load.run(tally)
    layout = TRAFFIC.steps
    sequence_at, flags_at = layout.offsets(3).columns[2][0], layout.offsets(3).columns[5][0]
    sequences = [np.frombuffer(payload, "<u4", 3, sequence_at).tolist() for payload in link.asked]
    assert sequences == [[0] * 3, [1] * 3, [2] * 3]
    assert [payload[flags_at] for payload in link.asked] == [1, 0, 0]
    assert len(tally.latencies_s) == 3


@pytest.mark.parametrize("answer", [other_sequence, other_slot, lambda payload: payload, lambda payload: b""])
async def test_an_answer_that_is_not_that_of_the_step_ends_the_measurement(answer: object) -> None:
    load, tally, _ = session(answer)
    with pytest.raises(ProtocolError):
        await load.run(tally)


async def test_the_pace_lets_sessions_go_on_and_the_end_of_the_turn_frees_all() -> None:
    tally = Tally(messages_per_s=1e9)
    load = LoadSession(Answering(tally, echo, 50), _step(TRAFFIC, [0, 1, 2], [1, 1, 1]), TRAFFIC.action_bytes)
    await asyncio.gather(load.run(tally), tally.set_pace())
    assert len(tally.latencies_s) == 50
    await tally.go_on()


async def test_the_road_answers_over_memory_and_every_step_is_accounted_for() -> None:
    result = await measure_serving(TRAFFIC, 0.3, 3)
    figures = result.figures()
    assert figures["rounds"] == 3
    assert figures["step_bytes"] == TRAFFIC.steps.size_bytes(3)
    for name in ("steps_per_s", "echo_steps_per_s", "share_of_echo", "server_cpu_us_per_message"):
        assert figures[name] > 0, name  # type: ignore[operator]
    for name in ("action_latency_ms", "echo_latency_ms"):
        assert set(figures[name]) == {"p50", "p99"}  # type: ignore[call-overload]


class Scripted(Channel):
    """A channel on which the other side says what is scripted, whatever it is told."""

    def __init__(self, *said: bytes) -> None:
        self.told: list[bytes] = []
        self._said = list(said)

    peer = "nobody"

    def send_nowait(self, payload: bytes) -> None:
        self.told.append(payload)

    async def send(self, payload: bytes) -> None:
        self.told.append(payload)

    async def receive(self) -> bytes:
        return self._said.pop(0)

    async def close(self, reason: str = "") -> None:
        return


async def test_the_load_answers_a_ping_between_two_actions_and_takes_nothing_else() -> None:
    action = bytes((ACTION_TYPE, 1))
    channel, answers = Scripted(action, Ping(number=7).encode(), action), []

    def answered(answer: bytes) -> bytes | None:
        answers.append(answer)
        return b"second" if len(answers) == 1 else None

    await RoadLink(channel).converse(b"first", answered)
    assert answers == [action] * 2
    assert channel.told == [b"first", b"second", Pong(number=7).encode()]
    with pytest.raises(ProtocolError, match="bye"):
        await RoadLink(Scripted(Bye(code="shutdown", reason="").encode())).converse(b"first", answered)


async def test_inference_that_fails_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Contest.open(TRAFFIC) as contest:
        monkeypatch.setattr(contest._road._assembler, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await contest.rounds(1, 0.1)
        contest._road.failed = asyncio.get_running_loop().create_future()


def test_figures_are_medians_and_shares_are_of_neighbouring_turns() -> None:
    def turn(rate: float, p99_ms: float) -> Measured:
        return Measured(Turn(int(rate), 1.0, p99_ms / 2, p99_ms, 0.0), rate * 1e-5)

    rounds = [Round(turn(100, 1), turn(50, 2)), Round(turn(10, 1), turn(9, 4)), Round(turn(200, 1), turn(120, 3))]
    figures = ServingResult(TRAFFIC, tuple(rounds), 3.0).figures()
    assert figures["share_of_echo"] == 0.6
    assert figures["share_of_echo_range"] == [0.5, 0.9]
    assert figures["steps_per_s"] == 150.0
    assert figures["echo_steps_per_s"] == 300.0
    assert figures["action_latency_ms"] == {"p50": 1.5, "p99": 3.0}
    assert figures["server_cpu_us_per_message"] == 10.0
    twice = joined([ServingResult(TRAFFIC, tuple(rounds), 3.0), ServingResult(TRAFFIC, tuple(rounds), 5.0)])
    assert len(twice.rounds) == 6
    assert twice.batch_rows_p50 == 4.0


async def test_a_growing_number_of_environments_makes_a_row_each() -> None:
    rows = (await measure_environments(TRAFFIC, [1, 4], 0.3))["environments"]
    assert isinstance(rows, list)
    assert [(row["environments"], row["sessions"], row["envs_per_session"]) for row in rows] == [(1, 1, 1), (4, 2, 2)]
    assert all(row["steps_per_s"] > 0 for row in rows)


def test_environments_that_sessions_cannot_share_are_a_usage_error() -> None:
    assert spread(TRAFFIC, 6) == TRAFFIC
    with pytest.raises(UsageError, match="2 sessions cannot share 5 environments"):
        spread(TRAFFIC, 5)


def test_traffic_survives_the_way_to_the_load_process() -> None:
    assert Traffic.from_json(TRAFFIC._asdict()) == TRAFFIC
    turn = Turn(3, 1.5, 0.1, 0.2, 0.3)
    assert Turn.from_json(turn._asdict()) == turn


@pytest.mark.parametrize(
    "wrong", [Traffic("memory", 0, 1, 1), Traffic("memory", 1, 0, 1), Traffic("memory", 1, 2**16, 2**16)]
)
def test_traffic_that_cannot_be_measured_is_a_usage_error(wrong: Traffic) -> None:
    with pytest.raises(UsageError):
        wrong.check()


async def test_a_transport_that_is_not_there_is_an_error_of_ours() -> None:
    with pytest.raises(PluginError):
        await measure_serving(TRAFFIC._replace(transport="pigeon"), 0.1)
    assert issubclass(PluginError, AioseedError)
