"""The flags of the commands that listen, as overrides of the configuration and as words of an actor's command."""

from __future__ import annotations

from pathlib import Path

import pytest

from aioseed.cli.common import Parser
from aioseed.cli.listening import add_listen_arguments, joining_words, transport_overrides
from aioseed.errors import UsageError
from aioseed.host.config import load_config


def overrides(*words: str | Path) -> list[str]:
    parser = Parser()
    add_listen_arguments(parser, "where")
    return transport_overrides(parser.parse_args([str(word) for word in words]))


def test_flags_that_are_not_given_override_nothing() -> None:
    assert overrides() == overrides("--listen", "ws://127.0.0.1:0") == []


def test_each_flag_says_its_key_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = overrides(
        "--tls-cert", "c.pem", "--tls-key", tmp_path / "k.pem", "--client-ca", "ca.pem", "--insecure-listen"
    )
    transport = load_config("cartpole", given).transport
    assert (transport.tls.certificate, transport.tls.key, transport.tls.client_ca) == tuple(
        tmp_path / name for name in ("c.pem", "k.pem", "ca.pem")
    ), "absolute: a run may go on from elsewhere"
    assert transport.allow_insecure and not transport.tls.self_signed
    transport = load_config("cartpole", overrides("--tls", "self-signed")).transport
    assert transport.tls.self_signed and not transport.allow_insecure


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tls-cert", "c.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-key", "k.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls", "self-signed", "--tls-cert", "c.pem", "--tls-key", "k.pem"], "either --tls self-signed"),
        (["--token-file", "there is none"], "there is none"),
    ],
)
def test_flags_that_cannot_be_used_are_said_before_anything_starts(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        overrides(*words)


def test_an_actor_is_told_of_the_token_and_the_certificate_where_there_are_such() -> None:
    file = Path("token")
    assert list(joining_words(None, None)) == []
    assert list(joining_words(file, None)) == ["--token-file", file]
    assert list(joining_words(file, "ab:cd")) == ["--token-file", file, "--fingerprint", "ab:cd"]
