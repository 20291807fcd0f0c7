"""TLS and mutual TLS over real sockets, on both transports: who is let in, and what the other is told."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aioseed_grpc import GrpcTransport
from aioseed_websocket import WebSocketTransport
from cryptography.hazmat.primitives import serialization

from aioseed.actor.run import run_actor
from aioseed.errors import AuthenticationError, CertificateError, ChannelClosed, ConnectError, ListenError, UsageError
from aioseed.testing.transport_kit import TRANSPORT_CHECKS
from aioseed.transport import (
    Channel,
    ClientTls,
    DialOptions,
    Keyring,
    Listener,
    ListenOptions,
    Secret,
    ServerTls,
    Transport,
)
from aioseed.transport.address import Address
from aioseed.transport.client_tls import dial_context

pytestmark = pytest.mark.may_block("what is tried here is read from files by the test itself")

TOKEN = Secret("right")
KINDS: dict[str, tuple[Callable[[], Transport], str]] = {
    "websocket": (WebSocketTransport, "wss://127.0.0.1:0"),
    "grpc": (GrpcTransport, "grpcs://127.0.0.1:0"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[Transport, str]:
    make, url = KINDS[request.param]
    return make(), url


async def echo(channel: Channel) -> None:
    while True:
        await channel.send(await channel.receive())


@asynccontextmanager
async def serving(kind: tuple[Transport, str], tls: ServerTls, **options: Any) -> AsyncIterator[Listener]:
    listener = await kind[0].listen(kind[1], echo, ListenOptions(Keyring.of(TOKEN), tls=tls, **options))
    try:
        yield listener
    finally:
        await listener.close(0.2)


async def echoed(kind: tuple[Transport, str], url: str, tls: ClientTls, token: Secret = TOKEN) -> bytes:
    async with await kind[0].dial(url, DialOptions(token, tls=tls, connect_timeout_s=20.0)) as channel:
        await channel.send(b"there and back")
        return await channel.receive()


def fingerprint_of(path: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()


@pytest.mark.every_loop
async def test_the_authority_and_the_name_let_in(kind, authority) -> None:
    async with serving(kind, ServerTls(*authority.issue("127.0.0.1"))) as listener:
        assert await echoed(kind, listener.url, ClientTls(ca=authority.file)) == b"there and back"
        with pytest.raises(AuthenticationError):
            await echoed(kind, listener.url, ClientTls(ca=authority.file), Secret("wrong"))


@pytest.mark.parametrize("names", [("elsewhere.example",), ("::", "0.0.0.0", "gpu-box"), ("fd00::1",), ()])
async def test_a_fingerprint_lets_in_without_authority_or_name(kind, stranger, names) -> None:
    issued = stranger.issue(*names)
    async with serving(kind, ServerTls(*issued)) as listener:
        known = ClientTls(fingerprint_of(issued.certificate))
        assert await echoed(kind, listener.url, known) == b"there and back"
        assert await echoed(kind, listener.url, known) == b"there and back"  # now from memory


@pytest.mark.parametrize(
    ("hosts", "days", "foreign", "reason", "said"),
    [
        (("127.0.0.1",), -1, False, "expired", "not valid now: certificate has expired; this machine's clock says 20"),
        (("127.0.0.1",), 30, True, "foreign", "not trusted"),
        (("elsewhere.example",), 30, False, "name", "for another name"),
    ],
)
async def test_a_certificate_that_is_not_right_has_its_own_error(
    kind, authority, stranger, hosts, days, foreign, reason, said
) -> None:
    issued = (stranger if foreign else authority).issue(*hosts, days=days)
    async with serving(kind, ServerTls(*issued)) as listener:
        with pytest.raises(CertificateError, match=said) as caught:
            await echoed(kind, listener.url, ClientTls(ca=authority.file))
    assert caught.value.reason == reason and caught.value.url == listener.url and "\n" not in str(caught.value)


@pytest.fixture
def two_addresses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Give what makes a name have two addresses: one that swallows what is sent there, and 127.0.0.1 behind it."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        for _ in range(3):  # of which the last find no room any more, as whoever comes later
            end = waiting.enter_context(socket.socket())
            end.setblocking(False)
            end.connect_ex(full.getsockname())

        def lead_to(port: int) -> None:
            addresses = (full.getsockname(), ("127.0.0.1", port))
            found = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]
            monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)

        yield lead_to


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full queue of connections refuses the next")
async def test_a_certificate_is_fetched_from_the_address_that_answers(stranger, two_addresses) -> None:
    issued = stranger.issue("learner.example")
    async with serving((WebSocketTransport(), "wss://127.0.0.1:0"), ServerTls(*issued)) as listener:
        port = urlsplit(listener.url).port or 0
        two_addresses(port)
        async with asyncio.timeout(20.0):
            context = await dial_context(
                Address("wss", "learner.example", port), ClientTls(fingerprint_of(issued.certificate))
            )
    assert context.cert_store_stats()["x509"] == 1


async def test_another_fingerprint_is_refused_before_the_token_is_sent(kind, authority) -> None:
    wanted = "ab" * 32
    async with serving(kind, ServerTls(*authority.issue("127.0.0.1"))) as listener:
        with pytest.raises(CertificateError, match=f"not {wanted}") as caught:
            await echoed(kind, listener.url, ClientTls(wanted))
    assert caught.value.reason == "fingerprint"


async def test_another_certificate_than_the_one_met_before_is_told_by_its_fingerprint(kind, stranger) -> None:
    former, new = stranger.issue("former.example"), stranger.issue("new.example")
    known = ClientTls(fingerprint_of(former.certificate))
    async with serving(kind, ServerTls(*former)) as listener:
        assert await echoed(kind, listener.url, known) == b"there and back"
    async with serving(kind, ServerTls(*new)) as listener:
        with pytest.raises(CertificateError, match=f"has the fingerprint {fingerprint_of(new.certificate)}, not"):
            await echoed(kind, listener.url, known)
    async with serving(kind, ServerTls(*former)) as listener:
        assert await echoed(kind, listener.url, known) == b"there and back"


async def test_where_nobody_listens_the_systems_words_say_so(kind, stranger) -> None:
    issued = stranger.issue("127.0.0.1")
    async with serving(kind, ServerTls(*issued)) as listener:
        url = listener.url
    with pytest.raises(ConnectError, match=f"{url}: Connection refused$"):
        await kind[0].dial(url, DialOptions(TOKEN, tls=ClientTls("cd" * 32)))


class HangsUp(asyncio.Protocol):
    """Hang up, at once or when something came, as a proxy does whose far end is away."""

    def __init__(
        self, *, at_once: bool, came: list[str] | None = None, here: set[asyncio.Transport] | None = None
    ) -> None:
        self._at_once = at_once
        self._came = [] if came is None else came
        self._here = set() if here is None else here
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._came.append(str(transport.get_extra_info("peername")))
        self._here.add(transport)
        if self._at_once:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._here.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._transport.close()


@asynccontextmanager
async def hanging_up(scheme: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Accept connections and close them, as a tunnel does whose far end is away; give its URL and who came."""
    came: list[str] = []
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: HangsUp(at_once=True, came=came), "127.0.0.1", 0) as server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", came


def unmade(count: int) -> Any:
    raise AssertionError("no environment is needed")


async def test_a_fingerprint_at_an_address_without_tls_is_refused_before_anything_is_sent(kind) -> None:
    plain, secure = kind[0].schemes
    async with hanging_up(plain) as (url, came):
        with pytest.raises(UsageError, match=f"{url} has no TLS.*dial {secure}://"):
            await run_actor(url, unmade, environments=1, token="right", tls=ClientTls("ab" * 32), wait_s=1.0)
    assert not came


@pytest.mark.every_loop
@pytest.mark.parametrize("tls", [ClientTls(), ClientTls("ab" * 32)], ids=["authority", "fingerprint"])
async def test_who_hangs_up_before_the_handshake_says_nothing_about_certificates(kind, tls) -> None:
    async with hanging_up(kind[0].schemes[1]) as (url, came):
        with pytest.raises(ConnectError, match=rf"{url}.*[^: ]$"):  # and says why
            await kind[0].dial(url, DialOptions(TOKEN, tls=tls))
    assert came


@asynccontextmanager
async def secure_far_end_away(scheme: str, issued: Any, *, at_once: bool) -> AsyncIterator[str]:
    """Shake hands over TLS, and hang up then."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(issued.certificate, issued.key)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    here: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HangsUp(at_once=at_once, here=here), "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    while here:  # TLS waits long for the other side's goodbye
        for transport in list(here):
            transport.abort()
        await asyncio.sleep(0)


@pytest.mark.every_loop
async def test_who_hangs_up_on_everybody_after_the_handshake_wants_no_certificate_of_ours(kind, authority) -> None:
    issued = authority.issue("127.0.0.1")
    async with secure_far_end_away(kind[0].schemes[1], issued, at_once=True) as url:
        with pytest.raises(ConnectError, match=url):
            await kind[0].dial(url, DialOptions(TOKEN, tls=ClientTls(ca=authority.file)))


async def test_to_ask_why_a_learner_hung_up_takes_no_longer_than_the_dial_may(authority) -> None:
    trust = ClientTls(ca=authority.file)
    async with secure_far_end_away("wss", authority.issue("127.0.0.1"), at_once=False) as url, asyncio.timeout(1.5):
        # The second where the machine is so busy that the handshake takes all of the time.
        with pytest.raises(ConnectError, match=r"hung up before it answered|did not answer within 0\.3 s"):
            await WebSocketTransport().dial(url, DialOptions(TOKEN, connect_timeout_s=0.3, tls=trust))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_no_client_gets_a_ticket_to_come_back_with(authority, version: ssl.TLSVersion) -> None:
    trust = ssl.create_default_context(cafile=authority.file)
    trust.maximum_version = version
    upward, downward = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(downward, upward, server_hostname="127.0.0.1")
    context = ServerTls(*authority.issue("127.0.0.1")).material.context
    server = context.wrap_bio(upward, downward, server_side=True)
    for _ in range(3):
        for end in (client, server):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    server.write(b"x")
    assert client.read() == b"x" and client.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert client.session is None or not client.session.has_ticket


async def test_an_expired_certificate_is_no_better_for_its_fingerprint(kind, authority) -> None:
    issued = authority.issue("127.0.0.1", days=-1)
    async with serving(kind, ServerTls(*issued)) as listener:
        with pytest.raises(CertificateError) as caught:
            await echoed(kind, listener.url, ClientTls(fingerprint_of(issued.certificate)))
    assert caught.value.reason == "expired"


@pytest.mark.every_loop
async def test_mutual_tls_wants_the_actors_certificate_too(kind, authority, stranger) -> None:
    tls = ServerTls(*authority.issue("127.0.0.1"), client_ca=authority.file)
    ours, theirs, old = authority.issue("actor"), stranger.issue("actor"), authority.issue("actor", days=-1)
    async with serving(kind, tls) as listener:
        trust = ClientTls(ca=authority.file)
        known = ClientTls(tls.material.fingerprint, certificate=ours.certificate, key=ours.key)
        assert await echoed(kind, listener.url, known) == b"there and back"
        for issued, said in ((None, "wants a certificate"), (theirs, "did not accept"), (old, "did not accept")):
            shown = trust if issued is None else trust._replace(certificate=issued.certificate, key=issued.key)
            with pytest.raises(CertificateError, match=said) as caught:
                await echoed(kind, listener.url, shown)
            assert caught.value.reason == "client"


@pytest.mark.every_loop
async def test_a_new_certificate_is_shown_without_ending_a_session(kind, authority, tmp_path) -> None:
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"

    def install(issued) -> None:
        for source, target in zip(issued, files, strict=True):
            draft = target.with_suffix(".new")
            draft.write_bytes(source.read_bytes())
            draft.chmod(0o600)
            draft.replace(target)

    install(authority.issue("127.0.0.1"))
    tls = ServerTls(*files)
    before = tls.material.fingerprint
    async with serving(kind, tls) as listener:
        async with await kind[0].dial(listener.url, DialOptions(TOKEN, tls=ClientTls(before))) as old:
            assert not await asyncio.to_thread(tls.refresh)
            install(authority.issue("127.0.0.1"))
            assert await asyncio.to_thread(tls.refresh)
            after = tls.material.fingerprint
            assert after != before
            assert await echoed(kind, listener.url, ClientTls(after)) == b"there and back"
            await old.send(b"still here")
            assert await old.receive() == b"still here"


async def test_plain_words_to_a_tls_port_and_the_other_way_round_are_connect_errors(kind, authority) -> None:
    async with serving(kind, ServerTls(*authority.issue("127.0.0.1"))) as listener:
        plain = listener.url.replace("s://", "://", 1)
        with pytest.raises(ConnectError):
            await kind[0].dial(plain, DialOptions(TOKEN, connect_timeout_s=3.0))


async def test_without_a_certificate_nobody_listens(kind) -> None:
    with pytest.raises(ListenError, match="there is no certificate"):
        await kind[0].listen(kind[1], echo, ListenOptions())


async def test_files_that_cannot_be_used_are_named(kind, authority, tmp_path, capfd) -> None:
    issued, other, none, empty = authority.issue("127.0.0.1"), authority.issue("x"), tmp_path / "none", tmp_path / "nil"
    empty.write_text("")
    async with serving(kind, ServerTls(*issued)) as listener:
        trust = ClientTls(ca=authority.file)
        for tls, said in (
            (ClientTls(ca=none), f"{none} .*: No such file"),
            (ClientTls(ca=empty), f"{empty} .*: no certificate"),
            (trust._replace(certificate=none), f"{none} .*: No such file"),
            (trust._replace(certificate=other.certificate), f"{other.certificate} .*no private key"),
            (
                trust._replace(certificate=other.certificate, key=none),
                f"{other.certificate} and {none} .*: No such file",
            ),
            (
                trust._replace(certificate=other.certificate, key=issued.key),
                f"and {issued.key} .*: key values mismatch",
            ),
        ):
            with pytest.raises(CertificateError, match=said) as caught:
                await echoed(kind, listener.url, tls)
            assert caught.value.reason == "files"
    assert capfd.readouterr().err == ""  # gRPC would add lines of its own


async def test_a_key_without_its_certificate_is_refused_before_anything_is_sent(kind, authority) -> None:
    async with hanging_up(kind[0].schemes[1]) as (url, came):
        tls = ClientTls(ca=authority.file, key=authority.issue("actor").key)
        with pytest.raises(UsageError, match="give --tls-cert with --tls-key"):
            await run_actor(url, unmade, environments=1, token="right", tls=tls, wait_s=1.0)
    assert not came


CHEAP = ("carries_every_legal_size", "slow_reader_is_cut", "listener_close_ends_channels")


@pytest.mark.parametrize("name", CHEAP)
async def test_the_promises_of_a_transport_hold_over_tls(kind, authority, name) -> None:
    issued = authority.issue("127.0.0.1")
    tls, trust = ServerTls(*issued), ClientTls(ca=authority.file)

    class Secure(Transport):
        schemes = kind[0].schemes

        async def listen(self, url, handler, options):
            return await kind[0].listen(url, handler, options._replace(tls=tls))

        async def dial(self, url, options):
            return await kind[0].dial(url, options._replace(tls=trust))

    @asynccontextmanager
    async def make():
        yield Secure(), kind[1]

    await TRANSPORT_CHECKS[name](make)


def test_a_key_that_others_can_read_is_refused(authority) -> None:
    issued = authority.issue("127.0.0.1")
    issued.key.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others: run chmod 600"):
        ServerTls(*issued)


def encrypted(issued: Any) -> Any:
    key = serialization.load_pem_private_key(issued.key.read_bytes(), None)
    with_password = serialization.BestAvailableEncryption(b"secret")
    issued.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, with_password)
    )
    return issued


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(authority) -> None:
    with pytest.raises(UsageError, match="cannot be used: its key is encrypted"):
        ServerTls(*encrypted(authority.issue("127.0.0.1")))


async def test_an_actors_key_with_a_password_is_refused_and_nobody_is_asked_for_it(kind, authority) -> None:
    ours = encrypted(authority.issue("actor"))
    async with serving(kind, ServerTls(*authority.issue("127.0.0.1"))) as listener:
        trust = ClientTls(ca=authority.file, certificate=ours.certificate, key=ours.key)
        with pytest.raises(CertificateError, match="cannot be used: its key is encrypted") as caught:
            await kind[0].dial(listener.url, DialOptions(TOKEN, tls=trust))
    assert caught.value.reason == "files"


def test_what_does_not_belong_together_is_refused_and_the_old_stays(authority, tmp_path) -> None:
    one, other = authority.issue("127.0.0.1"), authority.issue("127.0.0.1")
    tls = ServerTls(*one)
    shown = tls.material.fingerprint
    one.certificate.write_bytes(other.certificate.read_bytes())
    with pytest.raises(UsageError, match="cannot be used"):
        tls.refresh()
    assert tls.material.fingerprint == shown
    assert not tls.refresh()  # said once
    with pytest.raises(UsageError, match="cannot be used: it holds no certificate"):
        (tmp_path / "empty").write_text("")
        ServerTls(tmp_path / "empty", other.key)


def test_nothing_shows_a_key(authority) -> None:
    material = ServerTls(*authority.issue("127.0.0.1")).material
    assert "PRIVATE" not in repr(material) and material.fingerprint in repr(material)


async def test_a_revoked_session_ends_while_the_peer_says_nothing(kind, authority) -> None:
    """What the door does to a channel whose token is gone, here with TLS around it."""
    opened: asyncio.Queue[Channel] = asyncio.Queue()

    async def hold(channel: Channel) -> None:
        opened.put_nowait(channel)
        await channel.receive()

    tls = ServerTls(*authority.issue("127.0.0.1"))
    listener = await kind[0].listen(kind[1], hold, ListenOptions(Keyring.of(TOKEN), tls=tls))
    channel = await kind[0].dial(listener.url, DialOptions(TOKEN, tls=ClientTls(ca=authority.file)))
    far = await opened.get()
    assert far.credential is not None and far.credential.digest == TOKEN.digest()
    await asyncio.gather(far.close("gone"), ended(channel))
    await listener.close(0.2)


async def ended(channel: Channel) -> None:
    with pytest.raises(ChannelClosed):
        await channel.receive()
    await channel.close()
