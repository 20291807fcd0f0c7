"""Token files, mode 0600: those that users write, and the one that a loopback listener leaves for the same user."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from pathlib import Path
from urllib.parse import urlsplit

from aioseed.errors import UsageError
from aioseed.transport.address import Address
from aioseed.transport.keyring import Credential, first_token, parse_keys
from aioseed.transport.token import Secret

MAX_FILE_BYTES = 2**20


def is_loopback(url: str) -> bool:
    """Return True when the host of `url` is this machine by name or number: ``localhost``, 127.0.0.0/8, ::1.

    Raises:
        UsageError: The URL cannot be read.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url!r} is not an address: {error}") from error
    return Address(parts.scheme, parts.hostname or "", 0).is_loopback


def token_path(url: str) -> Path:
    """Return where the learner that listens at `url` keeps its token: ``<runtime dir>/aioseed/<host>-<port>.token``.

    ``localhost`` and ``127.0.0.1`` are the same file.

    Raises:
        UsageError: The URL has no host or no sensible port, or as `token_folder`.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} is not an address: {error}") from error
    if not host:
        raise UsageError(f"{url!r} is not an address: it has no host")
    name = "127.0.0.1" if host == "localhost" else host.replace(":", "_")
    return token_folder() / f"{name}-{port or 0}.token"


def token_folder() -> Path:
    """Return where learners of this user leave their tokens: ``<runtime dir>/aioseed``.

    Raises:
        UsageError: The user has no home directory.
    """
    given = os.environ.get("XDG_RUNTIME_DIR")
    try:
        return (Path(given) if given else _caches()) / "aioseed"
    except RuntimeError as error:  # a user whom the system does not know, as in many containers
        message = "this user has no home directory, where tokens are left: give a token, or set XDG_RUNTIME_DIR"
        raise UsageError(message) from error


def write_token(path: Path, token: Secret) -> None:
    """Write `token` to `path` atomically; on POSIX nobody but the user can read it at any moment.

    Raises:
        UsageError: The file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token.reveal() + "\n")
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the name and nothing in it
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise UsageError(f"the token file {path} cannot be written: {error.strerror or error}") from error


def read_token(path: Path) -> Secret:
    """Return the token to show: the first in `path`.

    Raises:
        UsageError: The file is missing or larger than 1 MiB, it holds no token or a wrong line before it, or (on POSIX)
            others than its owner can read it.
    """
    try:
        return Secret(first_token(_read_private(path)))
    except ValueError as error:
        raise UsageError(f"the token file {path} cannot be used: {error}") from None


def token_of_environment() -> Secret | None:
    """Return the token in the environment variable ``AIOSEED_TOKEN``, None if there is none."""
    given = os.environ.get("AIOSEED_TOKEN", "").strip()
    return Secret(given) if given else None


def read_keys(path: Path) -> list[Credential]:
    """Return the credentials of every token in `path`, as `aioseed.transport.keyring` describes the file.

    Raises:
        UsageError: As `read_token`, or a line is wrong; the message tells its number and never the token.
    """
    try:
        return parse_keys(_read_private(path))
    except ValueError as error:
        raise UsageError(f"the token file {path} cannot be used: {error}") from None


def _read_private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise UsageError(f"the token file {path} can be read by others: run chmod 600 {path}")
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            # Not cut: half a line could be a token without the bounds behind it.
            raise UsageError(f"the token file {path} cannot be used: it has more than {MAX_FILE_BYTES:,} bytes")
        return content.decode()
    except UnicodeDecodeError:
        raise UsageError(f"the token file {path} cannot be read: it is not UTF-8") from None
    except OSError as error:
        raise UsageError(f"the token file {path} cannot be read: {error.strerror or error}") from error


def _caches() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path.home() / ".cache"
