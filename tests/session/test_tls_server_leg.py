"""TLS towards the server: every sslmode against real servers, and errors that say what to change."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.demo.postgres import EmbeddedPostgres, password_of
from proxy.wire.messages import ErrorFields
from proxy.wire.startup import encode_ssl_request
from tests.support.certificates import issue, make_authority, make_certificates
from tests.support.npm_postgres import NpmPostgres
from tests.support.running import Running, RunProxy

pytestmark = pytest.mark.once

NpmServer = Callable[[int], NpmPostgres]
VERSIONS = pytest.mark.parametrize("version", [13, 17, 18])
WITH_DIRECT_TLS = pytest.mark.parametrize("version", [17, 18])
ENCRYPTED = "SELECT ssl, version, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def url(server: Any, host: str = "127.0.0.1", **more: str) -> str:
    keys = "&".join(f"{name}={value}" for name, value in more.items())
    return f"postgresql://app:{password_of('app')}@{host}:{server.port}/app?{keys}"


async def row(proxy: Running, sql: str = ENCRYPTED, user: str = "app") -> tuple[str | None, ...]:
    client = await proxy.connect(user)
    answer = await client.query(sql)
    await client.leave()
    return answer.rows[0]


async def error(proxy: Running) -> ErrorFields:
    """What a client reads that cannot be served."""
    client = await proxy.connect_or_error("app")
    assert isinstance(client, ErrorFields)
    return client


@VERSIONS
@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
async def test_every_sslmode_gets_in(run_proxy: RunProxy, npm_postgres: NpmServer, version: int, sslmode: str) -> None:
    server = npm_postgres(version)
    roots = {"sslrootcert": str(server.ca_path)} if sslmode.startswith("verify") else {}
    proxy = await run_proxy(url(server, sslmode=sslmode, **roots))
    assert (await row(proxy))[0] == ("f" if sslmode in ("disable", "allow") else "t")


@VERSIONS
@pytest.mark.parametrize(("refused", "sslmode", "encrypted"), [
    ("hostnossl", "allow", "t"), ("hostssl", "prefer", "f"), ("hostnossl", "prefer", "t"), ("hostssl", "allow", "f"),
])  # fmt: skip
async def test_allow_and_prefer_take_the_other_way_where_the_server_wants_it(
    run_proxy: RunProxy, make_npm_postgres: Callable[..., NpmPostgres], version: int, refused: str, sslmode: str,
    encrypted: str,
) -> None:  # fmt: skip
    server = make_npm_postgres(version, rules=[f"{refused} all web all reject"])
    proxy = await run_proxy(url(server, sslmode=sslmode))
    assert (await row(proxy, user="web"))[0] == encrypted
    assert (await row(proxy, user="app"))[0] == ("f" if sslmode == "allow" else "t"), "what is refused to one user only"


async def test_a_user_who_is_refused_either_way_reads_the_servers_own_words(
    run_proxy: RunProxy, make_npm_postgres: Callable[..., NpmPostgres]
) -> None:
    server = make_npm_postgres(17, rules=["host all web all reject"])
    proxy = await run_proxy(url(server, sslmode="prefer"))
    for _ in range(2):
        told = await proxy.connect_or_error("web")
        assert isinstance(told, ErrorFields)
        assert told.code == "28000"
        assert "pg_hba.conf" in told.message


async def test_a_server_without_tls_is_not_talked_to_where_it_is_demanded(
    run_proxy: RunProxy, embedded_postgres_18: EmbeddedPostgres
) -> None:
    proxy = await run_proxy(url(embedded_postgres_18, sslmode="require"))
    told = await error(proxy)
    assert told.message == "the server does not support TLS, but sslmode=require demands it"
    assert "upstream.url" in (told.hint or "")


# -- who the server is ------------------------------------------------------------------------------------------------


async def test_a_certificate_for_another_name_is_told_with_its_names_and_the_setting(
    run_proxy: RunProxy, npm_postgres: NpmServer
) -> None:
    server = npm_postgres(18)
    address = url(server, "127.0.0.2", hostaddr="127.0.0.1", sslmode="verify-full", sslrootcert=str(server.ca_path))
    proxy = await run_proxy(address)
    told = await error(proxy)
    assert told.message.endswith("the server's certificate names localhost, 127.0.0.1, and not 127.0.0.2")
    assert "upstream.server_name" in (told.hint or "")


async def test_the_name_in_the_certificate_can_be_set_apart_from_the_host(
    run_proxy: RunProxy, make_npm_postgres: Callable[..., NpmPostgres]
) -> None:
    """As through a tunnel: what is dialled is not what the certificate names."""
    server = make_npm_postgres(17, names="DNS:db.internal.test")
    address = url(server, sslmode="verify-full", sslrootcert=str(server.ca_path))
    proxy = await run_proxy(address, upstream={"server_name": "db.internal.test"})
    assert (await row(proxy))[0] == "t"


async def test_an_authority_that_nobody_trusts_is_told_with_the_setting(
    run_proxy: RunProxy, npm_postgres: NpmServer, tmp_path: Path
) -> None:
    make_authority(tmp_path)
    server = npm_postgres(17)
    proxy = await run_proxy(url(server, sslmode="verify-ca", sslrootcert=str(tmp_path / "ca.crt")))
    told = await error(proxy)
    assert "its certificate is not trusted" in told.message
    assert "sslrootcert" in (told.hint or "")


async def test_the_authorities_of_the_system(
    run_proxy: RunProxy, npm_postgres: NpmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = npm_postgres(18)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.ca_path))
    proxy = await run_proxy(url(server, sslrootcert="system"))
    assert (await row(proxy))[0] == "t"


async def test_renewed_roots_are_used_after_a_reload(
    run_proxy: RunProxy, npm_postgres: NpmServer, tmp_path: Path
) -> None:
    server, roots = npm_postgres(17), tmp_path / "roots.crt"
    make_authority(tmp_path)
    shutil.copy(tmp_path / "ca.crt", roots)
    proxy = await run_proxy(
        url(server, sslmode="verify-full", sslrootcert=str(roots)), pool={"retry_min": "50ms", "retry_max": "100ms"}
    )
    assert "not trusted" in (await error(proxy)).message
    shutil.copy(server.ca_path, roots)
    proxy.reload()
    await proxy.until_up()
    assert (await row(proxy))[0] == "t"


# -- who we are -------------------------------------------------------------------------------------------------------


@VERSIONS
async def test_the_servers_demand_for_a_certificate_is_met(
    run_proxy: RunProxy, make_npm_postgres: Callable[..., NpmPostgres], version: int
) -> None:
    server = make_npm_postgres(version, rules=["hostssl all all all scram-sha-256 clientcert=verify-ca"])
    issue(server.root, "proxy", subject="/CN=pgheadroom")
    keys = {"sslcert": str(server.root / "proxy.crt"), "sslkey": str(server.root / "proxy.key")}
    proxy = await run_proxy(url(server, sslmode="require", **keys))
    assert (await row(proxy))[2] == "/CN=pgheadroom"
    without = await run_proxy(url(server, sslmode="require"))
    assert "connection requires a valid client certificate" in (await error(without)).message


# -- direct TLS -------------------------------------------------------------------------------------------------------


@WITH_DIRECT_TLS
@pytest.mark.parametrize("sslmode", ["require", "verify-full"])
async def test_the_handshake_may_come_first(
    run_proxy: RunProxy, npm_postgres: NpmServer, version: int, sslmode: str
) -> None:
    server = npm_postgres(version)
    proxy = await run_proxy(url(server, sslmode=sslmode, sslnegotiation="direct", sslrootcert=str(server.ca_path)))
    assert (await row(proxy))[0] == "t"
    assert "SSLRequest" not in server.log_text()


async def test_an_older_server_that_is_greeted_with_a_handshake_is_told_with_the_setting(
    run_proxy: RunProxy, npm_postgres: NpmServer
) -> None:
    proxy = await run_proxy(url(npm_postgres(13), sslmode="require", sslnegotiation="direct"))
    told = await error(proxy)
    assert "TLS with the server failed" in told.message
    assert "sslnegotiation=postgres" in (told.hint or "")


# -- what servers see, and what they might try ------------------------------------------------------------------------


class SniServer:
    """Takes the handshake after an SSLRequest, notes the name it was asked for, and hangs up."""

    def __init__(self, folder: Path, *, extra: bytes = b"") -> None:
        make_certificates(folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self.context.sni_callback = lambda _, name, __: self.names.append(name)
        self.names: list[str | None] = []
        self.extra = extra

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == encode_ssl_request()
        transport = writer.transport
        transport.pause_reading()
        writer.write(b"S" + self.extra)
        with suppress(OSError):
            await asyncio.get_running_loop().start_tls(
                transport, transport.get_protocol(), self.context, server_side=True
            )
        transport.abort()


@asynccontextmanager
async def listening(server: SniServer) -> AsyncIterator[int]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("host", "keys", "setting", "shown"),
    [
        ("localhost", "", None, "localhost"),
        ("localhost", "&hostaddr=127.0.0.1", None, "localhost"),
        ("127.0.0.1", "", None, None),
        ("127.0.0.1", "", "db.example", "db.example"),
        ("localhost", "&sslsni=0", None, None),
    ],
)
async def test_the_name_that_a_server_is_asked_for(
    run_proxy: RunProxy, tmp_path: Path, host: str, keys: str, setting: str | None, shown: str | None
) -> None:
    server = SniServer(tmp_path)
    async with listening(server) as port:
        upstream = {} if setting is None else {"server_name": setting}
        await run_proxy(f"postgresql://app@{host}:{port}/app?sslmode=require{keys}", upstream=upstream)
        assert set(server.names) == {shown}


async def test_nothing_sent_in_the_clear_behind_the_servers_consent_is_read(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    """CVE-2021-23222: whoever sits on the wire could answer the first query ahead of the handshake."""
    async with listening(SniServer(tmp_path, extra=b"R\0\0\0\x08\0\0\0\0")) as port:
        proxy = await run_proxy(f"postgresql://app@127.0.0.1:{port}/app?sslmode=require")
        assert "answered an SSLRequest with something else" in (await error(proxy)).message


async def test_a_server_that_does_not_name_the_protocol_is_not_told_who_wants_to_log_in(
    run_proxy: RunProxy, tmp_path: Path
) -> None:
    """Direct TLS at the port of something else: the handshake alone would go well."""
    server = SniServer(tmp_path)
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server.context)
    port = listener.sockets[0].getsockname()[1]
    proxy = await run_proxy(f"postgresql://app@127.0.0.1:{port}/app?sslmode=require&sslnegotiation=direct")
    told = await error(proxy)
    assert "ALPN" in told.message
    assert "sslnegotiation=postgres" in (told.hint or "")
    listener.close()
    assert set(heard) <= {b""}
