"""What the commands that listen have in common: their flags, and the command that joins an actor."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from aioseed.actor.token import read_keys
from aioseed.cli.common import Parser, given_flags
from aioseed.errors import UsageError

SECURE_SCHEMES = ("wss", "grpcs")
"""Schemes of addresses at which the learner shows its certificate."""


def add_listen_arguments(words: Parser, listen_help: str) -> None:
    """Add the flags that say where to listen and who may come."""
    words.add_argument("--listen", action="append", metavar="URL", help=listen_help)
    words.add_argument(
        "--token-file",
        type=Path,
        help="secrets of which actors must show one (or set AIOSEED_TOKEN); needed off loopback",
    )
    words.add_argument("--tls", choices=("self-signed",), help="make a certificate for wss:// and grpcs:// addresses")
    words.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="certificate in PEM form; read anew when it changes"
    )
    words.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key")
    words.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="want actors' certificates signed by one of these"
    )
    words.add_argument(
        "--insecure-listen",
        action="store_true",
        help="listen to other machines without token or TLS: whoever reaches the port can join, read and change all",
    )


def transport_overrides(words: Namespace) -> list[str]:
    """Return what the flags say as overrides of the configuration, after a look into the token file.

    Raises:
        UsageError: The token file cannot be used.
    """
    if words.token_file is not None:
        read_keys(words.token_file)
    if (words.tls_cert is None) != (words.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    if words.tls is not None and words.tls_cert is not None:
        raise UsageError("either --tls self-signed makes a certificate, or --tls-cert gives one")
    values = {
        "tls.self_signed": True if words.tls else None,
        "tls.certificate": _text(words.tls_cert),
        "tls.key": _text(words.tls_key),
        "tls.client_ca": _text(words.client_ca),
        "allow_insecure": True if words.insecure_listen else None,
    }
    return [f"transport.{path}={json.dumps(value)}" for path, value in values.items() if value is not None]


def listening_words(words: Namespace, listen: Sequence[str]) -> list[object]:
    """Return the flags of `add_listen_arguments` to say again, for the addresses `listen`."""
    flags = {
        "--token-file": words.token_file,
        "--tls": words.tls,
        "--tls-cert": words.tls_cert,
        "--tls-key": words.tls_key,
        "--client-ca": words.client_ca,
        "--insecure-listen": words.insecure_listen,
    }
    return [*(word for url in listen for word in ("--listen", url)), *given_flags(flags)]


def joining_words(token_file: Path | None, fingerprint: str | None) -> Sequence[object]:
    """Return the flags with which an actor shows its token and knows the learner."""
    token = [] if token_file is None else ["--token-file", token_file]
    return [*token, *([] if fingerprint is None else ["--fingerprint", fingerprint])]


def _text(path: Path | None) -> str | None:
    # Absolute, since the configuration is kept in the run directory and may be read from elsewhere.
    return None if path is None else str(path.absolute())
