from __future__ import annotations

import math

import pytest

from aioseed.transport.keyring import MAX_KEYS, Credential, Keyring, parse_keys
from aioseed.transport.token import Secret


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
        ("\udcff", "right", False),  # a byte that is not UTF-8, as headers deliver it
        ("schlüssel", "schlüssel", True),
    ],
)
def test_token_must_be_equal(shown: str | None, expected: str, accepted: bool) -> None:
    assert (Keyring.of(expected).admit(shown) is not None) is accepted


def test_either_of_two_tokens_opens_while_one_replaces_the_other() -> None:
    ring = Keyring.of("old", "new")
    old, new = ring.admit("old"), ring.admit("new")
    assert old is not None and new is not None and old != new
    ring.replace(parse_keys("new"))
    assert ring.admit("old") is None and not ring.holds(old) and ring.holds(new)


def test_an_actors_own_token_says_what_it_may_and_until_when() -> None:
    text = "shared\n\n# a comment\nmine actor=lab-7 environments=64 expires=2027-01-31T00:00:00Z  # here too\n"
    shared, own = parse_keys(text)
    assert shared == Credential(Secret("shared").digest())
    assert own == Credential(Secret("mine").digest(), "lab-7", 64, 1801353600.0)
    assert (shared.name, own.name, shared.expires_at_s) == ("a shared token", "lab-7", math.inf)


def test_a_token_ends_at_its_moment() -> None:
    now_s = [59.9]
    ring = Keyring(parse_keys("t actor=a expires=1970-01-01T00:01:00+00:00"), lambda: now_s[0])
    held = ring.admit("t")
    assert held is not None
    now_s[0] = 60.0
    assert ring.admit("t") is None and not ring.holds(held)


def test_whether_a_token_is_still_held_is_not_looked_for_in_all_of_them() -> None:
    class Counted(bytes):
        __hash__ = bytes.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return bytes.__eq__(self, other)

    compared: list[object] = []
    ring = Keyring([Credential(Counted(digest.to_bytes(32, "big"))) for digest in range(4096)])
    last = Credential((4095).to_bytes(32, "big"))
    compared.clear()  # the making of a dictionary may compare
    assert ring.holds(last) and len(compared) < 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no token"),
        ("# nothing\n\n", "no token"),
        ("a\nb\nc", "3 shared tokens, 2 may be active"),
        ("a\na", "one token twice"),
        ("canary environments=3", "line 1.*add actor=NAME"),
        ("ok\ncanary actor=x environments=0", "line 2.*a number from 1 up"),
        ("canary actor=x environments=many", "line 1.*a number from 1 up"),
        ("canary actor=x expires=2027-01-31", "line 1.*with its zone"),
        ("canary actor=x expires=soon", "line 1.*with its zone"),
        ("canary actor=x colour=red", "line 1.*each once"),
        ("canary actor=x actor=y", "line 1.*each once"),
        ("canary actor=", "line 1.*each once"),
        ("canaryschlüssel", "line 1.*printable ASCII"),
        ("ok\ncanary#longer", "line 2.*behind a space, and a token has no #"),
        ("canary actor=x#y", "line 1.*behind a space"),
        ("canary\x1b[31m", "line 1.*printable ASCII"),
        ("canary actor=x environments=٣", "line 1.*a number from 1 up"),
    ],
)
def test_a_wrong_line_is_named_and_never_shown(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_keys(text)
    assert "canary" not in str(caught.value)


def test_so_many_tokens_are_as_many_as_may_be_compared() -> None:
    lines = [f"canary{number} actor=a environments=1" for number in range(MAX_KEYS + 1)]
    assert len(parse_keys("\n".join(lines[:MAX_KEYS]))) == MAX_KEYS
    with pytest.raises(ValueError, match=f"it holds {MAX_KEYS + 1} tokens, {MAX_KEYS} are allowed"):
        parse_keys("\n".join(lines))


def test_a_name_is_cut_and_a_ring_takes_secrets_as_they_are() -> None:
    [credential] = parse_keys(f"t actor={'x' * 300}")
    assert credential.name == "x" * 200
    assert Keyring.of(Secret("right")).admit("right") is not None


def test_nothing_shows_a_digest() -> None:
    [credential] = parse_keys("canary")
    assert credential.digest.hex() not in repr(credential) and repr(credential.digest) not in repr(credential)
