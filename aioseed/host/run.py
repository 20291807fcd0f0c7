"""A run that lives: its threads, its reports, and the order in which it ends.

Order of an end, whatever its cause: actors are told, listeners close, inference finishes what it has, training stops
between two updates, what is left over is accounted for, the last checkpoint is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from aioseed.errors import AioseedError, TrainingFailed
from aioseed.host.config import RunConfig
from aioseed.host.events import Event, Finished, Progress, Trouble
from aioseed.host.listen import Listeners
from aioseed.host.lost import LostSteps
from aioseed.host.records import Records
from aioseed.host.rundir import OpenedRun
from aioseed.host.runtime import Runtime
from aioseed.host.statistics import Statistics, digest_of, progress_values
from aioseed.serving.server import Server, Serving
from aioseed.serving.thread import InferenceThread
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.ledger import Reason
from aioseed.telemetry.sinks import JsonLinesSink, MetricsSink
from aioseed.training.device import failure_said
from aioseed.training.executor import BackgroundExecutor
from aioseed.training.progress import TrainingReport, TrainingSummary
from aioseed.training.trees import subtree
from aioseed.training.writer import CheckpointWriter

log = logging.getLogger("aioseed.learner")

STOP_TIMEOUT_S = 60.0
"""Longest wait for a thread to end; what inference does by then (one batch) is far shorter. Training has as long as a
call of the update took so far beyond that: many passes over much may take minutes."""


class LiveRun:
    """Run a built runtime to its end (Thread: the event loop alone, but for `updated`)."""

    def __init__(
        self,
        config: RunConfig,
        opened: OpenedRun,
        runtime: Runtime,
        server: Server,
        listeners: Listeners,
        writer: CheckpointWriter,
        metrics: Metrics,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._config = config
        self._opened = opened
        self._runtime = runtime
        self._server = server
        self._listeners = listeners
        self._writer = writer
        self._metrics = metrics
        self._latest: TrainingReport | None = None
        self._before = runtime.ledger.snapshot()
        failed: asyncio.Future[None] = loop.create_future()
        self._failed = failed
        # Nothing of it holds the run: the memory of one that has ended is free at once, and not when cycles are sought.
        self.inference = InferenceThread(
            runtime.engine,
            lambda error: (loop.call_soon_threadsafe(_fail, failed, error), None)[1],
            follows=config.serving.inference_follows_loop,
            in_loop_s=config.serving.inference_in_loop_s,
        )

    def updated(self, report: TrainingReport) -> None:
        """Take the newest report of training. Thread: training."""
        self._latest = report

    async def run(self, stop: asyncio.Event, emit: Callable[[Event], None]) -> Finished:
        """Serve and train until the run is over or `stop` is set; end in order. Safe to cancel: it ends in order too.

        Raises:
            AioseedError: What ended it.
        """
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as cleanup:
            records = Records(await asyncio.to_thread(self._sinks, cleanup), self._metrics)
            began_s = loop.time()
            statistics = Statistics(self._config, self._runtime, self._metrics, began_s)
            if self._opened.restored is not None:
                # At the step of the checkpoint: the first line after it may be beyond the last one from before, and
                # nobody could tell that the run went back.
                await self._record(statistics.progress(began_s, None, 0), records, emit)
            # From here to the `try` nothing awaits: what is started is also ended.
            executor = self._start()
            training = loop.create_task(executor.result(), name="aioseed-training")
            side_tasks = [
                loop.create_task(self._server.watch(), name="aioseed-watch"),
                loop.create_task(self._report(statistics, records, emit), name="aioseed-report"),
                loop.create_task(_until(stop), name="aioseed-stop"),
                *self._listeners.watches,  # without them a token that is taken back would stay good in silence
            ]
            try:
                ends: set[asyncio.Future[Any]] = {training, self._failed, *side_tasks}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                wall_s = loop.time() - began_s
                executor.stop()
                digest = await self._end(executor, [training, *side_tasks])
                # The last line of the metrics is the end of the run, however short it was.
                await self._record(statistics.progress(loop.time(), self._latest, 0), records, emit)
        return self._finished(wall_s, digest)

    def _start(self) -> BackgroundExecutor[TrainingSummary]:
        """Start the threads and let actors in."""
        runtime = self._runtime
        self.inference.start()
        executor: BackgroundExecutor[TrainingSummary] = BackgroundExecutor()
        executor.start(runtime.loop)
        serving = Serving(runtime.contract, runtime.table, runtime.intake, self.inference.submit)
        if self._opened.restored is not None:
            serving = serving._replace(greeted=LostSteps(runtime.ledger).greeted)
        self._server.open(serving)
        return executor

    async def _end(self, executor: BackgroundExecutor[TrainingSummary], tasks: Sequence[asyncio.Task[Any]]) -> str:
        """End the rooms in order, save, and return the digest of the parameters; raise the first failure at the end."""
        runtime = self._runtime
        over = runtime.loop.is_over
        failures = await _cancel(tasks)
        await self._server.drain(run_over=over, reason="the run is over" if over else "the learner goes down")
        await self._listeners.close()
        runtime.assembler.stop()
        runtime.board.close()
        if not await asyncio.to_thread(self.inference.stop, STOP_TIMEOUT_S):
            failures.append(TrainingFailed(f"inference did not end within {STOP_TIMEOUT_S:g} s"))
        if self._failed.done() and (failure := self._failed.exception()) is not None:
            failures.insert(0, failure)
        self._failed.cancel()
        patience_s = STOP_TIMEOUT_S + runtime.loop.longest_call_s
        try:
            async with asyncio.timeout(patience_s):
                await executor.result()  # of the tasks nothing can be asked: a loop that is closed cancels them all
        except TimeoutError as error:
            raise TrainingFailed(f"training did not end within {patience_s:.0f} s") from error
        except AioseedError as error:
            if error not in failures:
                failures.append(error)
        digest = await self._save(failures)
        if failures:
            log.error("the run failed", exc_info=failures[0])
            raise _as_failure(failures[0])
        return digest

    async def _save(self, failures: list[BaseException]) -> str:
        """Save what was learned, whatever ended the run; what goes wrong joins the `failures`."""
        try:
            self._runtime.assembler.close(Reason.SHUTDOWN)
            snapshot = self._runtime.loop.snapshot()
            path = await asyncio.to_thread(self._writer.finish, snapshot)
        except Exception as error:  # of whatever kind: a device that failed under an update fails here again
            failures.append(error)
            return ""
        log.info("saved %s", path)
        return digest_of(subtree(snapshot.arrays, "learner/params"))

    async def _report(self, statistics: Statistics, records: Records, emit: Callable[[Event], None]) -> None:
        while True:
            await asyncio.sleep(self._config.telemetry.every_s)
            now_s = asyncio.get_running_loop().time()
            server = self._server
            progress = statistics.progress(now_s, self._latest, server.sessions, server.afar)
            emit(progress)
            await self._record(progress, records, emit)

    async def _record(self, progress: Progress, records: Records, emit: Callable[[Event], None]) -> None:
        values = {**self._metrics.snapshot(), **progress_values(progress)}
        folder = self._opened.directory.path
        late = Trouble(f"the disk of {folder} does not answer: figures, log and saves wait for it; training goes on")
        for trouble in await records.record(progress.trained_steps, values, lambda: emit(late)):
            log.warning("%s", trouble.message)
            emit(trouble)

    def _sinks(self, cleanup: contextlib.AsyncExitStack) -> list[MetricsSink]:
        folder = self._opened.directory.path
        sinks: list[MetricsSink] = [JsonLinesSink(folder / "metrics.jsonl")]
        if self._config.telemetry.tensorboard:
            from aioseed.telemetry.tensorboard import TensorBoardSink

            sinks.append(TensorBoardSink(folder / "tensorboard"))
        for sink in sinks:
            cleanup.push_async_callback(asyncio.to_thread, sink.close)
        return sinks

    def _finished(self, wall_s: float, digest: str) -> Finished:
        runtime, ledger = self._runtime, self._runtime.ledger.snapshot()
        over: Literal["total_steps", "stopped"] = "total_steps" if runtime.loop.is_over else "stopped"
        return Finished(
            reason="solved" if runtime.goal.solved else over,
            env_steps=ledger.accepted,
            trained_steps=ledger.trained,
            evaluated_steps=ledger.evaluated,
            dropped=dict(ledger.dropped),
            held_steps=ledger.on_the_way,
            replay_steps=ledger.replay,
            imbalance=ledger.imbalance,
            env_steps_per_s=(ledger.accepted - self._before.accepted) / max(wall_s, 1e-9),
            trained_steps_per_s=(ledger.trained - self._before.trained) / max(wall_s, 1e-9),
            return_mean_100=runtime.episodes.return_mean,
            wall_s=wall_s,
            run_dir=str(self._opened.directory.path),
            params_sha256=digest,
            return_episodes=runtime.episodes.window_count,
        )


def finished_before_training(run_dir: Path) -> Finished:
    """Return the report of a run that was stopped while it was still being built."""
    return Finished("stopped", 0, 0, 0, {}, 0, 0, 0, 0.0, 0.0, math.nan, 0.0, str(run_dir), "")


def _fail(failed: asyncio.Future[None], error: BaseException) -> None:
    if not failed.done():
        failed.set_exception(error)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> list[BaseException]:
    """Cancel `tasks`, wait for them, and return what had failed before."""
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [
        outcome
        for outcome in outcomes
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError)
    ]


def _as_failure(error: BaseException) -> AioseedError:
    if isinstance(error, AioseedError):
        return error
    failure = TrainingFailed(f"the learner failed: {failure_said(error)}")
    failure.__cause__ = error
    return failure
