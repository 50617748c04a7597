"""What TLS is about on one connection: what is shown, who the peer proved to be.

Owns: these facts as values, reading them off a transport, the context that makes them.
Does not know: files, modes, when a handshake happens, what authentication makes of the facts.
Source: PostgreSQL manual, "SASL Authentication" (sasl-authentication): channel binding tls-server-end-point hashes the
certificate of the server's side of a leg. Towards clients that is the proxy's own, towards the server the server's.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

# As ssl.SSLSocket.getpeercert() tells a subject: relative names from the root down, each of them pairs.
_Subject: TypeAlias = tuple[tuple[tuple[str, str], ...], ...]

_SHORT_NAMES: Final = {
    "commonName": "CN",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
    "userId": "UID",
    "streetAddress": "STREET",
}
_ESCAPED: Final = frozenset(',+"\\<>;')


class HandshakeFailed(ssl.SSLError):
    """`alert` is the record that tells the peer why; the cause is OpenSSL's own error."""

    def __init__(self, why: str, alert: bytes) -> None:
        super().__init__(why)
        self._why = why
        self.alert = alert

    def __str__(self) -> str:
        return self._why


class _ServerObject(ssl.SSLObject):
    """Keeps what OpenSSL wants to tell the peer when a handshake fails: the loop throws it away with the connection."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            raise HandshakeFailed(tls_reason(error), self.outgoing.read()) from error


class ServerContext(ssl.SSLContext):
    """A context for the server's side whose failed handshakes can be told."""

    sslobject_class = _ServerObject

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, cast("str | None", server_hostname), session)
        cast("_ServerObject", made).outgoing = outgoing
        return made


@dataclass(frozen=True, slots=True)
class TlsOffer:
    """What the proxy shows its clients. A reload makes a new one; connections keep the one they were made with."""

    context: ServerContext
    certificate_der: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """A client under TLS. The names are those of its certificate, verified against listen.tls.client_ca, or None.

    `certificate_der` is the proxy's own as this client was shown it. `distinguished_name` is spelled as in RFC 2253,
    as `clientname=DN` of the server's pg_hba.conf compares it.
    """

    certificate_der: bytes = field(repr=False)
    alpn_protocol: str | None = None
    common_name: str | None = None
    distinguished_name: str | None = None

    @property
    def is_verified(self) -> bool:
        """The client has shown a certificate, and the CA has signed it."""
        return self.distinguished_name is not None


def client_tls(transport: asyncio.BaseTransport, offer: TlsOffer) -> ClientTls:
    """The facts of a client's leg whose handshake is done under `offer`."""
    tls = cast("ssl.SSLObject", transport.get_extra_info("ssl_object"))
    protocol = tls.selected_alpn_protocol()
    shown = tls.getpeercert()
    if not shown:
        return ClientTls(offer.certificate_der, protocol)
    subject = cast("_Subject", shown.get("subject", ()))
    return ClientTls(offer.certificate_der, protocol, _common_name(subject), _distinguished_name(subject))


def server_certificate_der(transport: asyncio.BaseTransport) -> bytes | None:
    """The certificate the server has shown on this leg, verified or not; None where the leg is not encrypted."""
    tls = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
    return None if tls is None else tls.getpeercert(binary_form=True)


def names_in_certificate(tls: ssl.SSLObject) -> list[str]:
    """The names that a verified certificate of the peer is good for."""
    shown = tls.getpeercert() or {}
    alternatives = cast("tuple[tuple[str, str], ...]", shown.get("subjectAltName", ()))
    names = [name for kind, name in alternatives if kind in ("DNS", "IP Address")]
    common = _common_name(cast("_Subject", shown.get("subject", ())))
    return names or ([common] if common else [])


def tls_reason(error: Exception) -> str:
    """Why a handshake failed, without OpenSSL's spelling of it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is not accepted: {error.verify_message}"
    if isinstance(error, HandshakeFailed):
        return str(error)
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__


def _common_name(subject: _Subject) -> str | None:
    """The first one, as the server takes it; a NUL in it would make two names of one and is no name."""
    names = [value for relative in subject for name, value in relative if name == "commonName"]
    return names[0] if names and "\0" not in names[0] else None


def _distinguished_name(subject: _Subject) -> str:
    """RFC 2253: the most special name first."""
    return ",".join("+".join(f"{_SHORT_NAMES.get(name, name)}={_escaped(value)}" for name, value in one)
                    for one in reversed(subject))  # fmt: skip


def _escaped(value: str) -> str:
    text = "".join("\\" + character if character in _ESCAPED else character for character in value)
    if text.startswith(("#", " ")):
        text = "\\" + text
    return text[:-1] + "\\ " if len(text) > 1 and text.endswith(" ") and not text.endswith("\\ ") else text
