"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides.

Owns: verifiers and keys, the two exchanges, their messages.
Does not know: the messages that carry the exchange (`login`), where verifiers come from (`passwords`), what a leg is
bound to (`channel_binding`).
Source: RFC 5802 (SCRAM), RFC 7677 (SCRAM-SHA-256); manual, "SASL Authentication" (sasl-authentication).

Own code, because libpq sends an empty user name, and because the proxy needs the ClientKey that a proof reveals: with
it, and the same verifier on the server, the proxy logs in there as the client without ever knowing the password.
"""

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from proxy.wire.errors import ProtocolViolation
from proxy.wire.saslprep import prepare_password

MECHANISM: Final = "SCRAM-SHA-256"
MECHANISM_PLUS: Final = "SCRAM-SHA-256-PLUS"
_BINDING_HEADER: Final = b"p=tls-server-end-point,,"  # the one kind of binding that PostgreSQL knows
DEFAULT_ITERATIONS: Final = 4096
# A server may ask for any number of hashings, and they are done before anything else is. A million takes half a second.
MAX_ITERATIONS: Final = 1_000_000
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16  # SCRAM_DEFAULT_SALT_LEN of the server
_NONCE_BYTES: Final = 18  # SCRAM_RAW_NONCE_LEN of the server


class ScramKeysDoNotFit(Exception):  # noqa: N818 - a fact about two verifiers, not a defect
    """The server's salt or iterations are not those the known keys were made with: its verifier is another one."""


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What a server stores instead of a password."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def format(self) -> str:
        """The form of pg_authid.rolpassword."""
        salt, stored_key, server_key = (
            b64encode(raw).decode("ascii") for raw in (self.salt, self.stored_key, self.server_key)
        )
        return f"{MECHANISM}${self.iterations}:{salt}${stored_key}:{server_key}"


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What proves the password to a server with one verifier, and that server to us, without the password."""

    verifier: ScramVerifier
    client_key: bytes = field(repr=False)


def parse_verifier_or_none(text: str) -> ScramVerifier | None:
    """Read "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"; None for any other text."""
    parts = text.split("$")
    if len(parts) != 3 or parts[0] != MECHANISM:
        return None
    iterations, _, salt = parts[1].partition(":")
    stored_key, _, server_key = parts[2].partition(":")
    raw = [_base64_or_none(part) for part in (salt, stored_key, server_key)]
    if not re.fullmatch("[0-9]{1,10}", iterations) or not 0 < int(iterations) < 1 << 31:
        return None
    if not raw[0] or any(key is None or len(key) != KEY_BYTES for key in raw[1:]):
        return None
    return ScramVerifier(int(iterations), raw[0], raw[1] or b"", raw[2] or b"")


def make_verifier(password: str, salt: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramVerifier:
    """The verifier of a password; `salt` is to be random and of SALT_BYTES."""
    return derive_keys(password, salt, iterations).verifier


def salt_of_user(user: str, secret: bytes) -> bytes:
    """The salt a user is shown where none is stored: for a password kept in the clear, and for nobody at all.

    The same for both and every time, or an exchange would tell who exists. `secret` is random and lives as long as the
    process.
    """
    return _of_user(b"salt ", user, secret)[:SALT_BYTES]


def make_mock_verifier(user: str, secret: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramVerifier:
    """The verifier of somebody who does not exist: the same shape and salt every time, and no password fits it."""
    stored_key, server_key = (_of_user(purpose, user, secret) for purpose in (b"stored ", b"server "))
    return ScramVerifier(iterations, salt_of_user(user, secret), stored_key, server_key)


def _of_user(purpose: bytes, user: str, secret: bytes) -> bytes:
    return hmac.digest(secret, purpose + user.encode("utf-8", "surrogateescape"), "sha256")


@lru_cache(maxsize=4096)  # thousands of hashings each: a fleet that reconnects must not pay them again
def derive_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """The keys of a password under one salt."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare_password(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    return ScramKeys(ScramVerifier(iterations, salt, stored_key, server_key), client_key)


class ScramServer:
    """One exchange seen from the server: `first`, then `final`.

    `binding` is what the leg can be bound to, where SCRAM-SHA-256-PLUS was offered because of it. Malformed messages
    are ProtocolViolations. A wrong proof is told by `final` returning None, for an unknown user with a mock verifier as
    for a wrong password.
    """

    def __init__(self, verifier: ScramVerifier, *, binding: bytes | None = None, nonce: str | None = None) -> None:
        self._verifier = verifier
        self._binding = binding
        self._nonce = _new_nonce() if nonce is None else nonce.encode("ascii")
        self._gs2_header = b""
        self._client_first_bare = b""
        self._server_first = b""
        self.client_key = b""
        """Known once `final` accepted the proof."""
        self.is_bound_elsewhere = False
        """The client saw another certificate than the one of this leg: its TLS does not end here."""

    def first(self, client_first: bytes, *, plus: bool = False) -> bytes:
        """Take the client-first-message; return the server-first-message. The user name in it is not looked at.

        `plus` tells that the client has chosen SCRAM-SHA-256-PLUS.
        """
        self._gs2_header, self._client_first_bare = _split_gs2_header(client_first)
        _check_binding_flag(self._gs2_header, plus=plus, offered=self._binding is not None)
        attributes = _attributes(self._client_first_bare, b"nr")
        self._nonce = _checked_nonce(attributes[1]) + self._nonce
        salt = b64encode(self._verifier.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._nonce, salt, self._verifier.iterations)
        return self._server_first

    def final(self, client_final: bytes) -> bytes | None:
        """Take the client-final-message; return the server-final-message, or None where the proof is wrong."""
        without_proof, comma, proof = client_final.rpartition(b",p=")
        binding, nonce = _attributes(without_proof, b"cr")
        is_plus = self._gs2_header == _BINDING_HEADER
        bound_to = _base64(binding).removeprefix(self._gs2_header) if is_plus else b""
        if not comma or _base64(binding) != self._gs2_header + bound_to:
            raise ProtocolViolation("malformed SCRAM message: the channel binding does not repeat the first message")
        if is_plus and bound_to != self._binding:
            self.is_bound_elsewhere = True
            return None
        if not hmac.compare_digest(nonce, self._nonce):
            raise ProtocolViolation("invalid SCRAM response: the nonce does not match")
        auth_message = b",".join((self._client_first_bare, self._server_first, without_proof))
        client_key = _xor(_base64(proof), hmac.digest(self._verifier.stored_key, auth_message, "sha256"))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._verifier.stored_key):
            return None
        self.client_key = client_key
        return b"v=" + b64encode(hmac.digest(self._verifier.server_key, auth_message, "sha256"))


class ScramClient:
    """One exchange seen from the client: `first`, then `final`, then `is_signed` of what the server ends with.

    `secret` is a password, or the keys learnt from somebody who knew it. With `binding` the exchange is that of
    SCRAM-SHA-256-PLUS. `could_bind` tells the server that it would have been, had it offered that: where an attacker
    took the offer away, the server notices.
    """

    def __init__(
        self,
        secret: str | ScramKeys,
        *,
        binding: bytes | None = None,
        could_bind: bool = False,
        user: str = "",
        nonce: str | None = None,
    ) -> None:
        self._secret = secret
        self._gs2_header = _BINDING_HEADER if binding is not None else b"y,," if could_bind else b"n,,"
        self._binding = binding or b""
        self._nonce = _new_nonce() if nonce is None else nonce.encode("ascii")
        name = user.replace("=", "=3D").replace(",", "=2C").encode("utf-8", "surrogateescape")
        self._client_first_bare = b"n=" + name + b",r=" + self._nonce
        self._server_signature = b""

    def first(self) -> bytes:
        """The client-first-message. The user name stays empty, as libpq's: the server takes the startup packet's."""
        return self._gs2_header + self._client_first_bare

    def final(self, server_first: bytes) -> bytes:
        """Take the server-first-message; return the client-final-message.

        Raises ScramKeysDoNotFit, and ProtocolViolation for what is malformed or asks for too many iterations.
        """
        nonce, salt, iterations = _attributes(server_first, b"rsi")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ProtocolViolation("invalid SCRAM challenge: the nonce does not extend the client's")
        keys = self._keys(_base64(salt), _checked_iterations(iterations))
        without_proof = b"c=" + b64encode(self._gs2_header + self._binding) + b",r=" + nonce
        auth_message = b",".join((self._client_first_bare, server_first, without_proof))
        self._server_signature = hmac.digest(keys.verifier.server_key, auth_message, "sha256")
        client_signature = hmac.digest(keys.verifier.stored_key, auth_message, "sha256")
        return without_proof + b",p=" + b64encode(_xor(keys.client_key, client_signature))

    def is_signed(self, server_final: bytes) -> bool:
        """Whether the server-final-message proves that the server knows the verifier."""
        if not self._server_signature or server_final.startswith(b"e="):
            return False
        (signature,) = _attributes(server_final, b"v")
        return hmac.compare_digest(_base64(signature), self._server_signature)

    def _keys(self, salt: bytes, iterations: int) -> ScramKeys:
        if isinstance(self._secret, str):
            return derive_keys(self._secret, salt, iterations)
        if (self._secret.verifier.salt, self._secret.verifier.iterations) != (salt, iterations):
            raise ScramKeysDoNotFit
        return self._secret


def _new_nonce() -> bytes:
    return b64encode(secrets.token_bytes(_NONCE_BYTES))


def _split_gs2_header(client_first: bytes) -> tuple[bytes, bytes]:
    """The header about channel binding, and the rest."""
    flag, _, rest = client_first.partition(b",")
    if flag not in (b"n", b"y") and not flag.startswith(b"p="):
        raise ProtocolViolation("malformed SCRAM message: unknown channel binding flag")
    authzid, comma, bare = rest.partition(b",")
    if authzid or not comma:
        raise ProtocolViolation("malformed SCRAM message: an authorization identity is not supported")
    return flag + b",,", bare


def _check_binding_flag(gs2_header: bytes, *, plus: bool, offered: bool) -> None:
    """As the server does: what the client says of channel binding has to agree with what was offered and chosen."""
    flag = gs2_header[:1]
    if flag == b"p" and not offered:
        raise ProtocolViolation("the client asks for channel binding, which was not offered")
    if plus != (flag == b"p"):
        raise ProtocolViolation("the client's channel binding flag does not fit the SASL mechanism it selected")
    if plus and gs2_header != _BINDING_HEADER:
        raise ProtocolViolation("the client asks for a kind of channel binding other than tls-server-end-point")
    if flag == b"y" and offered:
        raise ProtocolViolation("the client believes that channel binding was not offered, and it was")


def _attributes(data: bytes, names: bytes) -> list[bytes]:
    """The values of the attributes `names`, which must come first and in this order; extensions may follow."""
    parts = data.split(b",")
    if len(parts) < len(names) or any(
        part[:2] != bytes((name, 0x3D)) for part, name in zip(parts, names, strict=False)
    ):
        raise ProtocolViolation(f'malformed SCRAM message: expected the attributes "{names.decode("ascii")}"')
    return [part[2:] for part in parts[: len(names)]]


def _checked_nonce(nonce: bytes) -> bytes:
    if not nonce or not all(0x21 <= character <= 0x7E for character in nonce):
        raise ProtocolViolation("malformed SCRAM message: non-printable characters in the nonce")
    return nonce


def _checked_iterations(text: bytes) -> int:
    if not text.isdigit() or len(text) > 10 or int(text) < 1:
        raise ProtocolViolation("malformed SCRAM message: invalid iteration count")
    if int(text) > MAX_ITERATIONS:
        raise ProtocolViolation(f"the server asks for {int(text)} SCRAM iterations; at most {MAX_ITERATIONS} are done")
    return int(text)


def _base64_or_none(text: str | bytes) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one; so is text that is not ASCII
        return None


def _base64(text: bytes) -> bytes:
    raw = _base64_or_none(text)
    if raw is None:
        raise ProtocolViolation("malformed SCRAM message: invalid base64")
    return raw


def _xor(proof: bytes, signature: bytes) -> bytes:
    if len(proof) != KEY_BYTES:
        raise ProtocolViolation("malformed SCRAM message: the proof has the wrong length")
    return (int.from_bytes(proof, "big") ^ int.from_bytes(signature, "big")).to_bytes(KEY_BYTES, "big")
