"""Local actors: which endings are passed on, which are tried again, and that none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aioseed.errors import EnvironmentFailed, RefusedError, UsageError
from aioseed.host import actors as host_actors
from aioseed.host.actors import MAX_RESTARTS, LocalActors
from aioseed.host.config import RunConfig
from aioseed.transport.token import Secret

WAITS_FOR_ITS_LIFELINE = "import sys; sys.stdin.read()"


class Scripted(LocalActors):
    """Run a script in the place of an actor; start number and index are its words."""

    script = ""
    starts = 0
    on_start: Callable[[], object] = staticmethod(lambda: None)

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        self.starts += 1
        self.on_start()
        return subprocess.Popen(
            [sys.executable, "-S", "-c", self.script, str(self.starts), str(index)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=os.name == "posix",
        )


@pytest.fixture
def troubles() -> list[str]:
    return []


@pytest.fixture
def actors(small: Callable[..., RunConfig], troubles: list[str]) -> Callable[..., Scripted]:
    def make(script: str, processes: int = 1) -> Scripted:
        config = small(f"actor.processes={processes}")
        made = Scripted(config, "ws://x:1", "", lambda trouble: troubles.append(trouble.message))
        made.script = script
        return made

    return make


async def test_it_ends_when_every_actor_says_that_the_run_is_over(actors: Callable[..., Scripted]) -> None:
    made = actors("", processes=3)
    await made.run()
    assert made.starts == 3 and made.process_ids == ()


async def test_a_file_where_the_command_is_started_stands_in_for_no_module_of_its_name(
    small: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("aioseed", "numpy", "random"):
        Path(f"{name}.py").write_text("raise RuntimeError('somebody else\\'s file')")
    config = small("actor.processes=1", "actor.wait_s=0")
    made = LocalActors(config, "ws://127.0.0.1:1", Secret("x" * 32), lambda trouble: None)
    with pytest.raises(EnvironmentFailed, match="nobody answers"):
        await made.run()


@pytest.mark.parametrize(("code", "error"), [(2, UsageError), (3, RefusedError)])
async def test_what_no_try_can_mend_is_raised_in_the_actors_own_words(
    actors: Callable[..., Scripted], troubles: list[str], code: int, error: type[Exception]
) -> None:
    script = f"import sys; print('a banner'); sys.stderr.write('aioseed actor: no such thing\\n'); sys.exit({code})"
    made = actors(script)
    with pytest.raises(error) as caught:
        await made.run()
    assert str(caught.value) == "no such thing"
    assert made.starts == 1 and not troubles


async def test_the_others_end_when_one_fails(actors: Callable[..., Scripted]) -> None:
    script = f"import sys\nif sys.argv[2] == '1': sys.exit(2)\n{WAITS_FOR_ITS_LIFELINE}"
    made = actors(script, processes=2)
    with pytest.raises(UsageError, match="it ended with code 2"):
        await made.run()
    assert made.process_ids == ()


async def test_one_that_dies_is_started_again_and_that_is_told(
    actors: Callable[..., Scripted], troubles: list[str]
) -> None:
    script = "import sys, os, signal\nif sys.argv[1] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
    script += "if sys.argv[1] == '2': raise ValueError('the wheel came off')"
    made = actors(script)
    await made.run()
    assert made.starts == 3
    assert troubles == [
        "actor 0 died (killed by signal 9, SIGKILL) and is started again",
        "actor 0 died (ValueError: the wheel came off) and is started again",
    ]


async def test_one_that_always_dies_ends_the_run_with_its_last_words(actors: Callable[..., Scripted]) -> None:
    script = "import sys; sys.stderr.write(f'aioseed actor: wheel {sys.argv[1]} came off\\n'); sys.exit(5)"
    made, starts = actors(script), MAX_RESTARTS + 1
    with pytest.raises(EnvironmentFailed, match=rf"died {starts} times; the last time: wheel {starts} came off"):
        await made.run()
    assert made.starts == starts


async def test_one_that_dies_now_and_then_is_started_again_for_as_long_as_the_run_lasts(
    actors: Callable[..., Scripted], troubles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed.host.actors.LONG_S", 0.0)
    monkeypatch.setattr("aioseed.host.actors.AT_ONCE_S", 0.0)
    died = MAX_RESTARTS + 2
    made = actors(f"import sys; sys.exit(5 if int(sys.argv[1]) <= {died} else 0)")
    await made.run()
    assert made.starts == died + 1 and len(troubles) == died


async def test_one_that_dies_at_once_of_the_same_cause_is_not_tried_a_third_time(
    actors: Callable[..., Scripted], troubles: list[str]
) -> None:
    made = actors("import sys; sys.stderr.write('aioseed actor: the wheel came off\\n'); sys.exit(5)")
    with pytest.raises(EnvironmentFailed, match=r"actor 0 died 2 times; the last time: the wheel came off"):
        await made.run()
    assert made.starts == 2 and len(troubles) == 1


async def test_cancelling_ends_all_by_their_lifeline(actors: Callable[..., Scripted]) -> None:
    made, loop, started = actors(WAITS_FOR_ITS_LIFELINE, processes=2), asyncio.get_running_loop(), asyncio.Event()
    made.on_start = lambda: loop.call_soon_threadsafe(started.set) if made.starts == 2 else None
    task = asyncio.create_task(made.run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made.process_ids == ()


async def test_one_that_never_reads_what_it_is_told_is_ended_too(
    actors: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, loop, started = actors("import time; time.sleep(60)"), asyncio.get_running_loop(), asyncio.Event()
    tell = host_actors._tell

    def noted(child: subprocess.Popen[bytes], said: bytes) -> None:
        loop.call_soon_threadsafe(loop.call_later, 0.2, started.set)  # by then the pipe is full
        tell(child, b"x" * 2**20)

    monkeypatch.setattr(host_actors, "_STOP_S", 0.1)
    monkeypatch.setattr(host_actors, "_tell", noted)
    task = asyncio.create_task(made.run())
    await started.wait()
    task.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert made.process_ids == ()


async def test_one_that_does_not_heed_its_lifeline_is_ended_by_force(
    actors: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed.host.actors._STOP_S", 0.1)
    made, loop, started = actors("import time; time.sleep(30)"), asyncio.get_running_loop(), asyncio.Event()
    made.on_start = lambda: loop.call_soon_threadsafe(started.set)
    task = asyncio.create_task(made.run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20.0)
    assert made.process_ids == ()


@pytest.mark.skipif(os.name != "posix", reason="process groups")
async def test_what_a_dead_actor_left_running_is_ended_too(actors: Callable[..., Scripted], tmp_path: Path) -> None:
    """Its child holds the output open, so that waiting for the end of the output would take as long as the child."""
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {WAITS_FOR_ITS_LIFELINE!r}])"
    await actors(f"{child}; sys.exit(0)").run()


@pytest.mark.skipif(os.name != "posix", reason="sessions")
async def test_what_left_the_group_of_a_dead_actor_with_its_output_is_not_waited_for(
    actors: Callable[..., Scripted], troubles: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioseed.host.actors._LAST_WORDS_S", 0.5)
    script = "import subprocess, sys\nif sys.argv[1] == '2': sys.exit(0)\n"
    script += "left = subprocess.Popen(['sleep', '20'], stdin=subprocess.DEVNULL, start_new_session=True)\n"
    script += f"open({str(tmp_path / 'left')!r}, 'w').write(str(left.pid)); sys.exit('the wheel came off')"
    try:
        await asyncio.wait_for(actors(script).run(), 10.0)
    finally:
        os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)
    assert troubles == ["actor 0 died (the wheel came off) and is started again"]
