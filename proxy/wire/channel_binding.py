"""What binds a SCRAM exchange to the TLS leg it runs on: "tls-server-end-point".

Owns: the hash of a certificate under the hash function that the certificate itself was signed with.
Does not know: TLS, sockets, who shows the certificate, what SCRAM makes of the hash.
Source: RFC 5929, section 4 (tls-server-end-point); RFC 5280, section 4.1 (the certificate); RFC 4055 (RSASSA-PSS);
manual, "SASL Authentication" (sasl-authentication).
"""

import hashlib
from typing import Final, NamedTuple

# MD5 and SHA-1 are replaced by SHA-256, says the RFC. What is not here names no hash function, as Ed25519 does not.
_RSA: Final = "1.2.840.113549.1.1."
_ECDSA: Final = "1.2.840.10045.4."
_NIST: Final = "2.16.840.1.101.3.4."
_HASH_OF_SIGNATURE: Final = {
    _RSA + "4": "sha256",  # md5WithRSAEncryption
    _RSA + "5": "sha256",  # sha1WithRSAEncryption
    _RSA + "11": "sha256",
    _RSA + "12": "sha384",
    _RSA + "13": "sha512",
    _RSA + "14": "sha224",
    _ECDSA + "1": "sha256",  # ecdsa-with-SHA1
    _ECDSA + "3.1": "sha224",
    _ECDSA + "3.2": "sha256",
    _ECDSA + "3.3": "sha384",
    _ECDSA + "3.4": "sha512",
    "1.2.840.10040.4.3": "sha256",  # dsa-with-sha1
    _NIST + "3.1": "sha224",  # dsa-with-sha224 and its kin
    _NIST + "3.2": "sha256",
    _NIST + "3.3": "sha384",
    _NIST + "3.4": "sha512",
}
_RSASSA_PSS: Final = _RSA + "10"
_HASH_OF_DIGEST: Final = {
    "1.3.14.3.2.26": "sha256",  # SHA-1
    _NIST + "2.1": "sha256",
    _NIST + "2.2": "sha384",
    _NIST + "2.3": "sha512",
    _NIST + "2.4": "sha224",
}

_SEQUENCE: Final = 0x30
_OBJECT_IDENTIFIER: Final = 0x06
_EXPLICIT_0: Final = 0xA0  # [0] of RSASSA-PSS-params: the hash function


class _Element(NamedTuple):
    """One value of DER: its tag, and where its contents begin and end."""

    tag: int
    start: int
    end: int


class _NotDer(Exception):  # noqa: N818 - says what is
    """The bytes are no certificate, or not all of one."""


def end_point_hash_or_none(certificate_der: bytes) -> bytes | None:
    """The channel binding data of a leg whose server shows this certificate.

    None where the signature of the certificate names no single hash function (Ed25519), or the bytes are no
    certificate: such a leg cannot be bound to.
    """
    try:
        name = _hash_name_or_none(certificate_der)
    except _NotDer:
        return None
    return None if name is None else hashlib.new(name, certificate_der).digest()


def _hash_name_or_none(der: bytes) -> str | None:
    """Certificate is a SEQUENCE of tbsCertificate, signatureAlgorithm, signatureValue."""
    certificate = _element(der, 0, len(der), _SEQUENCE)
    signed = _element(der, certificate.start, certificate.end, _SEQUENCE)
    algorithm = _element(der, signed.end, certificate.end, _SEQUENCE)
    identifier = _element(der, algorithm.start, algorithm.end, _OBJECT_IDENTIFIER)
    name = _dotted(der[identifier.start : identifier.end])
    if name == _RSASSA_PSS:
        return _hash_name_of_pss_or_none(der, identifier.end, algorithm.end)
    return _HASH_OF_SIGNATURE.get(name)


def _hash_name_of_pss_or_none(der: bytes, at: int, end: int) -> str | None:
    """RSASSA-PSS tells its hash function in its parameters; SHA-1 where it does not."""
    parameters = _element(der, at, end, _SEQUENCE)
    if parameters.start == parameters.end or der[parameters.start] != _EXPLICIT_0:
        return "sha256"
    wrapped = _element(der, parameters.start, parameters.end, _EXPLICIT_0)
    algorithm = _element(der, wrapped.start, wrapped.end, _SEQUENCE)
    identifier = _element(der, algorithm.start, algorithm.end, _OBJECT_IDENTIFIER)
    return _HASH_OF_DIGEST.get(_dotted(der[identifier.start : identifier.end]))


def _element(der: bytes, at: int, limit: int, tag: int) -> _Element:
    """The value at `at`, which must be a `tag` and end by `limit`. X.690: a long form of the length tells its size."""
    if at + 2 > limit or der[at] != tag:
        raise _NotDer
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        length, start = int.from_bytes(der[start : start + size], "big"), start + size
    if start + length > limit:
        raise _NotDer
    return _Element(tag, start, start + length)


def _dotted(encoded: bytes) -> str:
    """An object identifier as people write it. The first byte holds two numbers, seven bits of each further one."""
    if not encoded:
        raise _NotDer
    numbers = list(divmod(encoded[0], 40)) if encoded[0] < 80 else [2, encoded[0] - 80]
    value = 0
    for byte in encoded[1:]:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(value)
            value = 0
    return ".".join(map(str, numbers))
