from __future__ import annotations

from aioseed.actor.watch import Verdict, Watch

NOTHING = Verdict(ping=False, dead=False, unheard=False, forgotten=False, hung=None)


def tick_for(
    watch: Watch, start_s: float, duration_s: float, *, idle: bool = False, answers: int = 0
) -> tuple[float, list[Verdict]]:
    """Tick as punctually as the event loop does; return the end and what was not nothing."""
    verdicts, now_s = [], start_s
    while now_s < start_s + duration_s:
        now_s += watch.tick_s
        verdict = watch.tick(now_s, idle=idle, answers=answers)
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


def test_an_answer_begins_the_silence_anew() -> None:
    watch, now_s = make(), 0.0
    for answers in range(10):
        now_s, verdicts = tick_for(watch, now_s, 4.5, answers=answers)
        assert verdicts == []
        watch.heard()


def test_a_second_silence_is_asked_about_again() -> None:
    watch, now_s = make(), 0.0
    for answers in range(2):
        now_s, verdicts = tick_for(watch, now_s, 7.0, answers=answers)
        assert verdicts == [NOTHING._replace(ping=True)]
        watch.heard()


def test_a_learner_that_is_heard_but_answers_nothing_is_asked_and_left_after_three_patiences() -> None:
    watch, now_s, told = make(), 0.0, []
    while now_s < 46.0:
        now_s, verdicts = tick_for(watch, now_s, 4.5)
        told += [(now_s, verdict) for verdict in verdicts]
        watch.heard()
    (asked_s, asked), *left = told
    assert asked == NOTHING._replace(ping=True) and asked_s < 10.0
    assert {verdict for _, verdict in left} == {NOTHING._replace(unheard=True)} and left[0][0] > 45.0


def test_a_learner_that_answers_late_is_asked_each_time_and_never_left() -> None:
    watch, now_s, asked = make(), 0.0, 0
    for answers in range(10):
        for _ in range(4):
            now_s, verdicts = tick_for(watch, now_s, 4.5, answers=answers)
            asked += len(verdicts)
            assert not any(verdict.unheard or verdict.dead for verdict in verdicts)
            watch.heard()
    assert asked == 10


def test_an_actor_that_gets_no_lease_for_long_is_forgotten() -> None:
    watch, now_s = make(), 0.0
    for answers in range(3):
        now_s, verdicts = tick_for(watch, now_s, 4.5, idle=True, answers=answers)
        watch.heard()
        assert verdicts == []
    now_s, verdicts = tick_for(watch, now_s, 4.5, idle=True, answers=3)
    assert verdicts[-1] == NOTHING._replace(forgotten=True)
    watch.heard()
    assert tick_for(watch, now_s, 0.5, answers=4)[1] == []


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
    assert watch.tick(now_s + 3600.0, idle=True, answers=0) == NOTHING


def test_the_step_deadline_is_only_ever_shortened() -> None:
    watch = make(step_deadline_s=2.0)
    watch.limit_step(60.0)
    assert watch.step_deadline_s == 2.0
    watch.limit_step(1.0)
    assert watch.step_deadline_s == 1.0
