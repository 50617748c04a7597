"""TLS towards clients, seen from inside: what the handshake tells the rest of the process."""

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import psycopg
import pytest

from proxy.wire.messages import ErrorFields
from proxy.wire.startup import encode_ssl_request, encode_startup
from tests.support.certificates import issue, make_certificates
from tests.support.eventually import eventually
from tests.support.running import Running, RunProxy
from tests.support.wire_client import WireClient

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proxy's (ca.crt, server.crt) and a client's (client.crt)."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    issue(folder, "client", subject="/DC=example/O=Jobs, Inc./CN=app")
    return folder


def listening(certificates: Path, mode: str, **more: Any) -> dict[str, Any]:
    """The section `listen` of the configuration."""
    names = {"cert": "server.crt", "key": "server.key", **more}
    return {"tls": {"mode": mode, **{key: str(certificates / name) for key, name in names.items()}}}


def client_keys(certificates: Path) -> dict[str, str]:
    return {
        "sslmode": "verify-full",
        "sslrootcert": str(certificates / "ca.crt"),
        "sslcert": str(certificates / "client.crt"),
        "sslkey": str(certificates / "client.key"),
    }


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def only_identity(running: Running) -> Any:
    (client,) = running.desk.clients
    return client.identity


async def test_a_client_is_known_by_its_certificate_and_by_what_it_was_shown(
    run_proxy: RunProxy, certificates: Path
) -> None:
    proxy = await run_proxy(listen=listening(certificates, "verify", client_ca="ca.crt"))
    connection = await proxy.psycopg(**client_keys(certificates))
    tls = only_identity(proxy).tls
    assert tls.certificate_der == der(certificates / "server.crt")
    assert (tls.common_name, tls.distinguished_name) == ("app", "CN=app,O=Jobs\\, Inc.,DC=example")
    assert tls.is_verified
    await connection.close()


async def test_a_client_without_a_certificate_is_no_verified_one(run_proxy: RunProxy, certificates: Path) -> None:
    proxy = await run_proxy(listen=listening(certificates, "require"))
    connection = await proxy.psycopg(sslmode="require")
    tls = only_identity(proxy).tls
    assert tls.certificate_der == der(certificates / "server.crt")
    assert not tls.is_verified
    await connection.close()


async def test_a_leg_in_the_clear_has_no_tls(run_proxy: RunProxy, certificates: Path) -> None:
    proxy = await run_proxy(listen=listening(certificates, "allow"))
    connection = await proxy.psycopg(sslmode="disable")
    assert only_identity(proxy).tls is None
    await connection.close()


# -- the way into TLS -------------------------------------------------------------------------------------------------


async def test_nothing_sent_in_the_clear_behind_an_ssl_request_is_taken_for_encrypted(
    run_proxy: RunProxy, certificates: Path
) -> None:
    """CVE-2021-23214: whoever sits on the wire could put a query ahead of the handshake."""
    proxy = await run_proxy(listen=listening(certificates, "require"))
    client = await proxy.open()
    await client.send(encode_ssl_request() + encode_startup({"user": "app"}))
    answer = await client.answer()
    assert answer.codes == ["08P01"]
    assert "before it was answered" in answer.errors[0].message
    assert proxy.measures.protocol_violations["startup"] == 1


async def test_plaintext_instead_of_a_handshake_ends_the_connection(run_proxy: RunProxy, certificates: Path) -> None:
    proxy = await run_proxy(listen=listening(certificates, "require"))
    client = await proxy.open()
    await client.send(encode_ssl_request())
    assert await client.reader.readexactly(1) == b"S"
    await client.send(encode_startup({"user": "app", "database": "app"}))
    rest = await client.reader.read()
    assert rest[:1] in (b"", b"\x15"), "a TLS alert at most, and no word of the protocol"
    await client.abort()
    await eventually(lambda: proxy.measures.client_tls_failures == 1)


class HandMadeTls:
    """A TLS client whose records a test sends as it likes."""

    def __init__(self, certificates: Path, *, alpn: str | None) -> None:
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        if alpn is not None:
            context.set_alpn_protocols([alpn])
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    async def finish(self, client: WireClient) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.incoming.write(await client.reader.read(65536))
            else:
                return

    async def say(self, client: WireClient, data: bytes) -> None:
        """Behind what is left of the handshake, in the same segment: as drivers do it."""
        self.tls.write(data)
        await client.send(self.outgoing.read())

    async def hear(self, client: WireClient) -> bytes:
        while True:
            try:
                return self.tls.read()
            except ssl.SSLWantReadError:
                data = await client.reader.read(65536)
                assert data, "the connection ended"
                self.incoming.write(data)


STARTUP = encode_startup({"user": "app", "database": "app"})


@pytest.mark.parametrize("first", [1, 3, 6, 100])
async def test_a_handshake_that_comes_unasked_may_come_in_pieces(
    run_proxy: RunProxy, certificates: Path, first: int
) -> None:
    proxy = await run_proxy(listen=listening(certificates, "allow"))
    client, tls = await proxy.open(), HandMadeTls(certificates, alpn="postgresql")
    hello = tls.hello()
    await client.send(hello[:first])
    await eventually(lambda: "TLS handshake of a client" in proxy.process.tasks.names())
    await client.send(hello[first:])
    await tls.finish(client)
    await tls.say(client, STARTUP)
    assert (await tls.hear(client))[:1] == b"R"


async def test_a_handshake_that_comes_unasked_must_be_meant_for_postgresql(
    run_proxy: RunProxy, certificates: Path
) -> None:
    proxy = await run_proxy(listen=listening(certificates, "allow"))
    client, tls = await proxy.open(), HandMadeTls(certificates, alpn=None)
    await client.send(tls.hello())
    await tls.finish(client)
    await tls.say(client, STARTUP)
    assert b"ALPN" in await tls.hear(client)


async def test_a_client_that_never_finishes_its_handshake_is_let_go(run_proxy: RunProxy, certificates: Path) -> None:
    listen = {**listening(certificates, "require"), "login_timeout": "300ms"}
    proxy = await run_proxy(listen=listen)
    client = await proxy.open()
    await client.send(HandMadeTls(certificates, alpn="postgresql").hello()[:50])
    assert await client.reader.read() == b""
    await eventually(lambda: proxy.desk.connected == 0)


async def test_a_client_that_leaves_in_the_middle_of_its_handshake_is_counted_no_more(
    run_proxy: RunProxy, certificates: Path
) -> None:
    proxy = await run_proxy(listen=listening(certificates, "require"))
    client = await proxy.open()
    await client.send(HandMadeTls(certificates, alpn="postgresql").hello()[:50])
    await eventually(lambda: proxy.desk.connected == 1)
    await client.abort()
    await eventually(lambda: proxy.desk.connected == 0)
    assert proxy.measures.client_tls_failures == 1


# -- another certificate while running --------------------------------------------------------------------------------


async def shown(proxy: Running) -> bytes | None:
    """The certificate that a new client sees."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return der if isinstance(der, bytes) else None


async def test_a_renewed_certificate_is_shown_after_a_reload_and_old_connections_stay(
    run_proxy: RunProxy, certificates: Path, tmp_path: Path
) -> None:
    for name in ("ca.crt", "ca.key", "server.crt", "server.key"):
        shutil.copy(certificates / name, tmp_path / name)
    proxy = await run_proxy(listen=listening(tmp_path, "require"))
    old = await proxy.psycopg(sslmode="require")
    issue(tmp_path, "server", subject="/CN=localhost", names="DNS:localhost,IP:127.0.0.1")
    assert await shown(proxy) == der(certificates / "server.crt")
    proxy.reload()
    assert await shown(proxy) == der(tmp_path / "server.crt") != der(certificates / "server.crt")
    assert only_identity(proxy).tls.certificate_der == der(certificates / "server.crt")
    assert (await (await old.execute("SELECT 1")).fetchone()) == (1,)
    await old.close()


async def test_what_clients_are_offered_of_tls_is_that_of_the_last_reload(
    run_proxy: RunProxy, certificates: Path
) -> None:
    """Mode and authority: who is connected stays, and whoever comes next has to do as the file says now."""
    proxy = await run_proxy(listen=listening(certificates, "allow"))
    old = await proxy.connect()
    proxy.reload(listen=listening(certificates, "verify", client_ca="ca.crt"))
    refused = await proxy.connect_or_error()
    assert isinstance(refused, ErrorFields)
    assert refused.code == "28000"
    for parameters, is_let_in in ((client_keys(certificates), True), ({"sslmode": "require"}, False)):
        try:
            await (await proxy.psycopg(**parameters)).close()
            assert is_let_in
        except psycopg.OperationalError:
            assert not is_let_in
    assert await old.value("select 1") == "1"
    proxy.reload(listen=listening(certificates, "disable") | {"tls": {"mode": "disable"}})
    await (await proxy.psycopg(sslmode="prefer")).close()
    with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
        await proxy.psycopg(sslmode="require")


async def test_a_reload_with_a_broken_certificate_is_refused_and_changes_nothing(
    run_proxy: RunProxy, certificates: Path, tmp_path: Path
) -> None:
    for name in ("server.crt", "server.key"):
        shutil.copy(certificates / name, tmp_path / name)
    proxy = await run_proxy(listen=listening(tmp_path, "require"))
    (tmp_path / "server.crt").write_text("not a certificate")
    with pytest.raises(Exception, match=r"listen\.tls\.cert.*server\.crt"):
        proxy.reload()
    assert await shown(proxy) == der(certificates / "server.crt")
