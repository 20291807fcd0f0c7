"""docs/reference/wire.md names every key, default and code that the code has, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic_core import PydanticUndefined

from aioseed.specs import action_from_json
from aioseed.wire.messages import Bye, ControlMessage, ErrorCode, Message, RefusalCode, decode_control

TEXT = (Path(__file__).parents[3] / "docs/reference/wire.md").read_text(encoding="utf-8")
CLASSES = get_args(ControlMessage)


def section(title: str) -> str:
    found = re.search(rf"^### {title}\n(.*?)(?=^#{{2,4}} )", TEXT, re.M | re.S)
    assert found is not None, title
    return found[1]


def section_of(cls: type[Message]) -> str:
    return section(cls.kind.upper())


def codes(text: str) -> set[str]:
    table = re.search(r"^\| `code` \|[^\n]*\n\|---.*?\n\n", text, re.M | re.S)
    assert table is not None
    return set(re.findall(r"^\| `(\w+)` \|", table[0], re.M)) - {"code"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.kind)
def test_the_keys_of_a_message_and_their_defaults_are_documented(cls: type[Message]) -> None:
    table = re.search(r"^\| key \|.*?\n\n", section_of(cls), re.M | re.S)
    assert table is not None
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (.*?) \|", table[0], re.M)
    written = {}
    for key, field in cls.model_fields.items():
        default = PydanticUndefined if key == "type" else field.default
        written[key] = "—" if default is PydanticUndefined else json.dumps(default, default=str).removesuffix(".0")
    assert {key: default.strip("`") for key, default in rows} == written


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.kind)
def test_the_example_of_a_message_is_one(cls: type[Message]) -> None:
    examples = [decode_control(block.encode()) for block in re.findall(r"```json\n(.*?)```", section_of(cls), re.S)]
    assert [example.kind for example in examples] == [cls.kind]


def test_the_example_of_an_action_spec_is_one() -> None:
    text = TEXT[TEXT.index("#### Action spec") :]
    example = json.loads(re.search(r"```json\n(.*?)```", text, re.S)[1])
    assert action_from_json(example).to_json() == example


def test_every_code_is_documented() -> None:
    assert codes(section("REFUSED")) == {code.value for code in RefusalCode}
    assert codes(section("BYE")) == {*get_args(Bye.model_fields["code"].annotation)}
    assert codes(section("ERROR")) == {code.value for code in ErrorCode}
