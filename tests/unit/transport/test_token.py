from __future__ import annotations

import pytest

from aioseed.transport.token import bearer, shown_token, token_accepted


@pytest.mark.parametrize(
    ("authorization", "token"),
    [(None, None), ("", None), ("Basic abc", None), ("Bearer abc", "abc"), ("bearer abc", "abc"), ("Bearer ", "")],
)
def test_only_a_bearer_token_is_read(authorization: str | None, token: str | None) -> None:
    assert shown_token(authorization) == token


def test_what_is_sent_is_what_is_read() -> None:
    assert shown_token(bearer("s3cret")) == "s3cret"


@pytest.mark.parametrize(
    ("shown", "expected", "accepted"),
    [
        ("right", "right", True),
        ("Right", "right", False),
        ("righ", "right", False),
        (None, "right", False),
        ("", "right", False),
        (None, "", False),  # an empty secret is still one to show
        ("", "", True),
        (None, None, True),
        ("anything", None, True),
        ("\udcff", "right", False),  # a byte that is not UTF-8, as headers deliver it
        ("schlüssel", "schlüssel", True),
    ],
)
def test_token_must_be_equal(shown: str | None, expected: str | None, accepted: bool) -> None:
    assert token_accepted(shown, expected) is accepted
