"""The words of ``aioseed bench``, and one JSON object for each measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aioseed.cli.bench import KINDS, main, numbers, parser
from aioseed.errors import UsageError


@pytest.mark.parametrize(
    "words",
    [
        ["pigeons"],
        ["serving", "--sessions", "0"],
        ["serving", "--seconds", "0"],
        ["serving", "--transport", "pigeon"],
        ["connections", "--connections", "1,x"],
        ["startup", "--repeats", "0"],
        ["replay", "--entries", "many"],
        ["train"],
        ["train", "cartpole", "actor"],
        ["compare", "absent.json", "absent.json"],
    ],
)
def test_wrong_words_are_one_sentence_and_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.err.startswith("aioseed bench: ")
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_serving_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serving", "--transport", "memory", "--sessions", "2", "--envs-per-session", "2", "--seconds", "0.2"]
    assert main([*words, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["benchmark"] == "serving"
    assert {"steps_per_s", "echo_steps_per_s", "share_of_echo", "action_latency_ms", "echo_latency_ms"} <= set(figures)
    assert {"machine", "versions", "seed"} <= set(figures)


def test_latency_and_connections_are_made_of_serving(capsys: pytest.CaptureFixture[str]) -> None:
    traffic = ["--transport", "memory", "--envs-per-session", "2", "--seconds", "0.3", "--json"]
    assert main(["latency", "--sessions", "2", *traffic]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"top", "half", "p99_above_echo_ms", "half_messages_per_s"} <= set(figures)
    assert main(["connections", "--connections", "1,16", *traffic]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [row["sessions"] for row in figures["connections"]] == [1, 16]
    assert figures["connections"][1]["share_of_16_sessions"] == 1.0
    assert main(["transports", "--transports", "memory", "--sessions", "2", *traffic[2:]]) == 0
    assert list(json.loads(capsys.readouterr().out)["transports"]) == ["memory"]


def test_replay_prints_its_figures_by_the_number_of_entries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--entries", "1000,2000", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["benchmark"] == "replay" and set(figures["aioseed"]["updates_per_s"]) == {"1000", "2000"}
    assert {"share_of_cpprb", "updates_lowest_to_highest"} <= set(figures)


def test_two_measurements_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", 1.0), ("b", 3.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"steps_per_s": value}))
    words = ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"]["steps_per_s"]["ratio"] == 3.0
    assert main(words) == 0
    assert "x 3.000" in capsys.readouterr().out


def test_help_names_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(kind in told for kind in KINDS)
    assert all(parser(kind).prog == f"aioseed bench {kind}" for kind in KINDS)


def test_a_list_of_numbers_holds_nothing_else() -> None:
    assert numbers("1,16") == [1, 16]
    for text in ("", "0", "1,", "a", "-1"):
        with pytest.raises(UsageError):
            numbers(text)
