"""``aioseed actor`` as a process of its own, over WebSockets, against a learner of a few lines."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aioseed_websocket import WebSocketTransport

from aioseed.specs import action_from_json
from aioseed.transport.channel import Channel, ListenOptions
from aioseed.transport.keyring import Keyring
from aioseed.wire.columns import HEADER, STEP_TYPE, ActionLayout
from aioseed.wire.messages import Bye, Hello, Welcome, decode_control

STEPS_BEFORE_THE_RUN_IS_OVER = 50

WITH_A_HELPER = """
import multiprocessing, time
import gymnasium

def make():
    # Ended by multiprocessing with a SIGTERM when its parent ends, and waited for.
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,), daemon=True).start()
    return gymnasium.make("CartPole-v1")
"""


class TinyLearner:
    """Answer every step with action 0 and note what actors say."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.stepping = asyncio.Event()
        self.ended = asyncio.Event()
        self.ends_run = True

    async def handle(self, channel: Channel) -> None:
        hello = decode_control(await channel.receive())
        assert isinstance(hello, Hello)
        self.heard.append(hello)
        count, layout = hello.environments, ActionLayout(action_from_json(hello.action))
        channel.send_nowait(
            Welcome(
                library="test",
                run_id="run",
                slots=list(range(count)),
                epochs=[1] * count,
                max_step_rows=count,
                max_message_bytes=2**20,
                step_deadline_s=60.0,
                ping_interval_s=5.0,
                ping_timeout_s=5.0,
                resume_token="",
            ).encode()
        )
        steps = 0
        try:
            while True:
                payload = await channel.receive()
                if payload[0] != STEP_TYPE:
                    self.heard.append(decode_control(payload))
                    continue
                steps += 1
                rows = HEADER.unpack_from(payload)[3]
                identity = payload[HEADER.size : layout.identity_bytes(rows)]
                channel.send_nowait(layout.encode(rows, identity, bytes(rows * layout.action.row_bytes)))
                if steps == STEPS_BEFORE_THE_RUN_IS_OVER:
                    self.stepping.set()
                    if self.ends_run:
                        channel.send_nowait(Bye(code="run_over").encode())
        finally:
            self.ended.set()


Start = Callable[..., Any]


@pytest.fixture
async def learner() -> TinyLearner:
    return TinyLearner()


@pytest.fixture
async def start(learner: TinyLearner) -> AsyncIterator[Start]:
    listener = await WebSocketTransport().listen(
        "ws://127.0.0.1:0", learner.handle, ListenOptions(Keyring.of("secret"))
    )
    children: list[asyncio.subprocess.Process] = []

    async def run(*words: str, token: str = "secret") -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aioseed.cli.actor",
            listener.url,
            *("--env", "CartPole-v1", "--envs", "4", *words),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "AIOSEED_TOKEN": token},
        )
        children.append(child)
        return child

    yield run
    for child in children:
        if child.returncode is None:
            child.kill()
        await child.communicate()
    await listener.close(0.0)


async def said(child: asyncio.subprocess.Process) -> str:
    assert child.stderr is not None
    return (await child.stderr.read()).decode()


async def test_the_actor_ends_with_0_when_the_run_is_over(learner: TinyLearner, start: Start) -> None:
    child = await start()
    assert await child.wait() == 0, await said(child)
    assert "joined run run with 4 environments" in await said(child)


async def test_a_wrong_token_ends_with_3(learner: TinyLearner, start: Start) -> None:
    child = await start(token="wrong")
    assert await child.wait() == 3
    words = await said(child)
    assert "token" in words and "Traceback" not in words and not learner.heard


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_takes_leave_of_the_learner_and_ends_with_130(
    learner: TinyLearner, start: Start, number: signal.Signals
) -> None:
    learner.ends_run = False
    child = await start()
    await learner.stepping.wait()
    child.send_signal(number)
    assert await child.wait() == 130, await said(child)
    await learner.ended.wait()
    assert isinstance(learner.heard[-1], Bye) and learner.heard[-1].code == "leaving"
    assert "Traceback" not in await said(child)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("how", ["the run is over", "a signal"])
async def test_helpers_that_an_environment_forked_do_not_keep_the_actor_from_ending(
    learner: TinyLearner, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    (tmp_path / "own.py").write_text(WITH_A_HELPER)
    monkeypatch.chdir(tmp_path)
    learner.ends_run = how == "the run is over"
    child = await start("--env", "own:make")
    await learner.stepping.wait()
    if not learner.ends_run:
        child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), 10.0) == (0 if learner.ends_run else 130), await said(child)


async def test_closing_standard_input_ends_an_actor_on_a_lifeline(learner: TinyLearner, start: Start) -> None:
    learner.ends_run = False
    child = await start("--lifeline-stdin")
    await learner.stepping.wait()
    child.stdin.close()
    assert await child.wait() == 130, await said(child)
    await learner.ended.wait()
    assert learner.heard[-1].code == "leaving"
    assert "Traceback" not in await said(child)


async def test_a_parent_that_is_gone_before_the_actor_began_ends_it_too(learner: TinyLearner, start: Start) -> None:
    learner.ends_run = False
    child = await start("--lifeline-stdin")
    child.stdin.close()
    assert await child.wait() == 130
