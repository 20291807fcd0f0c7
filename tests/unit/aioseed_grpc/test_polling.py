"""The experiments are set while gRPC is imported, where they are known, and for nobody else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from aioseed_grpc import polling


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(polling.SWITCH, raising=False)
    monkeypatch.delenv(polling.VERBOSITY, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.parametrize(("release", "known"), [
    ("1.79.9", False), ("1.80.0", True), ("1.85.3", True), ("1.86.0rc1", False), ("2.0.0", False), ("unknown", False),
])  # fmt: skip
def test_only_releases_that_have_the_experiments_see_them(
    monkeypatch: pytest.MonkeyPatch, release: str, known: bool
) -> None:
    monkeypatch.setattr(polling, "version", lambda name: release)
    with polling.one_thread_reads():
        assert os.environ.get(polling.SWITCH) == (polling.EXPERIMENTS if known else None)
    assert polling.SWITCH not in os.environ


def test_what_the_user_has_set_stays_also_where_it_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "version", lambda name: "1.85.1")
    for given in ("", "fuse_filters"):
        monkeypatch.setenv(polling.SWITCH, given)
        with polling.one_thread_reads():
            assert os.environ[polling.SWITCH] == given
        assert os.environ[polling.SWITCH] == given


def test_elsewhere_than_on_linux_grpc_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with polling.one_thread_reads():
        assert polling.SWITCH not in os.environ


def test_nothing_is_left_set_where_the_import_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "version", lambda name: "1.85.1")
    with pytest.raises(ImportError), polling.one_thread_reads():
        raise ImportError
    assert polling.SWITCH not in os.environ


# The package imports gRPC, so its module is loaded without the package.
_IMPORT_GRPC = """
import os
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("polling", {path!r})
polling = module_from_spec(spec)
spec.loader.exec_module(polling)
polling.EXPERIMENTS += ",-no_such_experiment"
with polling.one_thread_reads():
    import grpc.aio
assert polling.SWITCH not in os.environ
"""


@pytest.mark.skipif(sys.platform != "linux", reason="gRPC is left as it is")
def test_grpc_reads_them_at_its_import_and_knows_ours() -> None:
    """gRPC says on standard error which of the experiments that it is told it does not know."""
    code = _IMPORT_GRPC.format(path=polling.__file__)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stderr.count("Unknown experiment") == 1, ran.stderr
    assert "no_such_experiment" in ran.stderr


_DIAL_A_NAME = """
import asyncio, os
from aioseed_grpc import GrpcTransport
from aioseed.transport import DialOptions, ListenOptions

async def listen(channel):
    await channel.receive()

async def main():
    transport = GrpcTransport()
    listener = await transport.listen("grpc://127.0.0.1:0", listen, ListenOptions())
    channel = await transport.dial(listener.url.replace("127.0.0.1", "127.1"), DialOptions())
    print("open", os.environ.get("GRPC_DNS_RESOLVER"))
    await channel.close()
    await listener.close()

asyncio.run(main())
"""


def test_a_name_that_the_system_knows_and_no_name_server_is_dialled() -> None:
    words = [sys.executable, "-c", _DIAL_A_NAME]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("open None\n", "")


def test_the_resolver_that_the_user_has_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(polling.RESOLVER, "ares")
    with polling.the_system_resolves():
        assert os.environ[polling.RESOLVER] == "ares"
    assert os.environ[polling.RESOLVER] == "ares"


_FAIL_A_HANDSHAKE = """
import asyncio, os
from aioseed_grpc import GrpcTransport
from aioseed.errors import ConnectError
from aioseed.transport import DialOptions

async def main():
    async def answer(reader, writer):
        writer.write(b"no TLS")
        writer.close()
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        try:
            await GrpcTransport().dial(f"grpcs://127.0.0.1:{server.sockets[0].getsockname()[1]}", DialOptions())
        except ConnectError:
            print("told", os.environ.get("GRPC_VERBOSITY"))

asyncio.run(main())
"""


def test_grpc_says_nothing_of_a_failed_handshake() -> None:
    words = [sys.executable, "-c", _FAIL_A_HANDSHAKE]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("told None\n", "")


_SEND_WHAT_IS_NO_TLS = """
import asyncio, os, socket, ssl, sys
from pathlib import Path
from aioseed_grpc import GrpcTransport
from aioseed.transport import ListenOptions, ServerTls

def interfere(port):
    trust = ssl.create_default_context(cafile=sys.argv[3])
    trust.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with trust.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
            os.write(secure.fileno(), bytes.fromhex("1703030040") + bytes(64))  # past the TLS that is around the socket
            while os.read(secure.fileno(), 4096):
                pass

async def main():
    tls = ServerTls(Path(sys.argv[1]), Path(sys.argv[2]))
    listener = await GrpcTransport().listen("grpcs://127.0.0.1:0", None, ListenOptions(tls=tls))
    await asyncio.to_thread(interfere, int(listener.url.rpartition(":")[2]))
    await listener.close()

asyncio.run(main())
"""


def test_grpc_says_nothing_of_what_a_stranger_sends(authority) -> None:
    issued = authority.issue("127.0.0.1")
    words = [sys.executable, "-c", _SEND_WHAT_IS_NO_TLS, issued.certificate, issued.key, authority.file]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stderr == ""


def test_grpc_says_what_the_user_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(polling.VERBOSITY, "DEBUG")
    with polling.nothing_is_written():
        assert os.environ[polling.VERBOSITY] == "DEBUG"
    assert os.environ[polling.VERBOSITY] == "DEBUG"
