from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aioseed.cli.interrupts import ending_signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


def end_of(body: str) -> tuple[int, str, str]:
    code = f"import os, signal, sys\nfrom aioseed.cli.interrupts import ends_at_once\n{body}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def test_a_ctrl_c_ends_the_process_in_silence() -> None:
    body = "with ends_at_once():\n    os.kill(os.getpid(), signal.SIGINT)\n    import this\n"
    assert end_of(body) == (130, "", "")


def test_whoever_takes_the_signal_over_has_it() -> None:
    body = (
        "with ends_at_once():\n    signal.signal(signal.SIGINT, lambda *_: print('mine'))\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    assert end_of(body) == (0, "mine\n", "")


def test_the_handler_from_before_comes_back() -> None:
    body = (
        "with ends_at_once():\n    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
    )
    assert end_of(body) == (0, "", "")


def test_a_handler_that_is_not_pythons_own_stays() -> None:
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert end_of(f"{ignored}with ends_at_once():\n    os.kill(os.getpid(), signal.SIGINT)\n") == (0, "", "")


FORKS = """
import asyncio, multiprocessing, time
from aioseed.cli import common

async def body(stop):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,))
    child.start()
    await asyncio.sleep(0.05)  # else the signal comes before the child has forgotten the loop's handlers
    child.terminate()
    await asyncio.to_thread(child.join, 5.0)
    print(child.exitcode, stop.is_set(), flush=True)  # the end of this process flushes nothing
    child.kill()

common.loop_factory = lambda: {loop}
common.run_until_interrupted(body, print)
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize("loop", ["None", "__import__('uvloop').new_event_loop"])
def test_what_a_run_forks_can_be_terminated_and_the_run_goes_on(loop: str) -> None:
    code, out, _ = end_of(FORKS.format(loop=loop))
    assert out == "-15 False\n"
    assert code == -15  # and then the command itself, as before


def test_nohup_keeps_a_command_from_ending_with_its_terminal() -> None:
    assert signal.SIGHUP in ending_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ending_signals() == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


HANGS_UP = """
import fcntl, pathlib, sys, termios
from aioseed.cli import common

fcntl.ioctl(0, termios.TIOCSCTTY, 0)

async def body(stop):
    print("ready", flush=True)
    await stop.wait()
    print("a line that no terminal takes any more", flush=True)
    return "saved"

pathlib.Path({path!r}).write_text(common.run_until_interrupted(body, print))
"""


def test_a_terminal_that_is_closed_ends_a_command_in_order(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    code = HANGS_UP.format(path=str(tmp_path / "said"))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        shown = b""
        while not shown.endswith(b"\n"):  # the kernel may hand over the line before its end
            shown += os.read(ours, 100)
        os.close(ours)
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()
    assert (tmp_path / "said").read_text() == "saved"
