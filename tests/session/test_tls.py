"""TLS towards clients, seen from inside: what the handshake tells the rest of the process."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import issue, make_certificates
from tests.support.running import Running, RunProxy


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
