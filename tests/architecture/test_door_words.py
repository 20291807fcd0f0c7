"""What a listener reports is a word: the door has a sentence for each, and the reference names them all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from aioseed.host import door

METRICS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
PLACES = {"report": 0, "_report": 0, "Admission": 1, "found.append": 0}
"""Where the word stands among the arguments of the calls that report one."""


def reported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        place = PLACES.get(name, PLACES.get(name.split(".")[-1]))
        if place is None or len(node.args) <= place:
            continue
        given = node.args[place]
        for part in given.elts if isinstance(given, ast.Tuple) else [given]:
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def test_every_word_that_listeners_report_has_a_sentence_and_a_place_in_the_reference_and_no_other_has(sources):
    rooms = ("aioseed.transport.", "aioseed_websocket.", "aioseed_grpc.")
    words = {word for source in sources if source.module.startswith(rooms) for word in reported(source.tree)}
    assert words == set(door._WORDS)
    lines = METRICS.read_text(encoding="utf-8").splitlines()
    [row] = [line for line in lines if line.startswith("| `transport/<what>` |")]
    assert {word for word in words if f"`{word}`" not in row} == set()
