from __future__ import annotations

import copy
import pickle

import pytest

from aioseed.transport.token import Secret, bearer, digest_of, shown_token


@pytest.mark.parametrize(
    ("authorization", "token"),
    [(None, None), ("", None), ("Basic abc", None), ("Bearer abc", "abc"), ("bearer abc", "abc"), ("Bearer ", "")],
)
def test_only_a_bearer_token_is_read(authorization: str | None, token: str | None) -> None:
    assert shown_token(authorization) == token


def test_what_is_sent_is_what_is_read() -> None:
    assert shown_token(bearer(Secret("s3cret"))) == "s3cret"


def test_a_secret_shows_itself_to_nobody_who_does_not_ask() -> None:
    secret = Secret("canary-7f3a")
    shown = [repr(secret), str(secret), f"{secret}", format(secret), repr([secret]), repr({"token": secret})]
    assert not any("canary" in text for text in shown)
    assert secret.reveal() == "canary-7f3a"


@pytest.mark.parametrize("write", [pickle.dumps, copy.deepcopy])
def test_a_secret_is_not_written_anywhere(write) -> None:
    with pytest.raises(TypeError, match="not written"):
        write(Secret("canary"))


def test_equal_texts_are_equal_secrets_and_nothing_else_is() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


@pytest.mark.parametrize("text", ["", "right", "schlüssel", "\udcff", "x" * 10_000])
def test_digests_have_one_length_whatever_a_header_holds(text: str) -> None:
    assert len(digest_of(text)) == 32
