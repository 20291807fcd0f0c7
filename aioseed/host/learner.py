"""The learner as a user meets it: enter it in any event loop, follow its events, leave it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from aioseed import __version__
from aioseed.actor.task import task_of
from aioseed.errors import AioseedError, CheckpointError, UsageError
from aioseed.host.accelerator import default_cache, prepare
from aioseed.host.config import RunConfig, load_config
from aioseed.host.events import Event, EventHub, Finished, Listening, Ready, Saved, Trouble
from aioseed.host.listen import PRIVATE, Listeners
from aioseed.host.probe import probe
from aioseed.host.run import LiveRun, finished_before_training
from aioseed.host.rundir import OpenedRun, Resume, discard, name_of_run, new_run_path, open_run
from aioseed.host.runtime import Hooks, Runtime, build_runtime
from aioseed.host.threads import in_own_thread
from aioseed.serving.handshake import Contract, check_fits
from aioseed.serving.server import RunFacts, Server
from aioseed.specs import Json
from aioseed.telemetry.counters import Metrics
from aioseed.training.writer import CheckpointReport, CheckpointWriter, checkpoint_thread
from aioseed.transport.allocator import give_back
from aioseed.transport.channel import Transport
from aioseed.transport.token import Secret
from aioseed.validation import validate

log = logging.getLogger("aioseed.learner")


class Learner:
    """Run a learner inside the caller's event loop.

    ::

        async with Learner("cartpole", listen=["ws://127.0.0.1:8700"]) as learner:
            async for event in learner.events():
                ...

    Entering returns as soon as actors can connect; they wait until everything is compiled. Leaving ends the run in
    order and saves. Safe to cancel at any point: the run then ends as on leaving. Any number of learners may live in a
    process, each is entered once. Thread: the event loop that entered it.

    Args:
        config: A `RunConfig`, the name of a preset, a path, or a mapping like a configuration file.
        listen: Addresses; port 0 takes a free one. None listens on loopback over WebSockets.
        run_dir: Where the run lives; None makes a new folder under ``runs/``.
        resume: ``never`` begins a run, ``auto`` goes on if there is one, ``require`` insists.
        token: What actors must show; None makes a random one for loopback listeners.
        token_file: File with tokens, read again when it changes; takes the place of `token`.
        transports: Transport instances to use instead of loaded ones, such as one `MemoryTransport`.

    Raises:
        UsageError: `listen` is one text instead of a list.
        ConfigError: The configuration is wrong.
    """

    def __init__(
        self,
        config: RunConfig | str | Path | Mapping[str, object],
        *,
        listen: Sequence[str] | None = None,
        run_dir: Path | str | None = None,
        resume: Resume = "never",
        token: Secret | str | None = None,
        token_file: Path | str | None = None,
        transports: Sequence[Transport] = (),
    ) -> None:
        if isinstance(listen, str):
            raise UsageError(f"listen is {listen!r}: expected a list of addresses")
        self.config = _as_config(config)
        self._listen = list(listen) if listen is not None else ["ws://127.0.0.1:0"]
        self._run_dir = Path(run_dir) if run_dir is not None else None
        self._resume: Resume = resume
        self._transports = list(transports)
        self._token = Secret(token) if isinstance(token, str) else token
        self._token_file = Path(token_file) if token_file is not None else None
        self._listeners: Listeners | None = None
        self._metrics = Metrics()
        self._hub = EventHub()
        self._stop: asyncio.Event | None = None
        self._task: asyncio.Task[Finished] | None = None
        self._live: LiveRun | None = None
        self._described: Json = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the addresses at which actors can connect."""
        return self._listeners.urls if self._listeners is not None else ()

    @property
    def token(self) -> Secret:
        """Return what actors must show; its text is `learner.token.reveal()`.

        Raises:
            AioseedError: The learner was not entered yet.
        """
        return self._listening().token

    @property
    def token_file(self) -> Path | None:
        """Return the file with the tokens that open this learner, None if there is none that the user has to know."""
        return self._listeners.token_file if self._listeners is not None else None

    @property
    def made_token(self) -> bool:
        """Say whether the token file was made by this learner, so that the user has to be told of it."""
        return self.token_file is not None and self._token_file is None

    @property
    def fingerprint(self) -> str | None:
        """Return the SHA-256 of the self-signed certificate, by which actors know this learner; else None."""
        return self._listeners.fingerprint if self._listeners is not None else None

    @property
    def run_dir(self) -> Path:
        """Return the run directory.

        Raises:
            AioseedError: The learner was not entered yet.
        """
        if self._run_dir is None:
            raise AioseedError("enter the learner first: async with learner")
        return self._run_dir

    async def __aenter__(self) -> Learner:
        """Open the run directory and listen.

        Raises:
            UsageError: It was entered before.
            AioseedError: The directory, the configuration or an address cannot be used.
        """
        if self._stop is not None:  # a run that goes on would listen to another event than `stop` sets
            raise UsageError("a learner is entered once: make another one, which may resume the same run")
        loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if self._run_dir is None:
            self._run_dir = await asyncio.to_thread(
                new_run_path, self.config.environment.name.replace("/", "-").replace(":", "-")
            )
        # No task: those are cancelled, all at once, when a loop is closed.
        opening = loop.run_in_executor(None, open_run, self._run_dir, self.config, self._resume)
        if (cancelled := await _until_done(opening)) is not None:
            if opening.exception() is None:
                await _until_done(loop.run_in_executor(None, _close, opening.result(), False))
            raise cancelled
        opened = opening.result()
        if opened.changes:
            log.info("%s", opened.changes)
        self._listeners = Listeners(
            self.config.transport,
            self._run_dir / PRIVATE,
            self._metrics,
            token=self._token,
            token_file=self._token_file,
        )
        server = Server(self.config.serving, self._facts(opened), self._metrics)
        try:
            await self._listeners.open(self._listen, server.handle, self._transports)
        except BaseException:
            await _until_done(loop.create_task(self._give_up(opened), name="aioseed-giving-up"))
            raise
        self._hub.emit(Listening(self.urls))
        self._task = loop.create_task(self._run(opened, server, self._stop), name="aioseed-learner")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run in order, also if this is cancelled: the cancellation is raised when the run has ended.

        Raises what ended the run, unless another exception is on its way.
        """
        self.stop()
        run = self._entered()
        cancelled = await _until_done(run)
        giving_back = asyncio.get_running_loop().run_in_executor(None, give_back)
        cancelled = await _until_done(giving_back) or cancelled
        try:
            run.result()
        except AioseedError:
            if error is None and cancelled is None:
                raise
            log.exception("the learner failed while another error was on its way")
        if cancelled is not None:
            raise cancelled

    def stop(self) -> None:
        """Ask the run to end: it saves and finishes. Returns at once. Idempotent."""
        if self._stop is not None:
            self._stop.set()

    async def wait(self) -> Finished:
        """Wait for the end of the run. Safe to cancel: the run goes on. Several may wait.

        Raises:
            AioseedError: What ended it.
        """
        return await asyncio.shield(self._entered())

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens, from the beginning of the run to `Finished`.

        A consumer that does not keep up loses `Progress` events, never others. Safe to cancel; several may listen.

        Raises:
            AioseedError: What ended the run.
        """
        async for event in self._hub.follow(self._entered()):
            yield event
        await self._entered()

    def _entered(self) -> asyncio.Task[Finished]:
        if self._task is None:
            raise AioseedError("enter the learner first: async with learner")
        return self._task

    async def _run(self, opened: OpenedRun, server: Server, stop: asyncio.Event) -> Finished:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        executor = checkpoint_thread()

        def saved(report: CheckpointReport) -> None:
            event = Saved(report.step, str(report.path)) if report.path is not None else Trouble(str(report.error))
            loop.call_soon_threadsafe(self._hub.emit, event)

        writer = CheckpointWriter(opened.store, opened.generation, executor, self._metrics, saved)
        try:
            runtime = await _unless(stop, self._build(opened, server, writer))
            if runtime is None:
                finished = finished_before_training(self.run_dir)
            else:
                notes = (*([opened.changes] if opened.changes else []), *runtime.notes)
                self._hub.emit(Ready(loop.time() - began_s, notes))
                listeners = self._listening()
                self._live = LiveRun(self.config, opened, runtime, server, listeners, writer, self._metrics)
                finished = await self._live.run(stop, self._hub.emit)
            self._hub.emit(finished)
            return finished
        finally:
            # After an orderly end nothing is left to do here; after a failed start the actors must not wait in vain.
            await server.drain(run_over=False, reason="the learner goes down")
            await self._listening().close()
            await asyncio.to_thread(executor.shutdown)
            server.close()
            began, self._live = self._live is not None, None  # and with it the memory of the run
            await asyncio.to_thread(_close, opened, began)

    async def _give_up(self, opened: OpenedRun) -> None:
        """Let go of what was opened, since not everything could be."""
        try:
            await self._listening().close()
        finally:
            await asyncio.to_thread(_close, opened, False)

    async def _build(self, opened: OpenedRun, server: Server, writer: CheckpointWriter) -> Runtime:
        described = await probe(self.config.environment)
        self._described = described.to_json()
        contract = Contract(
            described.spec,
            task_of(self.config.environment.name, described.task),
            described.metrics,
            frozenset({"train", "evaluate"}),
            self.config.serving.allow_mixed_environments,
        )
        check_fits(contract, self.config.transport.max_message_bytes)
        hooks = Hooks(
            submit=lambda batch: self._now_live().inference.submit(batch),
            expel=server.expel_from,
            answer=server.answer_from,
            episodes=lambda episodes: None,
            updated=lambda report: self._now_live().updated(report),
            save=writer.submit,
            run_state=lambda: {"config": opened.config.model_dump(mode="json"), "environment": self._described},
        )

        def build() -> Runtime:
            prepare(default_cache(), described.spec.observation)
            try:
                return build_runtime(self.config, contract, opened.generation, opened.restored, self._metrics, hooks)
            except CheckpointError as error:
                if not opened.changes:
                    raise
                # An array's name says little: what was configured otherwise is why it does not fit.
                raise CheckpointError(f"{error}; {opened.changes}", path=error.path) from error

        return await in_own_thread("aioseed-build", build)

    def _listening(self) -> Listeners:
        if self._listeners is None:
            raise AioseedError("enter the learner first: async with learner")
        return self._listeners

    def _now_live(self) -> LiveRun:
        if self._live is None:
            raise AioseedError("nothing is served before the run lives")
        return self._live

    def _facts(self, opened: OpenedRun) -> RunFacts:
        lockstep = self.config.local_environments if self.config.mode == "lockstep" else 0
        return RunFacts(
            run_id=name_of_run(opened.directory.path),
            library=f"aioseed {__version__}",
            seed=self.config.seed,
            lockstep_environments=lockstep,
            max_message_bytes=self.config.transport.max_message_bytes,
        )


async def _until_done(task: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for the end of `task`, which goes on if the waiter is cancelled; return that cancellation."""
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def _unless(stop: asyncio.Event, building: Coroutine[Any, Any, Runtime]) -> Runtime | None:
    """Return what `building` builds, or None if `stop` is set first."""
    build = asyncio.ensure_future(building)
    stopping = asyncio.ensure_future(stop.wait())
    ends: set[asyncio.Future[Any]] = {build, stopping}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return build.result() if build.done() else None
    finally:
        build.cancel()
        stopping.cancel()
        await asyncio.gather(build, stopping, return_exceptions=True)


def _close(opened: OpenedRun, began: bool) -> None:
    if not began:
        discard(opened)
    opened.directory.close()


def _as_config(config: RunConfig | str | Path | Mapping[str, object]) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, Mapping):
        return validate(RunConfig, config, "")
    return load_config(config)
