"""``aioseed COMMAND ...``: find the command and hand over, importing nothing that it does not need."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from aioseed import __version__
from aioseed.cli.interrupts import ends_at_once
from aioseed.cli.streams import delivered, make_usable
from aioseed.lookup import look_here_too


class _Command(NamedTuple):
    module: str
    summary: str
    learner_side: bool
    makes_environments: bool = False  # in its own process, if only with the transport memory


_COMMANDS = {
    "train": _Command(
        "aioseed.cli.train", "train with local actors: learner and environments in one command", True, True
    ),
    "learner": _Command("aioseed.cli.learner", "serve and train for actors that connect from anywhere", True),
    "actor": _Command("aioseed.cli.actor", "step environments for a learner elsewhere", False, True),
    "evaluate": _Command("aioseed.cli.evaluate", "measure the policy of a finished or running run", True),
    "suite": _Command(
        "aioseed.cli.suite", "train the tasks of a suite one after another, and report on them", True, True
    ),
    "presets": _Command("aioseed.cli.presets", "list the presets that are installed", False),
    "config": _Command("aioseed.cli.config", "show a resolved configuration, or its JSON Schema", True),
    "env-spec": _Command("aioseed.cli.env_spec", "describe an environment as learners see it", False, True),
    "check-env": _Command(
        "aioseed.cli.check_env", "try an environment and say what would go wrong with it", False, True
    ),
    "doctor": _Command("aioseed.cli.doctor", "check the installation and a run directory", True),
    "chaos": _Command("aioseed.cli.chaos", "break things while a run goes on, and check that nothing is lost", True),
    "bench": _Command("aioseed.cli.bench", "measure serving, transports and training on this machine", True, True),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names and return its exit code.

    Args:
        argv: None takes the words of this process, which then ends without waiting for threads that cannot be stopped.
    """
    if argv is not None:
        return _run(list(argv))
    make_usable()
    look_here_too()  # an own environment or network is a module in the current directory
    code = delivered(lambda: _run(sys.argv[1:]))
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: a second Ctrl-C must not change how it ended
    command = _COMMANDS.get(next(iter(sys.argv[1:]), ""))
    # A compiler or an environment is at it still; the interpreter would pull the ground from under its feet.
    at_it = any(thread.name.startswith("aioseed-") and thread.daemon for thread in threading.enumerate())
    if at_it and (command is None or command.learner_side):
        os._exit(code)
    if command is not None and command.makes_environments:
        from aioseed.actor.leave import cut, leave

        leave(code)
        if at_it:
            atexit.register(cut, code)  # once threads that end by themselves have ended
    return code


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_help())
        return 0
    if words[0] in ("-V", "--version"):
        sys.stdout.write(f"aioseed {__version__}\n")
        return 0
    command = _COMMANDS.get(words[0])
    if command is None:
        from aioseed.lookup import did_you_mean

        sys.stderr.write(f'aioseed: there is no command "{words[0]}"{did_you_mean(words[0], list(_COMMANDS))}\n')
        return 2
    try:
        with ends_at_once():
            module = import_module(command.module)
        code: int = module.main(words[1:])
    except Exception as error:
        from aioseed.lookup import without_learner

        remedy = without_learner(error) if command.learner_side else ""
        if not remedy:
            raise
        sys.stderr.write(f"aioseed {words[0]}: {remedy}\n")
        return 2
    return code


def _help() -> str:
    width = max(len(name) for name in _COMMANDS)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in _COMMANDS.items()]
    return (
        "usage: aioseed COMMAND [options]     aioseed COMMAND --help tells more\n\n"
        + "\n".join(lines)
        + f"\n\naioseed {__version__}: deep RL with environments in one place and accelerators in another\n"
    )
