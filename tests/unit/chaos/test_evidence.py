from __future__ import annotations

import json

import pytest

from aioseed.chaos.evidence import Books, Verdicts


@pytest.fixture
def write(tmp_path):
    """Append lines of figures; a balanced ledger unless something else is said."""

    def append(accepted: int, *, version: int = 0, end: str = "\n", **others: float) -> None:
        line = {"ledger/accepted": accepted, "ledger/consumed": accepted, "run/policy_version": version}
        line |= {name.replace("_", "/", 1): value for name, value in others.items()}
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + end)

    return append


@pytest.fixture
def verdicts():
    return Verdicts()


@pytest.fixture
def books(tmp_path, verdicts):
    return Books(tmp_path / "metrics.jsonl", verdicts)


def test_before_the_first_line_nothing_is_known(books):
    assert books.read(0.0) == [] and books.newest == {}
    assert books.lost_s(9.0, 1) == 0.0


def test_sound_books_raise_nothing(books, verdicts, write):
    write(10)
    write(25, ledger_consumed=20, ledger_held=3, ledger_dropped_restart=2)
    assert len(books.read(0.0)) == 2
    assert verdicts.violations == [] and verdicts.checked > 2
    assert books.imbalance == 0 and books.newest["ledger/accepted"] == 25


@pytest.mark.parametrize("consumed", [9, 11])
def test_a_ledger_out_of_balance_is_a_violation(books, verdicts, write, consumed):
    write(10, ledger_consumed=consumed)
    books.read(0.0)
    assert len(verdicts.violations) == 1 and "out of balance" in verdicts.violations[0]
    assert books.imbalance == 1


@pytest.mark.parametrize("name", ["ledger_accepted", "run_policy/version", "ledger_dropped_restart"])
def test_a_counter_that_falls_is_a_violation(books, verdicts, write, name):
    write(10, version=5, ledger_consumed=8, ledger_dropped_restart=2)
    values = {"ledger_consumed": 8, "ledger_dropped_restart": 2}
    if name == "ledger_accepted":
        write(9, version=5, ledger_consumed=8, ledger_dropped_restart=2, ledger_held=-1)
    elif name == "ledger_dropped_restart":
        write(10, version=5, ledger_consumed=8, ledger_dropped_restart=1, ledger_held=1)
    else:
        write(10, version=4, **values)
    books.read(0.0)
    assert [sentence for sentence in verdicts.violations if "fell from" in sentence] == verdicts.violations
    assert len(verdicts.violations) == 1


def test_a_process_that_goes_on_may_fall_back_to_its_checkpoint_and_no_further(books, verdicts, write):
    write(100, version=50)
    books.read(0.0)
    books.restarted({"ledger/accepted": 80, "run/policy_version": 40})
    write(81, version=40)
    books.read(1.0)
    assert verdicts.violations == []
    books.restarted({"ledger/accepted": 80, "run/policy_version": 40})
    write(79, version=40)
    books.read(2.0)
    assert verdicts.violations == ["ledger/accepted fell from 80 to 79"]


def test_a_line_that_is_not_whole_yet_is_read_when_it_is(books, verdicts, write, tmp_path):
    write(10)
    write(20, end="")
    assert len(books.read(0.0)) == 1
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("\n")
    assert [line["ledger/accepted"] for line in books.read(0.0)] == [20]


def test_what_is_lost_is_the_time_since_the_version_was_last_the_newest(books, write):
    for at_s, version in ((10.0, 1), (11.0, 2), (12.0, 2), (13.0, 5)):
        write(10, version=version)
        books.read(at_s)
    assert books.lost_s(14.0, 2) == 2.0
    assert books.lost_s(14.0, 5) == 1.0
    assert books.lost_s(14.0, 0) == 4.0  # of an earlier process: all that this one did
