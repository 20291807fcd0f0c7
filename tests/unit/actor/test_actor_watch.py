from __future__ import annotations

from aioseed.actor.watch import Verdict, Watch

NOTHING = Verdict(ping=False, dead=False, forgotten=False, hung=None)


def tick_for(watch: Watch, start_s: float, duration_s: float, *, idle: bool = False) -> tuple[float, list[Verdict]]:
    """Tick as punctually as the event loop does; return the end and what was not nothing."""
    verdicts, now_s = [], start_s
    while now_s < start_s + duration_s:
        now_s += watch.tick_s
        verdict = watch.tick(now_s, idle=idle)
        if verdict != NOTHING:
            verdicts.append(verdict)
    return now_s, verdicts


def make(step_deadline_s: float = 60.0) -> Watch:
    watch = Watch(2, step_deadline_s, now_s=0.0)
    watch.limit_silence(5.0, 10.0)
    return watch


def test_silence_is_answered_with_one_ping_and_then_the_channel_is_dead() -> None:
    watch = make()
    now_s, verdicts = tick_for(watch, 0.0, 14.5)
    assert verdicts == [NOTHING._replace(ping=True)]
    _, verdicts = tick_for(watch, now_s, 1.0)
    assert verdicts[-1].dead


def test_hearing_anything_begins_the_silence_anew() -> None:
    watch, now_s = make(), 0.0
    for _ in range(10):
        now_s, verdicts = tick_for(watch, now_s, 4.5)
        assert verdicts == []
        watch.heard()


def test_a_second_silence_is_asked_about_again() -> None:
    watch, now_s = make(), 0.0
    for _ in range(2):
        now_s, verdicts = tick_for(watch, now_s, 7.0)
        assert verdicts == [NOTHING._replace(ping=True)]
        watch.heard()


def test_an_actor_that_gets_no_lease_for_long_is_forgotten() -> None:
    watch, now_s = make(), 0.0
    for _ in range(3):
        now_s, verdicts = tick_for(watch, now_s, 4.5, idle=True)
        watch.heard()
        assert verdicts == []
    now_s, verdicts = tick_for(watch, now_s, 4.5, idle=True)
    assert verdicts[-1] == NOTHING._replace(forgotten=True)
    watch.heard()
    assert tick_for(watch, now_s, 0.5)[1] == []


def test_work_beyond_the_step_deadline_is_hung_and_idleness_is_not() -> None:
    watch = make(step_deadline_s=2.0)
    watch.started(0)
    watch.started(1)
    now_s, verdicts = tick_for(watch, 0.0, 1.5)
    watch.finished(0)
    now_s, verdicts = tick_for(watch, now_s, 1.0)
    assert [verdict.hung for verdict in verdicts] == [1] * len(verdicts) and verdicts
    watch.finished(1)
    assert tick_for(watch, now_s, 2.0)[1] == []


def test_a_process_that_was_frozen_finds_nothing_hung_and_nothing_dead() -> None:
    watch = make(step_deadline_s=2.0)
    watch.started(0)
    now_s, _ = tick_for(watch, 0.0, 1.0)
    assert watch.tick(now_s + 3600.0, idle=True) == NOTHING


def test_the_step_deadline_is_only_ever_shortened() -> None:
    watch = make(step_deadline_s=2.0)
    watch.limit_step(60.0)
    assert watch.step_deadline_s == 2.0
    watch.limit_step(1.0)
    assert watch.step_deadline_s == 1.0
