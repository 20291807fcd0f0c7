"""Turn names that a user wrote into objects, and wrong names into a sentence with the right one.

This is the base under `aioseed.plugins` and under the environment plugins, which resolve wrappers and own environments
by ``package.module:attribute``. Only names from the user's own configuration or command line belong in here.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

from aioseed.errors import PluginError

__all__ = [
    "INSTALL_ANEW",
    "LEARNER_PACKAGES",
    "did_you_mean",
    "import_attribute",
    "is_reference",
    "look_here_too",
    "near_names",
    "sentence_of",
    "signature_of",
    "without_learner",
]

LEARNER_PACKAGES = frozenset(
    {"ml_dtypes", "jax", "jaxlib", "flax", "optax", "safetensors", "rich", "tensorboardX", "cryptography"}
)
"""Modules that the extra ``learner`` brings and an actor does without."""
INSTALL_ANEW = 'pip install --force-reinstall "aioseed[learner]"'
"""What mends packages that do not fit one another."""


def near_names(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Return at most `limit` of the known names that resemble `name`, the nearest first; case does not count."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold(), list(by_folded), n=limit, cutoff=0.65)
    return [by_folded[folded] for folded in found]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "x" or "y"?)``, or an empty string when no known name is near."""
    found = near_names(name, known)
    return f" (did you mean {' or '.join(_quoted(near) for near in found)}?)" if found else ""


def sentence_of(error: BaseException) -> str:
    """Return a foreign error as text for a message: its type and its first line, at most 300 characters.

    Of one that says nothing, as that of a bare ``assert``, it tells where it was raised.
    """
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    if lines:
        return f"{name}: {lines[0]}"[:300]
    places = list(traceback.walk_tb(error.__traceback__))
    return f"{name} in line {places[-1][1]} of {places[-1][0].f_code.co_filename}" if places else name


def is_reference(name: str) -> bool:
    """Say whether `name` has the form ``package.module:attribute``."""
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def import_attribute(reference: str, *, group: str = "") -> object:
    """Import ``package.module:attribute`` and return the attribute; dots after the colon reach deeper.

    Raises:
        PluginError: No such module or attribute, or the module raised while it was imported (chained as the cause).
    """
    if not is_reference(reference):
        raise PluginError(
            f"{_quoted(reference)} is not of the form package.module:attribute", group=group, name=reference
        )
    module_name, _, attribute = reference.partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise PluginError(_missing_module(module_name, error), group=group, name=reference) from error
    except Exception as error:
        message = f"the module {_quoted(module_name)} could not be imported: {sentence_of(error)}"
        raise PluginError(message, group=group, name=reference) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, (name for name in dir(found) if not name.startswith("_")))
            message = f"the module {_quoted(module_name)} has no {_quoted(attribute)}{near}"
            raise PluginError(message, group=group, name=reference)
        found = getattr(found, part)
    return found


def signature_of(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature of a user's function, without asking for what its annotations name.

    From Python 3.14 on they are evaluated when somebody asks for them, and a module that is imported for type checkers
    alone is not there then.

    Raises:
        ValueError: It has none, being written in C.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def look_here_too() -> None:
    """Let modules of the current directory be imported, after all that is installed.

    Every process of a command says it, those that build environments are started with ``-P``: a file called types.py or
    numpy.py where the command is started must not stand in for another module.
    """
    with contextlib.suppress(FileNotFoundError):  # the directory was removed: nothing is there to be found
        sys.path.append(os.getcwd())


def without_learner(error: Exception) -> str:
    """Return what to install where one of a learner's packages is missing or does not load; else an empty string."""
    if isinstance(error, ModuleNotFoundError) and error.name in LEARNER_PACKAGES:
        return f'this needs a learner\'s packages ({error.name} is missing): pip install "aioseed[learner]"'
    named = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    broken = [name for name in (named, *_bodies_in(error.__traceback__)) if name in LEARNER_PACKAGES]
    if not broken:
        return ""
    return f"this needs a learner's packages, and {broken[-1]} does not load ({sentence_of(error)}): {INSTALL_ANEW}"


def _bodies_in(trace: TracebackType | None) -> Iterator[str]:
    """Yield the packages of modules that were being imported, the innermost last."""
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            yield str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0]
        trace = trace.tb_next


def _missing_module(module_name: str, error: ModuleNotFoundError) -> str:
    missing = error.name or module_name
    if module_name == missing or module_name.startswith(f"{missing}."):
        return f"there is no module {_quoted(missing)} in the current directory or among the installed packages"
    return f"the module {_quoted(module_name)} needs the module {_quoted(missing)}, which is not installed"


def _quoted(name: str) -> str:
    return f'"{name}"'
