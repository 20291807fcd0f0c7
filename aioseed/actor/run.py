"""Run an actor: build the environments, dial, hold sessions, dial again, end."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from aioseed import __version__
from aioseed.actor.config import Compression, EnvironmentConfig
from aioseed.actor.contact import Backoff, Contact
from aioseed.actor.conversation import Conversation
from aioseed.actor.crew import Crew
from aioseed.actor.pace import Done, Pace
from aioseed.actor.session import ActorEvent, ActorSession, End
from aioseed.actor.token import is_loopback
from aioseed.actor.watch import Watch
from aioseed.actor.worker import Built, Worker
from aioseed.errors import (
    AioseedError,
    AuthenticationError,
    CertificateError,
    ConnectError,
    EnvironmentFailed,
    RefusedError,
    TransportError,
    UsageError,
)
from aioseed.plugins import environment_plugin, transport_for
from aioseed.specs import observation_to_json
from aioseed.transport.channel import DialOptions, Transport
from aioseed.transport.client_tls import ClientTls
from aioseed.transport.token import Secret
from aioseed.types import BatchEnvironment
from aioseed.validation import validate
from aioseed.wire.columns import ActionLayout
from aioseed.wire.messages import Hello, Metric, RefusalCode, Task, Welcome

CLOSE_S = 5.0
"""Longest wait for environments to close; threads that hang longer are left behind."""

ANSWER_S = 1.0
"""Shortest wait for a channel, and for an answer on it: the last attempt is made when the patience is at its end."""

WORTH_PACKING_BYTES = 1024
"""Observations of a message that are packed where nobody said whether they are to be."""
WORTH_ASKED = 0.9
"""Share of its size to which packing must bring a message to be gone on with, where somebody asked for it."""
WORTH_UNASKED = 0.5
"""And where nobody did: pictures of ViZDoom come to 0.3 to 0.52, which takes half as long as their step."""

NO_TLS = ClientTls()
"""Trust the system's authorities, and show no certificate."""

logger = logging.getLogger("aioseed.actor")

MakeEnvironments = Callable[[int], BatchEnvironment]
Role = Literal["train", "evaluate"]


class ActorSummary(NamedTuple):
    """Say what an actor did in a run that is over."""

    run_id: str  # of the last session, empty without one
    sessions: int
    transitions: int  # that were answered, over all sessions


async def run_actor(
    url: str,
    make_env: MakeEnvironments | EnvironmentConfig,
    *,
    environments: int,
    groups: int | None = None,
    actor_id: str | None = None,
    actor_index: int | None = None,
    role: Role = "train",
    token: Secret | str | Callable[[], Secret | None] | None = None,
    tls: ClientTls = NO_TLS,
    task: Task | None = None,
    transport: Transport | None = None,
    wait_s: float = 10.0,
    reconnect_s: float = 600.0,
    step_deadline_s: float = 60.0,
    compression: Compression = "auto",
    on_event: Callable[[ActorEvent], None] | None = None,
    make_worker: Callable[[int, int, MakeEnvironments], Worker] = Worker,
    jitter: Callable[[], float] | None = None,
) -> ActorSummary:
    """Step environments for the learner at `url` until its run is over.

    The environments are cut into groups that step in turns, each in a thread of its own. A lost learner is dialled
    again for `reconnect_s` after each session, with full jitter. Episodes go on where they were if the learner has kept
    their slots; else, and after its restart, environments are reset. The event loop stays free: PINGs are answered
    while environments step.

    Safe to cancel: the learner is told, and threads and environments are closed within 8 seconds; a thread that hangs
    longer is left behind as a daemon. Several may run in one event loop. The learner pushes back by delaying actions.

    Args:
        url: Address of the learner, for example ``ws://127.0.0.1:8700``.
        make_env: Makes so many environments, called once a group in that group's thread; or the name of a plugin's.
        environments: Number of environments in all.
        groups: Number of groups, 2 if there are so many environments; their sizes differ by at most one.
        actor_id: Name in logs; made from host and process if None.
        actor_index: Place among the actors of one command, which orders the slots in lockstep mode.
        role: ``train``, or ``evaluate`` for environments whose steps are not trained on.
        token: Secret to show, or a function that gives it for each attempt: a restarted learner may have a new one.
        tls: How to know a learner; only for a URL with TLS.
        task: Name and configuration of the environment, to equal the learner's; None to be judged by specs alone.
        transport: Opens the channel; that of the URL's scheme if None.
        wait_s: Longest wait for the first welcome, but for a learner that says that it is starting.
        reconnect_s: Longest time without a learner after each session.
        step_deadline_s: Longest time of one step of a group; the learner may shorten it.
        compression: Whether observations are deflated on the way: ``deflate`` wherever the learner can inflate them,
            ``auto`` only where it is another machine and they are not tiny. What does not shrink goes as it is.
        on_event: Told what happens, in the event loop's thread; the log ``aioseed.actor`` if None.
        make_worker: Makes what carries a group of environments, (index, count, maker); a thread each. A simulation
            hands over one without a thread.
        jitter: Uniform numbers in [0, 1) from which the pauses between attempts follow; random if None.

    Raises:
        UsageError: The arguments are impossible, or a plugin or the environment does not exist.
        ConnectError: No learner answered in time.
        AuthenticationError: The token was not accepted.
        CertificateError: The learner's certificate is not trusted, or it does not accept ours.
        RefusedError: The learner refused this actor, or was full for too long.
        EnvironmentFailed: An environment raised, or a step took longer than the deadline.
        ProtocolError: The learner broke the wire rules.
    """
    sizes = group_sizes(environments, groups)
    # Plugins are files: they are found and imported off the loop.
    road = transport if transport is not None else await asyncio.to_thread(transport_for, url)
    _check_tls(url, road, tls)
    make = _maker(make_env)
    tell = on_event if on_event is not None else _log
    workers = [make_worker(index, count, make) for index, count in enumerate(sizes)]
    try:
        # One after the other: what environments do while they are built is often not safe in threads.
        built = [await worker.build() for worker in workers]
        agreed = _agreed(built)
        hello = validate(
            Hello,
            {
                "library": f"aioseed {__version__}",
                "actor_id": actor_id or f"{socket.gethostname()[:64]}-{os.getpid()}-{secrets.token_hex(3)}",
                "actor_index": actor_index,
                "role": role,
                "environments": environments,
                "observation": observation_to_json(agreed.spec.observation),
                "action": agreed.spec.action.to_json(),
                "task": task,
                "metrics": [Metric(name=metric.name, fold=metric.fold) for metric in agreed.metrics],
                "step_deadline_s": step_deadline_s,
            },
            "actor",
        )
        secret = Secret(token) if isinstance(token, str) else token
        packs = _packs(compression, url, built)
        actor = _Actor(url, road, DialOptions(tls=tls), secret, workers, built, hello, tell, packs=packs)
        # Jitter, not a secret.
        backoff = Backoff(random.Random().random if jitter is None else jitter)  # noqa: S311
        return await actor.run(Contact(wait_s, reconnect_s, backoff, asyncio.get_running_loop().time()))
    finally:
        await _close(workers, tell)


def group_sizes(environments: int, groups: int | None) -> list[int]:
    """Return the number of environments of each group: they differ by at most one.

    Raises:
        UsageError: No environments, no groups, or more groups than environments.
    """
    wanted = min(2, environments) if groups is None else groups
    if environments < 1:
        raise UsageError(f"an actor steps at least one environment, and {environments} were asked for")
    if not 1 <= wanted <= environments:
        raise UsageError(f"{environments} environments cannot be cut into {wanted} groups")
    return [environments // wanted + (index < environments % wanted) for index in range(wanted)]


class _Actor:
    """Hold one session after another."""

    def __init__(
        self,
        url: str,
        transport: Transport,
        options: DialOptions,
        token: Secret | Callable[[], Secret | None] | None,
        workers: Sequence[Worker],
        built: Sequence[Built],
        hello: Hello,
        tell: Callable[[ActorEvent], None],
        *,
        packs: float | None,
    ) -> None:
        self._url = url
        self._packs = packs
        self._transport = transport
        self._options = options
        self._token = token
        self._crew = Crew(workers)
        self._groups = len(workers)
        self._messages = [group.message for group in built]
        self._actions = ActionLayout(built[0].spec.action)
        self._hello = hello
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._resume_token: str | None = None  # of the last WELCOME, while the session may go on
        self._run_id = ""
        self._acknowledged_rows = 0  # in the run of `_run_id`
        self._sessions = 0
        self._transitions = 0
        self._step_bytes = 0
        self._pace = Pace()

    async def run(self, contact: Contact) -> ActorSummary:
        said: set[str] = set()  # since the last session: what attempts end with may alternate
        while True:
            asked_to_resume, sessions = self._resume_token is not None, self._sessions
            end = await self._attempt(contact)
            if self._sessions > sessions:
                said.clear()
            contact.lost(self._loop.time())
            if end.outcome == "run_over":
                self._tell(ActorEvent("over", "the run is over"))
                return ActorSummary(self._run_id, self._sessions, self._transitions)
            if end.outcome == "failed":
                raise end.error or AssertionError("a failure without an error")
            if not end.may_resume:
                self._resume_token = None
                self._crew.forget()
                if asked_to_resume and _is_about_the_token(end):
                    continue  # ask again without it, at once
            delay_s = contact.retry_delay_s(self._loop.time())
            if delay_s is None:
                raise _given_up(self._url, contact, end.error)
            if str(end.error) not in said:
                said.add(str(end.error))
                self._tell(_retrying(self._url, contact, end.error))
            await asyncio.sleep(delay_s)
            if self._crew.failure is not None:
                raise self._crew.failure

    async def _attempt(self, contact: Contact) -> End:
        try:
            token = await self._read_token()
        except UsageError as error:
            # Its file may be about to be renewed: whoever was welcomed with what it held before looks again.
            if not contact.welcomed_once:
                raise
            return End("retry", error, may_resume=True)
        patience_s = min(5.0, max(ANSWER_S, contact.remaining_s(self._loop.time())))
        try:
            options = self._options._replace(token=token, connect_timeout_s=patience_s)
            channel = await self._transport.dial(self._url, options)
        except CertificateError as error:
            # A learner that was known before may be changing its certificate, and keeps the slots meanwhile.
            return End("retry" if contact.welcomed_once else "failed", error, may_resume=True)
        except AuthenticationError as error:
            # A learner that was just restarted has a new token, which may have been written since we read it. Whoever
            # was known before keeps asking: which of two files is changed first, the learner's or ours, is chance.
            known = contact.welcomed_once or await self._read_token() != token
            told = error if token is not None else _tokenless(self._url)
            return End("retry" if known else "failed", told, may_resume=True)
        except TransportError as error:
            return End("retry", error, may_resume=True)
        session = ActorSession(self._messages, self._actions, self._crew.groups, packs=self._packs)

        def welcomed(welcome: Welcome) -> None:
            contact.welcomed(self._loop.time())
            self._sessions += 1
            self._resume_token = welcome.resume_token
            if welcome.run_id != self._run_id:
                self._run_id, self._acknowledged_rows = welcome.run_id, 0

        def ticked() -> None:
            if session.welcome is None:
                return
            done = Done(self._transitions + session.acknowledged_rows, self._step_bytes + session.step_bytes)
            said = self._pace.tick(self._loop.time(), done, stepping_share=session.stepping_share)
            if said is not None:
                self._tell(ActorEvent("pace", said))

        watch = Watch(self._groups, self._hello.step_deadline_s, self._loop.time())
        conversation = Conversation(channel, session, self._crew, watch, self._tell, welcomed, ticked)
        counted = {"acknowledged_rows": self._acknowledged_rows, "resume_token": self._resume_token}
        hello = self._hello.model_copy(update=counted)
        try:
            return await conversation.run(hello, max(ANSWER_S, contact.remaining_s(self._loop.time())))
        finally:
            self._acknowledged_rows += session.acknowledged_rows
            self._transitions += session.acknowledged_rows
            self._step_bytes += session.step_bytes

    async def _read_token(self) -> Secret | None:
        return await asyncio.to_thread(self._token) if callable(self._token) else self._token


def _is_about_the_token(end: End) -> bool:
    return isinstance(end.error, RefusedError) and end.error.code == RefusalCode.RESUME_TOKEN


def _tokenless(url: str) -> AuthenticationError:
    words = f"{url} asks for a token, and there is none to show: give --token-file, or set AIOSEED_TOKEN"
    return AuthenticationError(words, url=url)


def _check_tls(url: str, transport: Transport, tls: ClientTls) -> None:
    """Refuse to look for a certificate where there is none: whoever wants one seen would send the token in clear.

    And a private key without its certificate, which nobody would be shown.
    """
    if tls != NO_TLS and url.partition(":")[0].lower() not in transport.secure_schemes:
        ways = " or ".join(f"{scheme}://" for scheme in sorted(transport.secure_schemes)) or "over another transport"
        raise UsageError(
            f"{url} has no TLS, so that no certificate would be looked at: dial {ways}, or give neither fingerprint nor"
            " certificate files"
        )
    if tls.key is not None and tls.certificate is None:
        raise UsageError("a private key is of no use without its certificate: give --tls-cert with --tls-key")


def _packs(compression: Compression, url: str, built: Sequence[Built]) -> float | None:
    """Return down to which share of its size a STEP must come to be packed, None where none is.

    On one machine a copy is cheaper, and below some size the messages' heads and the network's own are what travels.
    """
    if compression != "auto":
        return WORTH_ASKED if compression == "deflate" else None
    observation_bytes = min(sum(leaf.nbytes for leaf in group.message.columns.observation) for group in built)
    if observation_bytes < WORTH_PACKING_BYTES or url.startswith("memory:") or is_loopback(url):
        return None
    return WORTH_UNASKED


def _maker(make_env: MakeEnvironments | EnvironmentConfig) -> MakeEnvironments:
    if not isinstance(make_env, EnvironmentConfig):
        return make_env
    return lambda count: environment_plugin(make_env.plugin).make(make_env.name, make_env.options, count)


def _agreed(built: Sequence[Built]) -> Built:
    spec, metrics, _ = built[0]
    if any((other.spec, other.metrics) != (spec, metrics) for other in built):
        raise EnvironmentFailed("the environments of one actor have different spaces or metrics")
    return built[0]


def _retrying(url: str, contact: Contact, last: AioseedError | None) -> ActorEvent:
    patience = f"for up to {contact.patience_s:g} s"
    if isinstance(last, RefusedError):
        return ActorEvent("refused", f"{last}; asking again {patience}")
    if not contact.welcomed_once:
        return ActorEvent("waiting", f"waiting {patience} for the learner at {url} ({last})")
    return ActorEvent("lost", f"the learner was lost ({last}); looking for it {patience}")


def _given_up(url: str, contact: Contact, last: AioseedError | None) -> AioseedError:
    if isinstance(last, RefusedError):
        return last
    within = f"within {contact.patience_s:g} s"
    did = f"did not come back {within}" if contact.welcomed_once else f"did not answer {within}"
    error = ConnectError(f"the learner at {url} {did}" + (f" ({last})" if last is not None else ""), url=url)
    error.__cause__ = last
    return error


async def _close(workers: Sequence[Worker], tell: Callable[[ActorEvent], None]) -> None:
    for worker in workers:
        worker.stop()
    joins = [asyncio.ensure_future(worker.join()) for worker in workers]
    try:
        await asyncio.wait(joins, timeout=CLOSE_S)
    finally:
        for join in joins:
            join.cancel()
    for worker, result in zip(workers, await asyncio.gather(*joins, return_exceptions=True), strict=True):
        if isinstance(result, asyncio.CancelledError):
            tell(ActorEvent("error", f"the environments of group {worker.index} did not close and are left behind"))
        elif result is not None:
            tell(ActorEvent("error", f"the environments of group {worker.index} did not close cleanly: {result}"))


def _log(event: ActorEvent) -> None:
    level = logging.WARNING if event.kind in ("error", "rows_refused", "lost", "refused") else logging.INFO
    logger.log(level, "%s", event.message)
