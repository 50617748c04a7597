"""TLS contexts from file names and modes.

Owns: what each sslmode and each listen.tls.mode checks, and the words for files that do not work.
Does not know: sockets, when a handshake happens.
Source: PostgreSQL manual, "SSL Support" (libpq-ssl), table "SSL Mode Descriptions".
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from proxy.service.config.model import ListenTls
from proxy.service.config.upstream_url import UpstreamUrl
from proxy.session.encryption import ServerContext, TlsOffer
from proxy.session.handshake import ALPN_PROTOCOL
from proxy.session.settings import SslMode, UpstreamTls

_VERSIONS: Final = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


class TlsFilesUnusable(Exception):  # noqa: N818 - says what is
    """A certificate, key or CA file cannot be used; the text names the setting and the file."""


def upstream_tls(url: UpstreamUrl, server_name: str | None = None) -> UpstreamTls:
    """How the server is dialled. `server_name` is wanted in its certificate instead of the host. Raises
    TlsFilesUnusable."""
    mode = SslMode(url.sslmode)
    if mode is SslMode.DISABLE:
        return UpstreamTls()
    any_name = None
    if mode is SslMode.VERIFY_FULL:
        any_name = _upstream_context(url, SslMode.VERIFY_CA)
    return UpstreamTls(
        context=_upstream_context(url, mode),
        any_name=any_name,
        server_name=server_name,
        sends_name=url.sslsni,
        is_direct=url.sslnegotiation == "direct",
    )


def _upstream_context(url: UpstreamUrl, mode: SslMode) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[url.ssl_min_protocol_version]
    if url.ssl_max_protocol_version is not None:
        context.maximum_version = _VERSIONS[url.ssl_max_protocol_version]
    context.set_alpn_protocols([ALPN_PROTOCOL])
    # As libpq: a root certificate makes "require" verify like verify-ca.
    verifies = mode in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL) or url.sslrootcert is not None
    context.check_hostname = mode is SslMode.VERIFY_FULL
    context.verify_mode = ssl.CERT_REQUIRED if verifies else ssl.CERT_NONE
    if verifies:
        _load_roots(context, url)
    if url.sslcert is not None:
        _load("upstream.url sslcert/sslkey", url.sslcert, lambda: _load_chain(context, url))
    return context


def _load_chain(context: ssl.SSLContext, url: UpstreamUrl) -> None:
    assert url.sslcert is not None, "called where there is one"
    context.load_cert_chain(url.sslcert, url.sslkey, url.sslpassword or "")


def _load_roots(context: ssl.SSLContext, url: UpstreamUrl) -> None:
    if url.sslrootcert == "system":
        context.load_default_certs()
        return
    roots = url.sslrootcert or str(Path("~/.postgresql/root.crt").expanduser())
    _load("upstream.url sslrootcert", roots, lambda: context.load_verify_locations(roots))


def tls_offer(tls: ListenTls) -> TlsOffer | None:
    """What clients are shown, or None where there is no certificate to show. Raises TlsFilesUnusable."""
    if tls.mode == "disable" or tls.cert is None:
        return None
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN_PROTOCOL])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION  # as the server: sessions are not resumed
    context.num_tickets = 0
    cert, key = str(tls.cert), str(tls.key) if tls.key is not None else None
    _load("listen.tls.cert and listen.tls.key", cert, lambda: context.load_cert_chain(cert, key))
    if tls.client_ca is not None:
        roots = str(tls.client_ca)
        # Whoever shows none gets through the handshake: it can be told what is missing only behind it.
        context.verify_mode = ssl.CERT_OPTIONAL
        _load("listen.tls.client_ca", roots, lambda: context.load_verify_locations(roots))
    return TlsOffer(context, _first_certificate(tls.cert))


def _first_certificate(chain: Path) -> bytes:
    """The proxy's own: it stands first in the chain, which OpenSSL has read already."""
    text = chain.read_text(errors="replace")
    begin = text.find(ssl.PEM_HEADER)
    end = text.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        raise TlsFilesUnusable(f"listen.tls.cert: {chain} holds no {ssl.PEM_HEADER}")
    return ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])


def _load(setting: str, file: str, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ssl.SSLError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror
        raise TlsFilesUnusable(f"{setting}: {file} cannot be used: {reason or error}") from None
