"""What holds for every test: JAX on the CPU, repeatable examples, and no blocking call of ours on an event loop."""

from __future__ import annotations

import asyncio
import datetime
import gc
import importlib.util
import ipaddress
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

# Before anything imports JAX. A machine with an accelerator may say otherwise.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Most tests compile a program to run it for milliseconds, so LLVM is told not to optimise it: that saves a third of the
# time. The commands of tests/e2e, `make learning` and `make chaos` have what users have.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# asyncio's debug mode notes ten frames at each future and handle, and looks for the source of each on the disk: a
# fifteenth of what the tests of whole learners took. One says where.
asyncio.constants.DEBUG_STACK_DEPTH = 1  # type: ignore[misc]

# A shell starts what it puts into the background without Ctrl-C, and children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# And nohup without the end of the terminal.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

OUR_PACKAGES = (
    "aioseed",
    "aioseed_websocket",
    "aioseed_grpc",
    "aioseed_gymnasium",
    "aioseed_football",
    "aioseed_dmlab",
    "aioseed_described",
)

# Same examples in every run, so that red means broken; `pytest --hypothesis-profile=thorough` looks for new ones.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose the loops that a coroutine test runs on; see the markers in pyproject.toml."""
    if item.get_closest_marker("virtual_time"):
        from aioseed.testing.virtual_time import VirtualTimeLoop

        return {"virtual": VirtualTimeLoop}
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    every, programs = item.get_closest_marker("every_loop"), item.get_closest_marker("loop_of_programs")
    if (every or programs) and importlib.util.find_spec("uvloop"):
        import uvloop

        fast = {"uvloop": uvloop.new_event_loop}
        return factories | fast if every else fast
    return factories


@pytest.fixture(scope="module", autouse=True)
def _short_collections() -> None:
    """Keep full collections short: over all that a worker has imported and compiled they stop it for seconds.

    That is longer than a transport gives its peer to close.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _blocking_calls() -> BlockBuster:
    """Return a detector of blocking calls that have a frame of ours below them on the stack."""
    specs = [importlib.util.find_spec(name) for name in OUR_PACKAGES]
    # Not imported: a package that does not import must fail its own tests, not everybody's.
    return BlockBuster([importlib.util.module_from_spec(spec) for spec in specs if spec is not None])


@pytest.fixture(autouse=True)
def _no_blocking_call_on_the_loop(request: pytest.FixtureRequest, _blocking_calls: BlockBuster) -> Iterator[None]:
    """Fail a coroutine test in which aioseed blocks the event loop."""
    is_coroutine = request.node.get_closest_marker("asyncio") is not None
    if not is_coroutine or request.node.get_closest_marker("may_block"):
        yield
        return
    _blocking_calls.activate()
    try:
        yield
    finally:
        _blocking_calls.deactivate()


@pytest.fixture(autouse=True)
def _logs_reach_the_test() -> Iterator[None]:
    """Undo what a command run in this process did to our log: `caplog` listens at the root."""
    ours = logging.getLogger("aioseed")
    handlers, level = list(ours.handlers), ours.level
    ours.propagate = True
    yield
    for handler in [handler for handler in ours.handlers if handler not in handlers]:
        ours.removeHandler(handler)
        handler.close()
    ours.setLevel(level)
    ours.propagate = True


_NO_USE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


class Issued(NamedTuple):
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Sign certificates for tests: for whom and until when the test says."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._count = 0
        self.file = directory / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(self._sign(self._key, name, [], days=30, authority=True))

    def issue(self, *hosts: str, days: float = 30, subject: str = "subject") -> Issued:
        """Return a new certificate for `hosts` that is valid for `days` from now; negative: no longer."""
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import ec

        self._count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        issued = Issued(
            self._directory / f"{self._name[:4]}{self._count}.pem",
            self._directory / f"{self._name[:4]}{self._count}.key",
        )
        issued.certificate.write_bytes(self._sign(key, subject, list(hosts), days=days, authority=False))
        issued.key.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
        issued.key.chmod(0o600)
        return issued

    def _sign(self, key: Any, subject: str, hosts: list[str], *, days: float, authority: bool) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509.oid import NameOID

        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.datetime.now(datetime.UTC)
        ours = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        made = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # From Python 3.13 on nobody is trusted by default whose authority does not say which key it is.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours), critical=False)
        )
        if authority:
            signs = dict.fromkeys(("key_cert_sign", "crl_sign"), True)
            made = made.add_extension(x509.KeyUsage(**_NO_USE | signs), critical=True)
        if hosts:
            names = [
                x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() or ":" in host else x509.DNSName(host)
                for host in hosts
            ]
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority, which nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "unknown authority")
