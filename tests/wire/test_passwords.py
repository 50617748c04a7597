"""What a stored password is taken for, and what fits it."""

import pytest

from proxy.wire.passwords import PasswordKind, StoredPassword, md5_hash, md5_response
from proxy.wire.scram import make_verifier

# What PostgreSQL 15 stored for a role alice with the password "pencil".
MD5_OF_ALICE = "md5ee69efad287c7423caf0b3229d71f567"
VERIFIER = make_verifier("pencil", b"salt", 10).format()
FORMS = [StoredPassword.parse(text) for text in ("pencil", MD5_OF_ALICE, VERIFIER)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("pencil", PasswordKind.PLAINTEXT),
        ("", PasswordKind.PLAINTEXT),
        (MD5_OF_ALICE, PasswordKind.MD5),
        (MD5_OF_ALICE + "0", PasswordKind.PLAINTEXT),
        (MD5_OF_ALICE[:-1] + "G", PasswordKind.PLAINTEXT),
        (MD5_OF_ALICE + "\n", PasswordKind.PLAINTEXT),
        (VERIFIER, PasswordKind.SCRAM),
        ("SCRAM-SHA-256$x", PasswordKind.PLAINTEXT),
    ],
)
def test_the_form_is_told_by_the_text(text, kind):
    assert StoredPassword.parse(text).kind is kind


def test_md5_is_hashed_and_answered_as_the_server_does():
    assert md5_hash("alice", "pencil") == MD5_OF_ALICE
    assert md5_response(MD5_OF_ALICE, b"\1\2\3\4") == b"md537cba386e8b90f1e3941a0e792722253"


@pytest.mark.parametrize("stored", FORMS, ids=lambda stored: stored.kind.value)
def test_a_cleartext_password_is_checked_against_every_form(stored):
    assert stored.is_password("alice", "pencil")
    assert not stored.is_password("alice", "pencils")
    assert not stored.is_password("alice", "")


@pytest.mark.parametrize(("stored", "fits"), list(zip(FORMS, [True, True, False], strict=True)))
def test_an_md5_response_is_checked_where_the_hash_can_be_known(stored, fits):
    response = md5_response(MD5_OF_ALICE, b"salt")
    assert stored.is_md5_response("alice", b"salt", response) is fits
    assert not stored.is_md5_response("alice", b"tlas", response)
    assert not stored.is_md5_response("alice", b"salt", b"")


def test_a_plaintext_is_salted_as_it_is_told_and_a_stored_verifier_stays_as_it_is():
    made = StoredPassword.parse("pencil").verifier_or_none(b"pepper", 7)
    assert made == make_verifier("pencil", b"pepper", 7)
    assert StoredPassword.parse(VERIFIER).verifier_or_none(b"pepper", 7).format() == VERIFIER


def test_an_md5_hash_gives_no_verifier():
    assert StoredPassword.parse(MD5_OF_ALICE).verifier_or_none(b"pepper", 7) is None


def test_secrets_do_not_show_in_representations():
    assert not any(stored.secret in repr(stored) for stored in FORMS)
