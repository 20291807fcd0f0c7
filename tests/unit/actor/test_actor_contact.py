from __future__ import annotations

import random

from aioseed.actor.contact import Backoff, Contact


def longest() -> Backoff:
    return Backoff(lambda: 1.0)


def test_delays_double_up_to_five_seconds() -> None:
    backoff = longest()
    assert [backoff.next_delay_s() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert max(backoff.next_delay_s() for _ in range(2000)) == 5.0


def test_jitter_is_full() -> None:
    source = random.Random(1)
    delays = []
    for _ in range(400):
        backoff = Backoff(source.random)
        for _ in range(4):
            backoff.next_delay_s()
        delays.append(backoff.next_delay_s())
    assert 0 <= min(delays) < 0.05 and 1.5 < max(delays) <= 1.6
    assert 0.7 < sum(delays) / len(delays) < 0.9


def test_a_healthy_session_begins_the_delays_anew_and_a_short_one_does_not() -> None:
    backoff = longest()
    for _ in range(5):
        backoff.next_delay_s()
    backoff.session_lasted(29.9)
    assert backoff.next_delay_s() == 3.2
    backoff.session_lasted(30.0)
    assert backoff.next_delay_s() == 0.1


def test_before_the_first_welcome_patience_is_short_and_is_not_renewed() -> None:
    contact = Contact(10.0, 600.0, longest(), now_s=100.0)
    contact.lost(105.0)
    assert contact.remaining_s(105.0) == 5.0
    assert contact.retry_delay_s(109.95) is not None
    assert contact.retry_delay_s(110.0) is None


def test_the_last_attempt_is_made_at_the_very_end() -> None:
    contact = Contact(10.0, 600.0, longest(), now_s=0.0)
    for _ in range(7):
        contact.retry_delay_s(0.0)
    assert contact.retry_delay_s(8.0) == 2.0


def test_each_session_renews_the_long_patience() -> None:
    contact = Contact(10.0, 600.0, longest(), now_s=0.0)
    contact.welcomed(9.0)
    contact.lost(1000.0)
    assert contact.remaining_s(1000.0) == 600.0
    contact.lost(1200.0)  # a dial that failed is no session
    assert contact.remaining_s(1200.0) == 400.0
    assert contact.retry_delay_s(1600.0) is None


def test_a_session_that_lasted_begins_the_delays_anew_and_changes_what_patience_is_told() -> None:
    contact = Contact(10.0, 600.0, longest(), now_s=0.0)
    assert (contact.welcomed_once, contact.patience_s) == (False, 10.0)
    for _ in range(5):
        contact.retry_delay_s(0.0)
    contact.welcomed(9.0)
    assert (contact.welcomed_once, contact.patience_s) == (True, 10.0)
    contact.lost(25.0)
    assert contact.patience_s == 600.0 and contact.retry_delay_s(25.0) == 3.2
    contact.welcomed(30.0)
    contact.lost(60.0)
    assert contact.welcomed_once and contact.retry_delay_s(60.0) == 0.1
