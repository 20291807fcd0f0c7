"""``aioseed COMMAND ...``: find the command and hand over, importing nothing that it does not need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from aioseed import __version__


class _Command(NamedTuple):
    module: str
    summary: str
    learner_side: bool


_COMMANDS = {
    "train": _Command("aioseed.cli.train", "train with local actors: learner and environments in one command", True),
    "learner": _Command("aioseed.cli.learner", "serve and train for actors that connect from anywhere", True),
    "actor": _Command("aioseed.cli.actor", "step environments for a learner elsewhere", False),
    "evaluate": _Command("aioseed.cli.evaluate", "measure the policy of a finished or running run", True),
    "presets": _Command("aioseed.cli.presets", "list the presets that are installed", False),
    "config": _Command("aioseed.cli.config", "show a resolved configuration, or its JSON Schema", True),
    "env-spec": _Command("aioseed.cli.env_spec", "describe an environment as learners see it", False),
    "bench": _Command("aioseed.cli.bench", "measure serving, transports and training on this machine", True),
}

_LEARNER_PACKAGES = frozenset({"ml_dtypes", "jax", "jaxlib", "flax", "optax", "safetensors", "rich", "tensorboardX"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
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
        module = import_module(command.module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not (command.learner_side and missing in _LEARNER_PACKAGES):
            raise
        sys.stderr.write(
            f"aioseed {words[0]}: this needs a learner's packages ({missing} is missing): "
            'pip install "aioseed[learner]"\n'
        )
        return 2
    code: int = module.main(words[1:])
    return code


def _help() -> str:
    width = max(len(name) for name in _COMMANDS)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in _COMMANDS.items()]
    return (
        "usage: aioseed COMMAND [options]     aioseed COMMAND --help tells more\n\n"
        + "\n".join(lines)
        + f"\n\naioseed {__version__}: deep RL with environments in one place and accelerators in another\n"
    )


if __name__ == "__main__":
    sys.exit(main())
