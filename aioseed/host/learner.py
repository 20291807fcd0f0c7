"""The learner: opens a run, serves actors, trains, saves, and ends in a fixed order.

Order of an end, whatever its cause: actors are told, listeners close, inference finishes what it has, training stops
between two updates, the last checkpoint is written, what is left over is accounted for, the run directory is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from aioseed import __version__
from aioseed.errors import AioseedError, TrainingFailed
from aioseed.host.accelerator import default_cache, prepare
from aioseed.host.config import RunConfig, load_config
from aioseed.host.events import Event, Finished, Listening, Progress, Ready, Saved, Trouble
from aioseed.host.listen import Listeners
from aioseed.host.probe import probe
from aioseed.host.rundir import OpenedRun, Resume, new_run_path, open_run
from aioseed.host.runtime import Hooks, Runtime, build_runtime
from aioseed.host.statistics import Statistics
from aioseed.serving.handshake import Contract
from aioseed.serving.inference import InferenceThread
from aioseed.serving.intake import ClosedBatch
from aioseed.serving.server import RunFacts, Server, Serving
from aioseed.specs import Json
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Reason
from aioseed.telemetry.sinks import JsonLinesSink, MetricsSink
from aioseed.training.executor import BackgroundExecutor
from aioseed.training.progress import TrainingReport, TrainingSummary
from aioseed.training.trees import subtree
from aioseed.training.writer import CheckpointReport, CheckpointWriter, checkpoint_thread
from aioseed.transport.channel import Transport
from aioseed.validation import validate
from aioseed.wire.messages import Task

log = logging.getLogger("aioseed.learner")

STOP_TIMEOUT_S = 60.0
_EVENTS_KEPT = 256


class Learner:
    """Run a learner inside the caller's event loop.

    ::

        async with Learner("cartpole", listen=["ws://127.0.0.1:8700"]) as learner:
            async for event in learner.events():
                ...

    Entering returns as soon as actors can connect; they wait until everything is compiled. Leaving ends the run in
    order and saves. Safe to cancel at any point: the run then ends as on leaving. One event loop, one learner, any
    number of them a process. Thread: the event loop that entered it.

    Args:
        config: A `RunConfig`, the name of a preset, a path, or a mapping like a configuration file.
        listen: Addresses; port 0 takes a free one. None listens on loopback by the configured transport.
        run_dir: Where the run lives; None makes a new folder under ``runs/``.
        resume: ``never`` begins a run, ``auto`` goes on if there is one, ``require`` insists.
        token: What actors must show; None makes a random one for loopback listeners.
        transports: Transport instances to use instead of loaded ones, such as one `MemoryTransport`.
    """

    def __init__(
        self,
        config: RunConfig | str | Path | Mapping[str, object],
        *,
        listen: Sequence[str] | None = None,
        run_dir: Path | str | None = None,
        resume: Resume = "never",
        token: str | None = None,
        transports: Sequence[Transport] = (),
    ) -> None:
        self.config = _as_config(config)
        self._listen = list(listen) if listen is not None else ["ws://127.0.0.1:0"]
        self._run_dir = Path(run_dir) if run_dir is not None else None
        self._resume: Resume = resume
        self._transports = list(transports)
        self._listeners = Listeners(token, self.config.transport.max_message_bytes)
        self._metrics = Metrics()
        self._stop = asyncio.Event()
        self._subscribers: list[asyncio.Queue[Event]] = []
        self._task: asyncio.Task[Finished] | None = None
        self._latest: TrainingReport | None = None
        self._progress: Progress | None = None
        self._history: list[Event] = []
        self._described: Json = None

    # -- what a user calls
    # -----------------------------------------------------------------------------------------------

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the addresses at which actors can connect."""
        return self._listeners.urls

    @property
    def token(self) -> str:
        """Return what actors must show."""
        return self._listeners.token

    @property
    def run_dir(self) -> Path:
        """Return the run directory."""
        if self._run_dir is None:
            raise AioseedError("the learner was not entered yet")
        return self._run_dir

    async def __aenter__(self) -> Learner:
        """Open the run directory and listen.

        Raises:
            AioseedError: The directory, the configuration or an address cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        if self._run_dir is None:
            self._run_dir = new_run_path(self.config.environment.name.replace("/", "-").replace(":", "-"))
        opened = await asyncio.to_thread(open_run, self._run_dir, self.config, self._resume)
        self._server = Server(self.config.serving, self._facts(opened), self._metrics)
        try:
            await self._listeners.open(self._listen, self._server.handle, self._transports)
        except BaseException:
            await self._listeners.close()
            opened.directory.close()
            raise
        self._task = self._loop.create_task(self._run(opened), name="aioseed-learner")
        self._emit(Listening(self.urls))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run in order. Raises what ended it, unless another exception is on its way."""
        self.stop()
        assert self._task is not None
        try:
            await self._task
        except AioseedError:
            if error is None:
                raise
            log.exception("the learner failed while another error was on its way")

    def stop(self) -> None:
        """Ask the run to end: it saves and finishes. Returns at once. Idempotent."""
        self._stop.set()

    async def wait(self) -> Finished:
        """Wait for the end of the run. Safe to cancel: the run goes on.

        Raises:
            AioseedError: What ended it.
        """
        assert self._task is not None
        return await asyncio.shield(self._task)

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens, from the beginning of the run to `Finished`.

        A consumer that does not keep up loses `Progress` events, never others. Safe to cancel; several may listen.

        Raises:
            AioseedError: What ended the run.
        """
        assert self._task is not None
        mine: asyncio.Queue[Event] = asyncio.Queue()
        for event in self._history:
            mine.put_nowait(event)
        self._subscribers.append(mine)
        try:
            while not (self._task.done() and mine.empty()):
                getter = asyncio.ensure_future(mine.get())
                await asyncio.wait({getter, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if getter.done():
                    yield getter.result()
                else:
                    getter.cancel()
            await self._task
        finally:
            self._subscribers.remove(mine)

    # -- the run
    # -----------------------------------------------------------------------------------------------------------

    async def _run(self, opened: OpenedRun) -> Finished:
        began_s = self._loop.time()
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.callback(opened.directory.close)
            cleanup.push_async_callback(self._listeners.close)
            writer = self._writer(opened, cleanup)
            runtime = await self._unless_stopped(self._build(opened, writer))
            if runtime is None:
                await self._server.drain(run_over=False, reason="the learner was stopped")
                return self._finish(None, "stopped", 0.0, {})
            self._emit(Ready(self._loop.time() - began_s))
            return await self._train(opened, runtime, writer, cleanup)

    async def _build(self, opened: OpenedRun, writer: CheckpointWriter) -> Runtime:
        contract = await self._contract()
        await asyncio.to_thread(prepare, default_cache())
        hooks = Hooks(
            submit=self._submit,
            answer=self._server.answer_from,
            episodes=lambda episodes: None,
            updated=self._updated,
            save=writer.submit,
            run_state=self._run_state,
        )
        return await asyncio.to_thread(
            build_runtime, self.config, contract, opened.generation, opened.restored, self._metrics, hooks
        )

    async def _contract(self) -> Contract:
        described = await probe(self.config.environment)
        self._described = described.to_json()
        return Contract(
            described.spec,
            Task(name=self.config.environment.name, config=described.task),
            described.metrics,
            frozenset({"train", "evaluate"}),
            self.config.serving.allow_mixed_environments,
        )

    async def _train(
        self, opened: OpenedRun, runtime: Runtime, writer: CheckpointWriter, cleanup: contextlib.AsyncExitStack
    ) -> Finished:
        failed: asyncio.Future[None] = self._loop.create_future()

        def inference_failed(error: BaseException) -> None:
            self._loop.call_soon_threadsafe(_fail, failed, error)

        self._inference = InferenceThread(runtime.engine, inference_failed)
        self._inference.start()
        executor: BackgroundExecutor[TrainingSummary] = BackgroundExecutor()
        executor.start(_TrainingJob(runtime))
        self._server.open(Serving(runtime.contract, runtime.table, runtime.intake, self._inference.submit))
        sink = self._sinks(opened, cleanup)
        statistics = Statistics(self.config, runtime, self._metrics, self._loop.time())
        began_s = self._loop.time()
        side_tasks: list[asyncio.Task[None]] = [
            self._loop.create_task(self._server.watch(), name="aioseed-watch"),
            self._loop.create_task(self._report(statistics, sink), name="aioseed-report"),
        ]
        training = self._loop.create_task(executor.result(), name="aioseed-training")
        stopping = self._loop.create_task(self._stop.wait(), name="aioseed-stop")
        try:
            ends: set[asyncio.Future[Any]] = {training, failed, stopping, *side_tasks}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            wall_s = self._loop.time() - began_s
        finally:
            executor.stop()
            ended = await self._end(runtime, training, failed, [stopping, *side_tasks], writer)
        self._progress = statistics.progress(self._loop.time(), self._latest, self._server.sessions)
        reason = "solved" if runtime.source.solved else "total_steps" if training_over(runtime) else "stopped"
        return self._finish(runtime, reason, wall_s, ended)

    async def _end(
        self,
        runtime: Runtime,
        training: asyncio.Task[TrainingSummary],
        failed: asyncio.Future[None],
        side_tasks: Sequence[asyncio.Task[None] | asyncio.Task[Literal[True]]],
        writer: CheckpointWriter,
    ) -> dict[str, str]:
        """End the rooms in order; raise the first failure once all of them have ended."""
        over = runtime.source.solved or training_over(runtime)
        failure: BaseException | None = None
        for task in side_tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                failure = task.exception()
            task.cancel()
        await asyncio.gather(*side_tasks, return_exceptions=True)
        await self._server.drain(run_over=over, reason="the run is over" if over else "the learner goes down")
        await self._listeners.close()
        runtime.assembler.stop()
        runtime.board.close()
        if not await asyncio.to_thread(self._inference.stop, STOP_TIMEOUT_S):
            failure = failure or TrainingFailed(f"inference did not end within {STOP_TIMEOUT_S:g} s")
        if failed.done():
            failure = failed.exception()
        failed.cancel()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await training
        except (AioseedError, TimeoutError) as error:
            failure = failure or error
        digest: dict[str, str] = {}
        if failure is None:
            runtime.assembler.close(Reason.SHUTDOWN)
            snapshot = runtime.loop.snapshot()
            digest["params_sha256"] = digest_of(subtree(snapshot.arrays, "learner/params"))
            path = await asyncio.to_thread(writer.finish, snapshot, STOP_TIMEOUT_S)
            log.info("saved %s", path)
        else:
            raise _as_failure(failure)
        return digest

    async def _report(self, statistics: Statistics, sink: Sequence[MetricsSink]) -> None:
        while True:
            await asyncio.sleep(self.config.telemetry.every_s)
            progress = statistics.progress(self._loop.time(), self._latest, self._server.sessions)
            self._progress = progress
            self._emit(progress)
            values = {**self._metrics.snapshot(), **progress_values(progress)}
            for each in sink:
                each.write(progress.trained_steps, values)

    # -- pieces
    # --------------------------------------------------------------------------------------------------------------

    def _facts(self, opened: OpenedRun) -> RunFacts:
        lockstep = self.config.local_environments if self.config.mode == "lockstep" else 0
        return RunFacts(
            run_id=opened.directory.path.name,
            library=f"aioseed {__version__}",
            seed=self.config.seed,
            lockstep_environments=lockstep,
            max_message_bytes=self.config.transport.max_message_bytes,
        )

    def _writer(self, opened: OpenedRun, cleanup: contextlib.AsyncExitStack) -> CheckpointWriter:
        executor = checkpoint_thread()
        cleanup.callback(executor.shutdown)

        def report(done: CheckpointReport) -> None:
            event = Saved(done.step, str(done.path)) if done.path is not None else Trouble(str(done.error))
            self._loop.call_soon_threadsafe(self._emit, event)

        return CheckpointWriter(opened.store, opened.generation, executor, self._metrics, report)

    def _sinks(self, opened: OpenedRun, cleanup: contextlib.AsyncExitStack) -> list[MetricsSink]:
        sinks: list[MetricsSink] = [JsonLinesSink(opened.directory.path / "metrics.jsonl")]
        if self.config.telemetry.tensorboard:
            from aioseed.telemetry.tensorboard import TensorBoardSink

            sinks.append(TensorBoardSink(opened.directory.path / "tensorboard"))
        for sink in sinks:
            cleanup.callback(sink.close)
        return sinks

    async def _unless_stopped(self, building: asyncio.Future[Runtime] | object) -> Runtime | None:
        """Return what `building` builds, or None if the run is stopped first."""
        build: asyncio.Task[Runtime] = self._loop.create_task(building)  # type: ignore[arg-type]
        stopping = self._loop.create_task(self._stop.wait())
        try:
            await asyncio.wait({build, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return build.result() if build.done() else None
        finally:
            stopping.cancel()
            if not build.done():
                build.cancel()
            await asyncio.gather(build, stopping, return_exceptions=True)

    def _submit(self, batch: ClosedBatch) -> None:
        self._inference.submit(batch)

    def _updated(self, report: TrainingReport) -> None:
        self._latest = report

    def _run_state(self) -> dict[str, Json]:
        return {"seed": self.config.seed, "environment": self._described}

    def _emit(self, event: Event) -> None:
        if isinstance(event, Progress):
            if self._history and isinstance(self._history[-1], Progress):
                self._history.pop()
        self._history.append(event)
        for queue in self._subscribers:
            if not (isinstance(event, Progress) and queue.qsize() > _EVENTS_KEPT):
                queue.put_nowait(event)

    def _finish(self, runtime: Runtime | None, reason: str, wall_s: float, ended: Mapping[str, str]) -> Finished:
        ledger = runtime.ledger.snapshot() if runtime is not None else None
        finished = Finished(
            reason=reason,
            env_steps=ledger.accepted if ledger else 0,
            trained_steps=ledger.consumed if ledger else 0,
            dropped=dict(ledger.dropped) if ledger else {},
            held_steps=ledger.held if ledger else 0,
            imbalance=ledger.imbalance if ledger else 0,
            return_mean_100=runtime.episodes.return_mean if runtime is not None else float("nan"),
            solved=runtime.source.solved if runtime is not None else False,
            wall_s=wall_s,
            run_dir=str(self.run_dir),
            params_sha256=ended.get("params_sha256", ""),
        )
        self._emit(finished)
        return finished


class _TrainingJob:
    """Run the loop so that the run's own goal ends it (a `Job` of the background executor)."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run(self, stop: threading.Event) -> TrainingSummary:
        """Train until `stop` or until the goal is reached."""
        self._runtime.source.end_with(stop)
        return self._runtime.loop.run(stop)

    def step(self, timeout_s: float) -> bool:
        """Make one call of the update."""
        return self._runtime.loop.step(timeout_s)

    def finish(self) -> TrainingSummary:
        """End after the last step."""
        return self._runtime.loop.finish()


def training_over(runtime: Runtime) -> bool:
    """Return True when `training.total_steps` were taken."""
    return runtime.loop.reached_total_steps


def digest_of(arrays: Mapping[str, object]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of named arrays, in the order of their names."""
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def progress_values(progress: Progress) -> dict[str, float]:
    """Return the numbers of a report under the names that sinks write."""
    values = {
        "run/env_steps": float(progress.env_steps),
        "run/env_steps_per_s": progress.env_steps_per_s,
        "run/trained_steps_per_s": progress.trained_steps_per_s,
        "run/return_mean": progress.return_mean,
        "run/episodes": float(progress.episodes),
        "run/environments": float(progress.environments),
        "run/policy_version": float(progress.policy_version),
        "ledger/accepted": float(progress.env_steps),
        "ledger/consumed": float(progress.trained_steps),
        "ledger/evaluated": float(progress.evaluated_steps),
        "ledger/held": float(progress.held_steps),
        "ledger/lost_after_checkpoint": float(progress.lost_after_checkpoint),
    }
    values.update({f"ledger/dropped_{reason}": float(count) for reason, count in progress.dropped.items()})
    values.update(progress.metrics)
    return values


def _fail(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _as_failure(error: BaseException) -> BaseException:
    if isinstance(error, AioseedError):
        return error
    failure = TrainingFailed(f"the learner failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _as_config(config: RunConfig | str | Path | Mapping[str, object]) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    if isinstance(config, Mapping):
        return validate(RunConfig, config, "")
    return load_config(config)
