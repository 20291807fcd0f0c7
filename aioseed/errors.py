"""Every failure that aioseed reports, as one tree.

::

    AioseedError
    ├── UsageError                   the caller asked for something impossible      exit 2
    │   ├── ConfigError              a configuration key or value
    │   ├── SpaceError               a space that cannot be served
    │   ├── PluginError              a plugin that is not there or does not load
    │   └── ListenError              an address that cannot be listened on
    ├── ProtocolError                the peer broke the wire rules
    ├── RefusedError                 the learner said no, and why                   exit 3
    ├── TransportError               the road between actor and learner             exit 4
    │   ├── ConnectError             nobody answers at the address
    │   ├── AuthenticationError      the token was not accepted                     exit 3
    │   ├── CertificateError         a certificate is not what it should be         exit 3
    │   └── ChannelClosed            the channel has ended (`clean` tells how)
    ├── EnvironmentFailed            an environment raised, hung or lied            exit 5
    ├── RunDirectoryError            the run directory cannot be used               exit 2
    │   ├── RunDirectoryInUse
    │   └── CheckpointError          no sound checkpoint where one is needed
    │       └── SaveFailed           a checkpoint could not be written                  exit 1
    └── TrainingFailed               the learner cannot go on                       exit 1

Each class names the counter that telemetry keeps for it and the exit code of a command that ends with it; a class
without one in the tree has that of its parent, and 1 stands for the rest. The text of an exception is one sentence for
the user; what a program needs is in its attributes. Foreign exceptions never leave a transport, an environment adapter
or the checkpoint store: they are chained as ``__cause__``.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AioseedError",
    "AuthenticationError",
    "CertificateError",
    "ChannelClosed",
    "CheckpointError",
    "ConfigError",
    "ConnectError",
    "EnvironmentFailed",
    "ListenError",
    "PluginError",
    "ProtocolError",
    "RefusedError",
    "RunDirectoryError",
    "RunDirectoryInUse",
    "SaveFailed",
    "SpaceError",
    "TrainingFailed",
    "TransportError",
    "UsageError",
]


class AioseedError(Exception):
    """Stand at the root of every error that aioseed raises on purpose."""

    counter: ClassVar[str] = "errors/other"
    exit_code: ClassVar[int] = 1

    # An exception whose constructor takes more than its text cannot be unpickled by the default, which breaks the pool
    # of processes that it crosses.
    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[AioseedError], args: tuple[object, ...], attributes: dict[str, object]) -> AioseedError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class UsageError(AioseedError):
    """Report a request that cannot be met as it was made."""

    counter = "errors/usage"
    exit_code = 2


class ConfigError(UsageError):
    """Report a wrong configuration key or value.

    Attributes:
        path: Dotted path of the key, for example ``training.learning_rate``; empty for a whole file.
        value: What was given, as text.
        expected: What would have been accepted, as text.
    """

    counter = "errors/config"

    def __init__(self, message: str, *, path: str = "", value: str = "", expected: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.value = value
        self.expected = expected


class SpaceError(UsageError):
    """Report an observation or action space that cannot be served or that an agent cannot take."""

    counter = "errors/space"


class PluginError(UsageError):
    """Report a plugin that is missing or fails to load.

    Attributes:
        group: Entry-point group, for example ``aioseed.envs``.
        name: Name that was asked for.
        extra: The extra of ``pip install "aioseed[...]"`` that brings it, or an empty string.
    """

    counter = "errors/plugin"

    def __init__(self, message: str, *, group: str = "", name: str = "", extra: str = "") -> None:
        super().__init__(message)
        self.group = group
        self.name = name
        self.extra = extra


class ListenError(UsageError):
    """Report an address that cannot be listened on: in use, not ours, or not allowed without a token."""

    counter = "errors/listen"

    def __init__(self, message: str, *, url: str) -> None:
        super().__init__(message)
        self.url = url


class ProtocolError(AioseedError):
    """Report bytes or a message that break the wire rules.

    Raised where bytes are read; the peer that sent them is told with an ERROR message of the same code.

    Attributes:
        code: A word from `aioseed.wire.messages.ErrorCode`.
        rows: Rows of a STEP that were refused, empty when the whole message is at fault.
        fatal: True when the channel must be closed, since its two ends no longer agree on what was said.
    """

    counter = "errors/protocol"

    def __init__(self, code: str, message: str, *, rows: tuple[int, ...] = (), fatal: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.rows = rows
        self.fatal = fatal


class RefusedError(AioseedError):
    """Report that the learner refused a session.

    Attributes:
        code: A word from `aioseed.wire.messages.RefusalCode`.
        field: Path of the HELLO field that differs, or an empty string.
        ours: What this side has at `field`.
        theirs: What the other side has at `field`.
        retry: True when asking again later can help (the learner is full or draining).
    """

    counter = "errors/refused"
    exit_code = 3

    def __init__(
        self, code: str, message: str, *, field: str = "", ours: str = "", theirs: str = "", retry: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.ours = ours
        self.theirs = theirs
        self.retry = retry


class TransportError(AioseedError):
    """Report a failure of the road between an actor and a learner.

    Words of the other side may stand in the text, so what cannot be printed is escaped there: it goes to terminals.
    """

    counter = "errors/transport"
    exit_code = 4

    def __init__(self, message: str) -> None:
        super().__init__("".join(char if char.isprintable() else repr(char)[1:-1] for char in message))


class ConnectError(TransportError):
    """Report that no channel could be opened to an address."""

    counter = "errors/connect"

    def __init__(self, message: str, *, url: str) -> None:
        super().__init__(message)
        self.url = url


class AuthenticationError(TransportError):
    """Report that the listener did not accept the token."""

    counter = "errors/authentication"
    exit_code = 3

    def __init__(self, message: str, *, url: str = "") -> None:
        super().__init__(message)
        self.url = url


class CertificateError(TransportError):
    """Report that a learner's certificate is not trusted, or that it does not accept ours.

    Attributes:
        reason: ``expired``, ``name`` (it is another's), ``foreign`` (nobody we trust signed it), ``fingerprint``,
            ``client`` (the learner wants a certificate of ours, or another one), ``files`` (ours cannot be read).
    """

    counter = "errors/certificate"
    exit_code = 3

    def __init__(self, reason: str, message: str, *, url: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.url = url


class ChannelClosed(TransportError):
    """Report that a channel has ended; nothing more can be sent or received on it.

    Attributes:
        clean: True when either side closed it on purpose, False when it broke.
        reason: Words from the side that closed it, at most 200 characters, possibly empty.
    """

    counter = "errors/channel_closed"

    def __init__(self, reason: str = "", *, clean: bool) -> None:
        super().__init__(reason or ("the channel was closed" if clean else "the connection broke"))
        self.clean = clean
        self.reason = reason


class EnvironmentFailed(AioseedError):
    """Report an environment that raised, hung, changed its shapes or returned values that are not finite."""

    counter = "errors/environment"
    exit_code = 5


class RunDirectoryError(AioseedError):
    """Report a run directory that cannot be used."""

    counter = "errors/run_directory"
    exit_code = 2

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class RunDirectoryInUse(RunDirectoryError):
    """Report that another learner owns the run directory."""

    counter = "errors/run_directory_in_use"


class CheckpointError(RunDirectoryError):
    """Report that no sound checkpoint is there, or that one does not fit the configuration."""

    counter = "errors/checkpoint"


class SaveFailed(CheckpointError):
    """Report a checkpoint that could not be written: a full disk, say. What was there before is as it was."""

    counter = "errors/save"
    exit_code = 1  # another start goes on from the checkpoint before


class TrainingFailed(AioseedError):
    """Report that the learner cannot go on: a room failed, or updates stay non-finite."""

    counter = "errors/training"
