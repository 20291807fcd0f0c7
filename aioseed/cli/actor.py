"""``aioseed actor``: step environments for a learner elsewhere. Starts fast and imports nothing of a learner."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import NamedTuple

from aioseed import presets
from aioseed.actor.config import ActorConfig, EnvironmentConfig
from aioseed.actor.leave import leave
from aioseed.actor.lifeline import take_stdin
from aioseed.actor.run import run_actor
from aioseed.actor.session import ActorEvent
from aioseed.actor.task import task_of
from aioseed.actor.token import is_loopback, read_token, token_of_environment, token_path
from aioseed.cli import collector
from aioseed.cli.common import Parser, add_overrides, guarded, loop_factory, split_overrides
from aioseed.cli.interrupts import INTERRUPTED, children_spared, ending_signals, leave_lost_terminal
from aioseed.errors import ConfigError, UsageError
from aioseed.lookup import look_here_too
from aioseed.plugins import environment_plugin
from aioseed.transport.allocator import keep_large_blocks
from aioseed.transport.client_tls import ClientTls, parse_fingerprint
from aioseed.transport.token import Secret
from aioseed.validation import validate
from aioseed.wire.messages import Task

STDIN = "-"
"""What ``--preset`` says where the configuration is the first line of standard input."""
LIFELINE_S = 6.0
"""Longest time between the end of standard input and the end of the process."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 the run is over, 1 the learner broke the rules, 2 usage, 3 refused, 4 no learner, 5 an environment failed,
    130 interrupted.
    """
    return guarded("actor", lambda: _run(_parser().parse_intermixed_args(argv)))


class Settings(NamedTuple):
    """Join what the command line and the configuration say."""

    environment: EnvironmentConfig
    task: Task | None
    actor: ActorConfig
    environments: int
    groups: int | None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="aioseed actor", description="Step environments for a learner elsewhere.")
    parser.add_argument("url", help="address of the learner, e.g. ws://127.0.0.1:8700 or grpc://127.0.0.1:8701")
    source = parser.add_mutually_exclusive_group(required=True)
    preset = "preset or configuration file (- for JSON in the first line of standard input); its sections environment"
    source.add_argument("--preset", help=f"{preset} and actor are read")
    source.add_argument("--env", metavar="NAME", help="environment to make, or package.module:function for one's own")
    parser.add_argument("--envs", type=int, metavar="N", help="number of environments (default: that of the preset)")
    parser.add_argument("--groups", type=int, metavar="G", help="groups that step in turns (default: 2)")
    parser.add_argument("--vectorized", action="store_true", help="use the environment's own vector implementation")
    parser.add_argument("--role", choices=("train", "evaluate"), default="train", help="default: train")
    parser.add_argument("--token-file", type=Path, help="file with the secret to show (or set AIOSEED_TOKEN)")
    parser.add_argument("--fingerprint", metavar="SHA256", help="know a wss:// or grpcs:// learner by its certificate")
    parser.add_argument("--tls-ca", type=Path, metavar="FILE", help="trust these authorities instead of the system's")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate to show to the learner")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
    parser.add_argument("--wait-s", type=float, metavar="S", help="wait so long for the first welcome (10)")
    parser.add_argument("--reconnect-s", type=float, metavar="S", help="look so long for a lost learner (600)")
    parser.add_argument("--step-deadline-s", type=float, metavar="S", help="a longer step is hung (60)")
    words = "deflate observations on the way (default: auto, where the learner is another machine)"
    parser.add_argument("--compression", choices=("auto", "deflate", "none"), help=words)
    parser.add_argument("--actor-id", help="name in logs (default: made from host and process)")
    parser.add_argument("--actor-index", type=int, metavar="I", help="place among actors; orders slots in lockstep")
    parser.add_argument("--nice", type=int, metavar="N", help="niceness of this process, where there is such a thing")
    parser.add_argument("--lifeline-stdin", action="store_true", help="end when standard input closes")
    add_overrides(parser)
    return parser


def _settings(words: argparse.Namespace, said: bytes = b"") -> Settings:
    if words.preset == STDIN:
        data = _data(said)
    elif words.preset is not None:
        data = presets.read(words.preset)
    else:
        data = {"environment": {"name": words.env}}
    names = ("wait_s", "reconnect_s", "step_deadline_s", "compression", "nice", "groups")
    flags = {name: getattr(words, name) for name in names}
    overrides = [f"actor.{name}={value}" for name, value in flags.items() if value is not None]
    if words.vectorized:
        overrides.append("environment.options.vectorized=true")
    data = presets.apply_overrides(data, [*split_overrides(words.overrides), *overrides])
    environment = validate(EnvironmentConfig, _section(data, "environment"), "environment")
    actor = validate(ActorConfig, _section(data, "actor"), "actor")
    task = None
    if words.preset is not None:
        config = environment_plugin(environment.plugin).task(environment.name, environment.options)
        task = task_of(environment.name, config)
    if words.envs is None:
        return Settings(environment, task, actor, actor.groups * actor.envs_per_group, actor.groups)
    # Few environments make fewer groups, unless so many groups were asked for.
    groups = actor.groups if words.groups is not None else max(1, min(actor.groups, words.envs))
    return Settings(environment, task, actor, words.envs, groups)


def _first_line_of_stdin() -> bytes:
    said = b""
    while b"\n" not in said and (part := os.read(0, 65536)):
        said += part
    return said.partition(b"\n")[0]


def _data(said: bytes) -> presets.Data:
    try:
        data = json.loads(said)
    except ValueError as error:
        raise ConfigError(f"the first line of standard input is no configuration in JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("the first line of standard input is no configuration: expected sections in braces")
    return data


def _section(data: presets.Data, name: str) -> dict[str, object]:
    section = data.get(name) or {}
    if not isinstance(section, dict):
        raise UsageError(f"{name} is {section!r}: expected keys and values")
    return section


def _token(url: str, file: Path | None) -> Secret | Callable[[], Secret | None] | None:
    """Return the token, or where to look for it at each attempt: a learner on this machine leaves a file."""
    if file is not None:
        return lambda: read_token(file)
    if (given := token_of_environment()) is not None:
        return given
    if not is_loopback(url):
        return None
    path = token_path(url)
    return lambda: read_token(path) if path.exists() else None


def _tls(words: argparse.Namespace) -> ClientTls:
    try:
        fingerprint = None if words.fingerprint is None else parse_fingerprint(words.fingerprint)
    except ValueError as error:
        raise UsageError(f"--fingerprint: {error}") from error
    return ClientTls(fingerprint, words.tls_ca, words.tls_cert, words.tls_key)


def _run(words: argparse.Namespace) -> int:
    keep_large_blocks()
    interrupt = _Interrupt()
    said = _first_line_of_stdin() if words.preset == STDIN else b""
    if words.lifeline_stdin:
        interrupt.watch_stdin()  # takes whatever follows
    settings = _settings(words, said)
    _be_nice(settings.actor.nice)
    sys.setswitchinterval(settings.actor.switch_interval_s)
    return interrupt.run(
        run_actor(
            words.url,
            settings.environment,
            environments=settings.environments,
            groups=settings.groups,
            actor_id=words.actor_id,
            actor_index=words.actor_index,
            role=words.role,
            token=_token(words.url, words.token_file),
            tls=_tls(words),
            task=settings.task,
            wait_s=settings.actor.wait_s,
            reconnect_s=settings.actor.reconnect_s,
            step_deadline_s=settings.actor.step_deadline_s,
            compression=settings.actor.compression,
            on_event=_Teller(alone=not words.lifeline_stdin),
        )
    )


def _be_nice(nice: int | None) -> None:
    if nice is None or sys.platform == "win32":
        return
    try:
        os.nice(nice)
    except OSError as error:
        raise UsageError(f"actor.nice: this user may not take the niceness {nice}: {error.strerror}") from error


class _Teller:
    """Say what happens on standard error, and wake the collector with the first WELCOME.

    Args:
        alone: Whether somebody watches this actor, not the program that started it: then it says how fast it is.
    """

    def __init__(self, *, alone: bool) -> None:
        self._joined = False
        self._alone = alone

    def __call__(self, event: ActorEvent) -> None:
        if event.kind == "welcomed" and not self._joined:
            self._joined = True
            collector.wake()
        if self._alone or event.kind != "pace":
            sys.stderr.write(f"aioseed actor: {event.message}\n")
            sys.stderr.flush()


class _Interrupt:
    """End the command in order on Ctrl-C, on a signal of `ending_signals`, or when standard input closes.

    A second Ctrl-C ends it at once: that is `asyncio.Runner`'s habit. Processes that environments fork end on SIGTERM
    as if this were not there.
    """

    def __init__(self) -> None:
        self._cancel: Callable[[], object] | None = None
        self._ended = threading.Event()
        self._signals = ending_signals()

    def run(self, actor: Coroutine[object, object, object]) -> int:
        """Run `actor` to its end and return the exit code; its errors are raised."""
        # A Ctrl-C is left as it is: it goes to the processes of environments and to their parent, which closes them.
        try:
            with children_spared(self._signals), asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._cancellable(actor))
        except (asyncio.CancelledError, KeyboardInterrupt):
            return INTERRUPTED
        finally:
            self._ended.set()
        return 0

    def watch_stdin(self) -> None:
        """End when standard input closes; a parent that dies closes it, however it dies."""
        threading.Thread(target=self._read, args=(take_stdin(),), name="aioseed-lifeline", daemon=True).start()

    async def _cancellable(self, actor: Coroutine[object, object, object]) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(actor)

        def cancel(*_: object) -> None:
            leave_lost_terminal()
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended already
                loop.call_soon_threadsafe(task.cancel)

        self._cancel = cancel
        for number in self._signals:
            signal.signal(number, cancel)
        await task

    def _read(self, lifeline: int) -> None:
        try:
            # Not sys.stdin: its lock, held here, would keep the interpreter from ending.
            while os.read(lifeline, 4096):
                pass
        except OSError:
            pass  # closed already: the same news
        if self._cancel is not None:
            self._cancel()
            if self._ended.wait(LIFELINE_S):
                return
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    look_here_too()
    exit_code = main()
    leave(exit_code)
    sys.exit(exit_code)
