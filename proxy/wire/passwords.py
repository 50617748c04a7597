"""What is stored of a password, and whether what a client says fits it.

Owns: the three forms of a stored password, the md5 challenge in both directions.
Does not know: where they are stored, which method is asked for.
Source: manual, "Password Authentication" (auth-password); get_password_type() of the server's libpq/crypt.c.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from proxy.wire.scram import ScramVerifier, derive_keys, make_verifier, parse_verifier_or_none


class PasswordKind(Enum):
    """The forms in which pg_authid and PgBouncer's userlist keep a password."""

    PLAINTEXT = "plaintext"
    MD5 = "md5"
    SCRAM = "scram"


@dataclass(frozen=True)  # no slots: a verifier is read once and kept
class StoredPassword:
    """One user's stored password. Made by `StoredPassword.parse`."""

    kind: PasswordKind
    secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "StoredPassword":
        """Tell the form by its text, as the server does: what is neither md5 nor SCRAM is the password itself."""
        if re.fullmatch("md5[0-9a-f]{32}", text):
            return cls(PasswordKind.MD5, text)
        if parse_verifier_or_none(text) is not None:
            return cls(PasswordKind.SCRAM, text)
        return cls(PasswordKind.PLAINTEXT, text)

    @cached_property
    def verifier(self) -> ScramVerifier | None:
        """The verifier, where that is what is stored."""
        return parse_verifier_or_none(self.secret) if self.kind is PasswordKind.SCRAM else None

    def verifier_or_none(self, salt: bytes, iterations: int) -> ScramVerifier | None:
        """What SCRAM checks against; None for an md5 hash, which it cannot use. A plaintext is salted with `salt`."""
        if self.kind is PasswordKind.PLAINTEXT:
            return make_verifier(self.secret, salt, iterations)
        return self.verifier

    def md5_hash_or_none(self, user: str) -> str | None:
        """The stored md5 form; None for a SCRAM verifier, from which it cannot be told."""
        if self.kind is PasswordKind.PLAINTEXT:
            return md5_hash(user, self.secret)
        return self.secret if self.kind is PasswordKind.MD5 else None

    def is_password(self, user: str, password: str) -> bool:
        """Whether `password`, as it came in cleartext, is the one stored. In constant time for one form."""
        if self.kind is PasswordKind.MD5:
            return _same(md5_hash(user, password), self.secret)
        if self.kind is PasswordKind.PLAINTEXT:
            return _same(password, self.secret)
        assert self.verifier is not None, "a SCRAM secret was parsed before it was stored"
        made = derive_keys(password, self.verifier.salt, self.verifier.iterations).verifier
        return hmac.compare_digest(made.stored_key, self.verifier.stored_key)

    def is_md5_response(self, user: str, salt: bytes, response: bytes) -> bool:
        """Whether `response` answers AuthenticationMD5Password with this `salt`; never for a SCRAM verifier."""
        known = self.md5_hash_or_none(user)
        return known is not None and hmac.compare_digest(md5_response(known, salt), response)


def md5_hash(user: str, password: str) -> str:
    """ "md5" and the hex digest of password and user name: the form pg_authid keeps."""
    return "md5" + _md5_hex(_raw(password) + _raw(user))


def md5_response(stored_hash: str, salt: bytes) -> bytes:
    """What answers AuthenticationMD5Password; `stored_hash` as from `md5_hash`, whose first three characters go."""
    return b"md5" + _md5_hex(stored_hash[3:].encode("ascii") + salt).encode("ascii")


def _md5_hex(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(_raw(one), _raw(other))
