"""Measure a policy: so many episodes, each dealt to an environment before it begins.

The first 100 episodes to *finish* are the short ones (a true mean of 275 reads 75 with 100 environments). Here an
episode counts from the moment it begins, however long it takes: the first `episodes` to begin are measured, all of them
to their end. One that its environment did not bring to an end (it was lost, or broke and was built anew) is no
measurement of the policy: another is dealt in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from aioseed import __version__
from aioseed.actor.task import task_of
from aioseed.errors import AioseedError, EnvironmentFailed, TrainingFailed
from aioseed.experience.layout import aligned_zeros
from aioseed.host.accelerator import default_cache, prepare
from aioseed.host.acting import acting_of
from aioseed.host.actors import LocalActors
from aioseed.host.config import RunConfig
from aioseed.host.events import Trouble
from aioseed.host.listen import PRIVATE, Listeners
from aioseed.host.rundir import name_of_run
from aioseed.host.saved import SavedRun, load_run, with_changes
from aioseed.host.threads import in_own_thread
from aioseed.serving.handshake import Contract
from aioseed.serving.inference import EngineOptions, InferenceEngine, action_table
from aioseed.serving.intake import ClosedBatch, Intake
from aioseed.serving.rule import Limits
from aioseed.serving.server import RunFacts, Server, Serving
from aioseed.serving.slots import SlotTable
from aioseed.serving.thread import InferenceThread
from aioseed.telemetry.counters import Metrics
from aioseed.telemetry.returns import EpisodeTracker
from aioseed.training.device import devices_may_fail, failure_said
from aioseed.transport.token import Secret
from aioseed.types import FIRST, ActColumns, BeginsState, Episodes, Loan, Policy, StepColumns
from aioseed.wire.columns import ActionLayout, StepLayout

NOBODY_S = 5.0
"""How long no environment is leased before that is told: actors of another machine end where nobody here sees it."""


TELL_EVERY_S = 30.0
"""How often it is told how far an evaluation is: an episode may take hours, or never end."""


class EvaluationProgress(NamedTuple):
    """Tell how far an evaluation is."""

    ended: int
    episodes: int  # that are to end
    longest_steps: int  # so far, of those that are measured and go on


class Evaluation(NamedTuple):
    """Report an evaluation."""

    return_mean: float
    return_std: float
    episodes: int
    length_mean_steps: float
    policy_version: int


class EpisodeDealer:
    """Deal episodes to environments as they begin and collect those that were dealt (implements `UnrollSink`).

    Thread: the inference thread alone.

    Args:
        episodes: How many to deal.
        capacity: Number of slots.
        done: Called once, when as many have ended.
    """

    def __init__(self, episodes: int, capacity: int, tracker: EpisodeTracker, done: Callable[[], None]) -> None:
        self.returns: list[float] = []
        self.lengths_steps: list[int] = []
        self._wanted = episodes
        self._left = episodes
        self._dealt = np.zeros(capacity + 1, bool)
        self._tracker = tracker
        self._done = done

    def append(self, steps: StepColumns, acts: ActColumns, count: int, begins_state: BeginsState, loan: Loan) -> None:
        """Collect the dealt episodes that end with these rows, then deal to those that begin."""
        begun = steps.slot[:count][(steps.flags[:count] & FIRST) != 0]
        # Dealt and not ended, yet it begins: the environment was built anew. What the tracker reports of it is cut off.
        self._take_back(begun)
        ended = self._tracker.append(steps, count)
        if ended.slot.size:
            self._collect(ended)
        begin = begun[: self._left]
        self._dealt[begin] = True
        self._left -= int(begin.size)
        loan.release()

    def begin(self, slots: np.ndarray, *, evaluation: bool) -> None:
        """Note newly leased slots."""
        self._tracker.begin(slots, evaluation=evaluation)

    def drop(self, slots: np.ndarray, reason: str, arrived: int = 0) -> None:
        """Take the episodes of environments that were lost back, to be dealt again."""
        self._take_back(slots)

    def has_room(self, slots: np.ndarray) -> bool:
        """Return True: nothing is kept here."""
        return True

    def progress(self) -> EvaluationProgress:
        """Return how far it is. Thread: any; the figures may be a batch old."""
        ended = min(len(self.returns), self._wanted)
        return EvaluationProgress(ended, self._wanted, self._tracker.longest_steps(self._dealt))

    @property
    def batches_finished(self) -> int:
        """Return 0: nothing is trained here."""
        return 0

    def _take_back(self, slots: np.ndarray) -> None:
        self._left += int(np.count_nonzero(self._dealt[slots]))
        self._dealt[slots] = False

    def _collect(self, ended: Episodes) -> None:
        if len(self.returns) >= self._wanted:
            return
        mine = self._dealt[ended.slot]
        self.returns += ended.episode_return[mine].tolist()
        self.lengths_steps += ended.length_steps[mine].tolist()
        self._dealt[ended.slot[mine]] = False
        if len(self.returns) >= self._wanted:
            self._done()


class FixedPolicy:
    """Offer one policy for ever (implements `PolicySource`)."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def current(self) -> Policy:
        """Return the policy."""
        return self._policy

    def wait_for(self, version: int, timeout_s: float) -> bool:
        """Return at once: no later version will come."""
        return self._policy.version >= version


async def evaluate(
    path: Path,
    *,
    episodes: int,
    greedy: bool = False,
    listen: Sequence[str] = (),
    token: Secret | None = None,
    token_file: Path | None = None,
    overrides: Sequence[str] = (),
    on_listening: Callable[[Listeners], None] = lambda listeners: None,
    on_trouble: Callable[[Trouble], None] = lambda trouble: None,
    on_progress: Callable[[EvaluationProgress], None] = lambda progress: None,
) -> Evaluation:
    """Evaluate the newest sound checkpoint of the run in `path`, or the checkpoint that `path` is.

    Safe to cancel: actors are told and processes ended.

    Args:
        path: The run directory, or a checkpoint in it; the run may be going on.
        episodes: How many to measure.
        greedy: Take the likeliest action instead of sampling.
        listen: Addresses for remote actors in the role evaluate; without any, local actor processes step.
        token: What remote actors must show; None makes a random one for loopback listeners.
        token_file: File with tokens, which takes the place of `token`.
        overrides: Changes of the run's configuration, such as ``environment.options.max_episode_steps=10000``; what
            belongs to the policy cannot change.
        on_listening: Told where and how actors may join, once they may.
        on_trouble: Told what the evaluation survived.
        on_progress: Told every half a minute how far it is.

    Raises:
        AioseedError: There is no sound checkpoint, an override or an address cannot be used, or the environments fail.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        loop.call_soon_threadsafe(_end, outcome, None)

    def failed(error: BaseException) -> None:
        loop.call_soon_threadsafe(_end, outcome, error)

    run = await in_own_thread("aioseed-build", lambda: _load(path))
    if overrides:
        run = await with_changes(run, overrides)
    limit_bytes = run.config.transport.max_message_bytes
    facts = RunFacts(name_of_run(run.run_dir), f"aioseed {__version__}", run.config.seed, 0, limit_bytes)
    metrics = Metrics()
    server = Server(run.config.serving, facts, metrics)
    slots = run.config.serving.max_environments
    dealer = EpisodeDealer(episodes, slots, EpisodeTracker(slots, run.described.metrics), done)
    thread, serving = await in_own_thread("aioseed-build", lambda: _serving(run, dealer, server, failed, greedy))
    listeners = Listeners(run.config.transport, run.run_dir / PRIVATE, metrics, token=token, token_file=token_file)
    watch = loop.create_task(server.watch())
    telling = loop.create_task(tell_how_far(dealer, on_progress))
    thread.start()
    server.open(serving)
    try:
        await listeners.open(listen or ["ws://127.0.0.1:0"], server.handle, ())
        on_listening(listeners)
        actors = None if listen else _local_actors(run.config, listeners, episodes, on_trouble)
        stepping = actors.run() if actors is not None else tell_of_nobody(server, on_trouble)
        await _until_done(outcome, (watch, telling, *listeners.watches), stepping)
    finally:
        watch.cancel()
        telling.cancel()
        if not outcome.cancel() and not outcome.cancelled():
            outcome.exception()  # seen: another failure may have come first
        await server.drain(run_over=True, reason="the evaluation is over")
        await listeners.close()
        await asyncio.to_thread(thread.stop, 10.0)
        server.close()
    return _result(dealer, episodes, run.version)


@devices_may_fail("the policy cannot be loaded")
def _load(path: Path) -> SavedRun:
    prepare(default_cache())
    return load_run(path)


def _result(dealer: EpisodeDealer, episodes: int, version: int) -> Evaluation:
    returns, lengths = np.array(dealer.returns[:episodes]), np.array(dealer.lengths_steps[:episodes])
    return Evaluation(float(returns.mean()), float(returns.std()), int(returns.size), float(lengths.mean()), version)


@devices_may_fail("the policy cannot be compiled")
def _serving(
    run: SavedRun, dealer: EpisodeDealer, server: Server, failed: Callable[[BaseException], None], greedy: bool
) -> tuple[InferenceThread, Serving]:
    """Build and compile. Thread: one of its own."""
    config, spec = run.config.serving, run.built.spec
    table = SlotTable(config.max_environments, 1)
    steps = StepLayout(spec.observation, len(run.described.metrics))
    actions = action_table(config.max_environments, spec.action.array)
    limits = Limits(config.max_batch_rows, config.max_batches_in_flight, config.batch_deadline_s)

    def submit(batch: ClosedBatch) -> None:
        thread.submit(batch)

    intake = Intake(steps, ActionLayout(spec.action), table, actions, limits, submit, aligned_zeros)
    engine = InferenceEngine(
        acting_of(run.built, greedy="always" if greedy else "never"),
        spec.action.array,
        steps,
        FixedPolicy(Policy(run.version, run.params)),
        actions,
        dealer,
        server.expel_from,
        server.answer_from,
        EngineOptions(config.max_environments, config.bucket_sizes(), run.config.seed),
        jax.devices()[0],
    )
    engine.compile()
    thread = InferenceThread(engine, failed, in_loop_s=config.inference_in_loop_s)
    task = task_of(run.config.environment.name, run.described.task)
    contract = Contract(spec, task, run.described.metrics, frozenset({"evaluate"}), config.allow_mixed_environments)
    return thread, Serving(contract, table, intake, thread.submit)


def _local_actors(
    config: RunConfig, listeners: Listeners, episodes: int, on_trouble: Callable[[Trouble], None]
) -> LocalActors:
    environments = config.actor.groups * config.actor.envs_per_group
    processes = max(1, min(config.actor.processes, episodes // environments))
    fewer = config.model_copy(update={"actor": config.actor.model_copy(update={"processes": processes})})
    return LocalActors(fewer, listeners.urls[0], listeners.token, on_trouble, "evaluate")


async def tell_of_nobody(server: Server, on_trouble: Callable[[Trouble], None]) -> None:
    """Say, each time once, that no actor is there to step. Goes on until it is cancelled."""
    told, there = False, True
    while True:
        await asyncio.sleep(NOBODY_S)
        was_there, there = there, server.environments > 0
        if not (told or there or was_there):
            on_trouble(Trouble("no environment is connected; the evaluation waits for actors in the role evaluate"))
        told = not (there or was_there)


async def tell_how_far(dealer: EpisodeDealer, on_progress: Callable[[EvaluationProgress], None]) -> None:
    """Say now and then how far the evaluation is. Goes on until it is cancelled."""
    while True:
        await asyncio.sleep(TELL_EVERY_S)
        on_progress(dealer.progress())


async def _until_done(
    outcome: asyncio.Future[None], beside: Sequence[asyncio.Task[None]], running: Coroutine[Any, Any, None]
) -> None:
    """Wait until every episode has ended, or raise what keeps it from that; `running` and `beside` end no sooner."""
    stepping = asyncio.ensure_future(running)
    try:
        ends: set[asyncio.Future[Any]] = {outcome, stepping, *beside}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            if end.done():
                end.result()
        if not outcome.done():
            raise EnvironmentFailed("the actors ended before the evaluation was over")
    finally:
        stepping.cancel()
        await asyncio.gather(stepping, return_exceptions=True)


def _end(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
        return
    failure = error if isinstance(error, AioseedError) else TrainingFailed(f"inference failed: {failure_said(error)}")
    failure.__cause__ = error if failure is not error else failure.__cause__
    future.set_exception(failure)
