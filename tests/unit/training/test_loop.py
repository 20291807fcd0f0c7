from __future__ import annotations

import dataclasses
import threading

import jax
import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from aioseed.errors import CheckpointError, TrainingFailed
from aioseed.training.config import CheckpointConfig
from aioseed.training.device import Placement, owned
from aioseed.training.progress import CheckpointCadence, Progress
from aioseed.training.trees import restore_arrays
from aioseed.types import SavedReplay


def run(road, after: int | None = None):
    """Run the loop until the source is empty or, from within, `after` updates."""
    stop = threading.Event()
    take = road.source.take

    def take_and_stop(timeout_s):
        if len(road.source.returned) == after or not road.source.waiting:
            stop.set()
            return None
        return take(timeout_s)

    road.source.take = take_and_stop
    return road.loop.run(stop)


def test_every_batch_is_trained_and_given_back_once(kit):
    batches = [kit.batch(seed, 8) for seed in range(5)]
    road = kit.road(kit.config(updates_per_call=2), batches)
    summary = run(road)
    transitions = sum(int(batch.identity.transitions.sum()) for batch in batches)
    assert [id(batch) for batch in road.source.returned] == [id(batch) for batch in batches]
    assert road.source.lent == []
    assert (summary.version, summary.updates, summary.skipped_updates) == (10, 10, 0)
    assert summary.trained_transitions == transitions
    books = road.ledger.snapshot()
    assert (books.consumed, books.held, books.imbalance) == (transitions, 0, 0)
    assert road.board.current().version == 10


def test_what_is_published_is_what_the_update_left(kit):
    config = kit.config()
    road = kit.road(config, [kit.batch(1, 4)])
    expected, _ = kit.program(config)(kit.state(config), kit.columns(1, 4))
    run(road)
    jax.tree.map(np.testing.assert_array_equal, road.board.current().params, expected.learner.params)


def test_a_batch_is_not_given_back_before_its_computation_has_ended(kit):
    events = []
    road = kit.road(kit.config(), [kit.batch(1, 4)])
    program, settle, give_back = road.loop._program, road.source.settle, road.source.give_back

    def watched(state, columns):
        state, output = program(state, columns)
        return state._replace(step=Watched(state.step, events)), output

    def noted(name, call):
        def called(*arguments):
            events.append(name)
            return call(*arguments)

        return called

    road.loop._program = watched
    road.source.settle, road.source.give_back = noted("settled", settle), noted("given back", give_back)
    run(road)
    assert events == ["ready", "settled", "given back"]


class Watched:
    """An array that tells when it is waited for."""

    def __init__(self, array, events):
        self.array, self.events = array, events

    def block_until_ready(self):
        self.events.append("ready")
        return self


def test_it_stops_between_updates(kit):
    road = kit.road(kit.config(), [kit.batch(seed, 4) for seed in range(4)])
    summary = run(road, after=2)
    assert summary.version == 2
    assert len(road.source.waiting) == 2
    assert road.source.lent == []


def test_it_stops_at_total_steps(kit):
    batches = [kit.batch(seed, 4) for seed in range(4)]
    first_two = sum(int(batch.identity.transitions.sum()) for batch in batches[:2])
    road = kit.road(kit.config(total_steps=first_two), batches)
    assert road.loop.run(threading.Event()).version == 2
    assert not road.loop.step(0.0)


def test_skipped_updates_count_towards_total_steps(kit):
    bad = kit.poisoned(kit.batch(1, 4))
    road = kit.road(kit.config(total_steps=4 * kit.steps), [bad, kit.batch(2, 4)])
    assert road.loop.run(threading.Event()).version == 1


def test_the_last_policy_is_published_as_the_last(kit):
    """Nobody who waits for it, in lockstep, acts with it: the end of a run is the same each time."""
    batches = [kit.batch(seed, 4) for seed in range(2)]
    road = kit.road(kit.config(total_steps=sum(int(batch.identity.transitions.sum()) for batch in batches)), batches)
    assert road.loop.step(0.0) and road.board.wait_for(1, 0.0)
    assert road.loop.step(0.0) and not road.board.wait_for(2, 0.0)


def test_what_the_agent_publishes_is_published(kit):
    road = kit.road(kit.config(), [kit.batch(1, 4)], published=lambda state: state.extra["target"])
    assert road.loop.step(0.0)
    target = road.loop._state.learner.extra["target"]
    jax.tree.map(np.testing.assert_array_equal, road.board.current().params, target)
    assert not np.array_equal(target["place"], road.loop._state.learner.params["place"])


def test_a_loop_that_is_stepped_ends_with_nobody_waiting_for_a_policy(kit):
    road = kit.road(kit.config(), [])
    assert road.board.wait_for(0, 0.0)
    assert road.loop.finish().version == 0
    assert not road.board.wait_for(0, 0.0)


def test_priorities_that_the_loss_gave_go_to_the_source_as_a_copy(kit):
    given = []

    def program(state, columns):
        state, output = kit.program(kit.config())(state, columns)
        given.append(output.aux["error"])
        return state, output._replace(aux={"priorities": given[-1]})

    road = kit.road(kit.config(), [kit.batch(1, 4)], program=program)
    run(road)
    [priorities] = road.source.priorities
    np.testing.assert_array_equal(priorities, given[0])
    assert priorities.flags.owndata  # and not a view of memory that is JAX's


def test_a_checkpoint_holds_what_is_kept_of_replay(kit):
    kept = SavedReplay({"tree": np.arange(3)}, {"size": 3}, ("a segment",), lambda whole: None)
    road = kit.road(kit.config(), [], save_replay=lambda: kept)
    saved = road.loop.snapshot()
    np.testing.assert_array_equal(saved.arrays["replay/tree"], np.arange(3))
    assert "learner/params/place" in saved.arrays and saved.state["replay"] == {"size": 3}
    assert saved[-2:] == (kept.segments, kept.release)


def test_a_goal_ends_the_run_with_the_update_that_reached_it(kit):
    road = kit.road(kit.config(), [kit.batch(seed, 4) for seed in range(3)], goal_reached=lambda: True)
    assert run(road).version == 1 and road.loop.is_over
    assert road.board.current().version == 1 and not road.board.wait_for(1, 0.0)


def test_a_skipped_update_is_in_the_ledger_and_still_counts_a_version(kit):
    road = kit.road(kit.config(), [kit.batch(1, 4), kit.poisoned(kit.batch(2, 4)), kit.batch(3, 4)])
    summary = run(road)
    books = road.ledger.snapshot()
    assert books.dropped == {"nonfinite_update": 4 * kit.steps}
    assert (books.held, books.imbalance) == (0, 0)
    assert (summary.version, summary.updates, summary.skipped_updates) == (3, 2, 1)
    assert road.board.current().version == 3
    assert road.metrics.counter("training/skipped_updates").value == 1
    assert [report.metrics == {} for report in road.reports] == [False, True, False]


def test_only_the_transitions_of_the_skipped_step_of_a_call_are_dropped(kit):
    batch = kit.batch(4, 8)
    batch.columns.reward[1:, 4:], batch.columns.flags[:, 4:] = np.nan, 0
    batch.identity.transitions[4:] = kit.steps
    road = kit.road(kit.config(updates_per_call=2), [batch])
    run(road)
    books = road.ledger.snapshot()
    assert books.dropped == {"nonfinite_update": 4 * kit.steps}
    assert books.consumed == int(batch.identity.transitions[:4].sum())


def test_too_many_nonfinite_updates_in_a_row_fail(kit):
    batches = [kit.poisoned(kit.batch(seed, 4)) for seed in range(5)]
    road = kit.road(kit.config(max_nonfinite_updates=3), batches)
    with pytest.raises(TrainingFailed, match=r"last 3 updates .*: the loss is not finite, nor is absolute_error; the"):
        run(road)
    assert len(road.source.returned) == 3
    assert road.ledger.snapshot().held == road.ledger.snapshot().queued
    assert np.isfinite(road.loop.snapshot().arrays["learner/params/place"]).all()
    assert not road.board.wait_for(99, 3600.0)


def test_a_finite_update_begins_the_count_anew(kit):
    bad, good = (lambda: kit.poisoned(kit.batch(1, 4))), (lambda: kit.batch(2, 4))
    road = kit.road(kit.config(max_nonfinite_updates=3), [bad(), bad(), good(), bad(), bad(), good()])
    assert run(road).skipped_updates == 4


def test_nonfinite_updates_are_told_once_for_those_in_a_row(kit, caplog):
    bad, good = (lambda: kit.poisoned(kit.batch(1, 4))), (lambda: kit.batch(2, 4))
    run(kit.road(kit.config(max_nonfinite_updates=3), [good(), good(), bad(), bad(), good(), bad(), good()]))
    told = (
        "an update was not finite and is skipped, its steps are dropped (nonfinite_update): the loss is not finite, "
        "nor is absolute_error"
    )
    assert caplog.messages == [told] * 2


def test_what_an_author_cannot_mean_is_told_after_the_first_updates(kit, caplog):
    def unmoved(state, columns):
        state, output = kit.program(config)(state, columns)
        codes = np.asarray(output.inspection.codes).copy()
        codes[:, output.inspection.numbers.index("count") + 1 :] = 2
        return state, output._replace(inspection=dataclasses.replace(output.inspection, codes=codes))

    config = kit.config(updates_per_call=2)
    run(kit.road(config, [kit.batch(seed, 8) for seed in range(7)], program=unmoved))
    [told] = caplog.messages
    assert told.startswith("the gradient of the loss was zero in each of the first 10 updates, and nothing is learned")
    caplog.clear()
    run(kit.road(config, [kit.batch(seed, 8) for seed in range(7)]))
    assert caplog.messages == []


def test_nonfinite_updates_in_a_row_are_counted_across_calls_and_inside_them(kit):
    halves = [kit.batch(1, 8), kit.batch(2, 8)]
    halves[0].columns.reward[1:, 4:] = np.nan
    halves[1].columns.reward[1:, :4] = np.nan
    for batch in halves:
        batch.columns.flags[...] = 0
        batch.identity.transitions[...] = kit.steps
    road = kit.road(kit.config(updates_per_call=2, max_nonfinite_updates=2), halves)
    run(road)
    assert road.loop.summary().skipped_updates == 2


def test_a_step_is_trained_once_by_the_first_pass_over_it(kit):
    batch = kit.batch(1, 8)
    batch.columns.flags[...] = 0
    batch.identity.transitions[...] = kit.steps
    batch.columns.reward[1:, :4] = np.nan
    config = kit.config(updates_per_call=2, passes=2)
    road = kit.road(config, [batch, kit.batch(2, 8)], program=kit.program(config))
    summary = run(road)
    good = int(kit.batch(2, 8).identity.transitions.sum())
    assert summary.trained_transitions == 4 * kit.steps + good
    assert road.ledger.snapshot().dropped == {"nonfinite_update": 4 * kit.steps}
    assert summary.version == 8
    assert summary.skipped_updates >= 2, "unrolls that spoil a step do so in each pass"


def test_unrolls_that_spoil_every_pass_are_counted_once(kit):
    config = kit.config(passes=3, max_nonfinite_updates=2)
    bad, good = (lambda: kit.poisoned(kit.batch(1, 4))), (lambda: kit.batch(2, 4))
    assert run(kit.road(config, [bad(), good(), bad(), good()])).skipped_updates == 6
    road = kit.road(config, [bad(), bad(), good()])
    with pytest.raises(TrainingFailed, match="last 2 updates"):
        run(road)
    assert road.loop.summary().skipped_updates == 6


def some_of_four_are_finite(kit, config, pattern):
    def program(state, columns):
        state, output = kit.program(config)(state, columns)
        return state, output._replace(finite=np.array(pattern, bool))

    return program


def test_a_finite_step_of_a_later_pass_ends_those_in_a_row(kit):
    config = kit.config(updates_per_call=2, passes=2, max_nonfinite_updates=3)
    program = some_of_four_are_finite(kit, config, [0, 0, 1, 0])
    assert run(kit.road(config, [kit.batch(seed, 8) for seed in range(3)], program=program)).skipped_updates == 9


def test_a_step_that_only_a_later_pass_skips_is_not_said_to_be_dropped(kit, caplog):
    config = kit.config(updates_per_call=2, passes=2)
    road = kit.road(config, [kit.batch(1, 8)], program=some_of_four_are_finite(kit, config, [1, 1, 1, 0]))
    run(road)
    assert road.ledger.snapshot().dropped == {}
    assert [line.partition(":")[0] for line in caplog.messages] == ["an update was not finite and is skipped"]


def test_an_update_that_breaks_off_gives_its_batch_back_and_fails(kit):
    def broken(state, columns):
        raise RuntimeError("out of memory")

    road = kit.road(kit.config(), [kit.batch(1, 4)], program=broken)
    with pytest.raises(TrainingFailed, match="out of memory") as caught:
        run(road)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert road.source.lent == []
    assert road.ledger.snapshot().held == 0


def test_a_device_without_memory_is_told_in_one_sentence_with_what_needs_less(kit):
    def broken(state, columns):
        raise JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBuffer 1:\n\tSize: 9B\n")

    road = kit.road(kit.config(), [kit.batch(1, 4)], program=broken)
    with pytest.raises(TrainingFailed, match=r"allocating 9 bytes.*smaller training\.micro_unrolls") as caught:
        run(road)
    assert "\n" not in str(caught.value)


def test_a_state_that_an_update_took_with_it_cannot_be_saved(kit):
    def broken(state, columns):
        jax.tree.leaves(state)[-1].delete()
        raise RuntimeError("the device is gone")

    road = kit.road(kit.config(), [kit.batch(1, 4)], program=broken)
    with pytest.raises(TrainingFailed):
        run(road)
    with pytest.raises(TrainingFailed, match="lost"):
        road.loop.snapshot()


def test_policy_lag_is_versions_between_acting_and_the_very_step(kit):
    batch = kit.batch(1, 8)
    batch.columns.policy_version[...] = 7
    road = kit.road(kit.config(updates_per_call=2), [batch], progress=Progress(version=10))
    run(road)
    lag = road.metrics.quantiles("training/policy_lag_updates")
    assert lag.count == 8 * (kit.steps + 1)
    assert road.reports[0].policy_lag_p50 == 3.5
    assert road.reports[0].policy_lag_max == 4.0


def test_of_a_large_call_rows_of_all_columns_are_looked_at_each_with_its_own_step(kit):
    road, columns = kit.road(kit.config(updates_per_call=128), [], program=kit.program(kit.config())), np.arange(512)
    batch = kit.batch(1, 512)
    batch.columns.policy_version[...] = columns // 4
    assert set(road.loop._policy_lag(batch).tolist()) == {0}
    batch.columns.policy_version[...] = columns // 4 - columns
    assert len(set(road.loop._policy_lag(batch).tolist())) > 200


def test_policy_lag_holds_where_versions_exceed_32_bits(kit):
    batch = kit.batch(1, 4)
    batch.columns.policy_version[:2], batch.columns.policy_version[2:] = 2**31 - 2, -(2**31)
    road = kit.road(kit.config(), [batch], progress=Progress(version=2**31 + 1))
    run(road)
    assert (road.reports[0].policy_lag_p50, road.reports[0].policy_lag_max) == (2.0, 3.0)
    assert road.loop.snapshot().step == 2**31 + 2


def test_time_is_split_into_busy_idle_while_ready_and_waiting(kit):
    now = [0.0]
    road = kit.road(kit.config(), [kit.batch(1, 4), kit.batch(2, 4)], clock=lambda: now[0])
    program, take, publish = road.loop._program, road.source.take, road.board.publish

    def slow(function, seconds):
        def slowed(*arguments, **options):
            now[0] += seconds
            return function(*arguments, **options)

        return slowed

    road.loop._program = slow(program, 10.0)
    road.source.take = slow(take, 1.0)
    road.board.publish = slow(publish, 0.25)
    while road.loop.step(0.0):
        pass
    spent = road.loop.summary()
    assert (spent.busy_s, spent.idle_ready_s, spent.waiting_s) == (20.0, 2.25, 1.25)
    assert road.loop.longest_call_s == 10.0
    late = kit.batch(3, 4)
    road.source.waiting.append(late)
    for move in (road.ledger.accept, road.ledger.finish):
        move(int(late.identity.transitions.sum()))
    road.loop.step(0.0)
    told, report = road.metrics.snapshot(), road.reports[-1]
    shown = [told[f"training/{name}"] for name in ("busy_s", "idle_ready_s", "waiting_s", "updates")]
    assert shown == [report.busy_s, report.idle_ready_s, report.waiting_s, 3] == [30.0, 3.25, 1.25, 3]


def test_what_went_by_before_the_loop_ran_is_not_its_waiting(kit):
    now = [0.0]
    road = kit.road(kit.config(), [kit.batch(1, 4)], clock=lambda: now[0])
    now[0] = 100.0  # everything is compiled, and the learner waits for its first actor
    spent = run(road)
    assert (spent.busy_s, spent.idle_ready_s, spent.waiting_s) == (0.0, 0.0, 0.0)


def test_reports_come_no_closer_than_told(kit):
    road = kit.road(kit.config(), [kit.batch(seed, 4) for seed in range(6)], clock=iter(np.arange(100.0)).__next__)
    road.loop._report_every_s = 6.0
    run(road)
    assert [report.version for report in road.reports] == [1, 3, 5]


def test_a_checkpoint_is_a_copy_between_two_updates(kit):
    config = kit.config(checkpoint=CheckpointConfig(every_s=None, every_updates=2))
    road = kit.road(config, [kit.batch(seed, 4) for seed in range(4)])
    run(road, after=2)
    assert [snapshot.step for snapshot in road.saved] == [2]
    copies = {name: array.copy() for name, array in road.saved[0].arrays.items()}
    old = jax.tree.leaves(road.loop._state)
    del road.source.take  # the one that stops
    assert road.loop.step(0.0)
    assert all(leaf.is_deleted() for leaf in old), "a live view has switched donation off"
    for name, array in road.saved[0].arrays.items():
        np.testing.assert_array_equal(array, copies[name])


def test_the_state_of_a_checkpoint_is_json_of_all_counters(kit):
    road = kit.road(kit.config(), [kit.batch(1, 4), kit.poisoned(kit.batch(2, 4))])
    run(road)
    state = road.loop.snapshot().state
    assert state["seed"] == 7
    assert Progress.from_json(state["training"]) == Progress(
        version=2,
        skipped_updates=1,
        trained_transitions=state["ledger"]["consumed"],
        taken_transitions=state["ledger"]["accepted"],
        nonfinite_in_a_row=1,
    )


def test_updates_after_a_restore_equal_updates_without_one(kit):
    config = kit.config(updates_per_call=2)
    straight = kit.road(config, [kit.batch(seed, 8) for seed in range(6)])
    run(straight)

    first = kit.road(config, [kit.batch(seed, 8) for seed in range(3)])
    run(first)
    saved = first.loop.snapshot()
    template = kit.state(config, seed=99)
    state = restore_arrays(template, saved.arrays)
    second = kit.road(
        config,
        [kit.batch(seed, 8) for seed in range(3, 6)],
        state=owned(state, Placement((jax.devices()[0],))),
        progress=Progress.from_json(saved.state["training"]),
    )
    run(second)

    expected, got = straight.loop.snapshot(), second.loop.snapshot()
    assert expected.arrays.keys() == got.arrays.keys()
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(array, got.arrays[name], err_msg=name)
    assert got.step == expected.step == 12
    assert got.state["training"] == expected.state["training"]


@pytest.mark.parametrize("count", [-1, True, 1.0, "1", None])
def test_counters_that_are_none_are_not_read(count):
    with pytest.raises(CheckpointError, match="cannot be read"):
        Progress.from_json({**Progress().to_json(), "version": count})


def test_saves_are_due_by_time_or_by_updates():
    by_time = CheckpointCadence(CheckpointConfig(every_s=10.0), 100.0, 0)
    assert [by_time.due(now_s, 1) for now_s in (105.0, 110.0, 115.0, 121.0)] == [False, True, False, True]
    by_updates = CheckpointCadence(CheckpointConfig(every_s=None, every_updates=4), 0.0, 10)
    assert [by_updates.due(1e9, version) for version in (12, 14, 15, 19)] == [False, True, False, True]
