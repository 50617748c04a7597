"""Encoders against bytes of the manual's formats, decoders against encoders and against damage."""

import pytest

from proxy.wire import messages
from proxy.wire.errors import ProtocolViolation
from proxy.wire.messages import Authentication, AuthenticationKind, ErrorFields


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (messages.authentication_ok(), "52 00000008 00000000"),
        (messages.authentication_cleartext(), "52 00000008 00000003"),
        (messages.authentication_md5(b"\1\2\3\4"), "52 0000000c 00000005 01020304"),
        (messages.authentication_sasl(["AB", "C"]), "52 0000000e 0000000a 414200 4300 00"),
        (messages.authentication_sasl_continue(b"r"), "52 00000009 0000000b 72"),
        (messages.authentication_sasl_final(b"v"), "52 00000009 0000000c 76"),
        (messages.parameter_status("a", "b"), "53 00000008 6100 6200"),
        (messages.backend_key_data(2**32 - 1, b"\1\2\3\4\5"), "4b 0000000d ffffffff 0102030405"),
        (messages.ready_for_query(b"T"), "5a 00000005 54"),
        (messages.negotiate_protocol_version(2, ["_pq_.x"]), "76 00000013 00030002 00000001 5f70715f2e7800"),
        (messages.command_complete("BEGIN"), "43 0000000a 424547494e00"),
        (messages.parse_complete(), "31 00000004"),
        (messages.bind_complete(), "32 00000004"),
        (messages.close_complete(), "33 00000004"),
        (messages.no_data(), "6e 00000004"),
        (messages.empty_query_response(), "49 00000004"),
        (messages.parameter_description([23, 25]), "74 0000000e 0002 00000017 00000019"),
        (messages.row_description(["a"]), "54 0000001a 0001 6100 00000000 0000 00000019 ffff ffffffff 0000"),
        (messages.data_row(["a", None, ""]), "44 00000013 0003 00000001 61 ffffffff 00000000"),
        (messages.query("x"), "51 00000006 7800"),
        (messages.query(b"\xff"), "51 00000006 ff00"),
        (messages.sync(), "53 00000004"),
        (messages.terminate(), "58 00000004"),
        (messages.password_message("p"), "70 00000006 7000"),
        (messages.sasl_initial_response("AB", b"n,,"), "70 0000000e 414200 00000003 6e2c2c"),
        (messages.sasl_response(b"c="), "70 00000006 633d"),
    ],
)
def test_messages_are_what_the_manual_says(encoded, expected):
    assert encoded.hex() == expected.replace(" ", "")


def test_an_error_keeps_its_fields():
    full = ErrorFields("FATAL", "53300", 'class "bulk" is full', "class=bulk", "raise classes.bulk.limit")
    bare = ErrorFields("ERROR", "25P02", "no")
    for fields in (full, bare):
        assert messages.parse_error_fields(messages.error_response(fields)[5:]) == fields
        assert messages.parse_error_fields(messages.notice_response(fields)[5:]) == fields


def test_an_error_ends_with_a_lone_nul_and_carries_the_severity_twice():
    payload = messages.error_response(ErrorFields("ERROR", "25P02", "no"))[5:]
    assert payload == b"SERROR\0VERROR\0C25P02\0Mno\0\0"


@pytest.mark.parametrize("payload", [b"", b"\0", b"Mtext", b"SFEHLER\0Mtext", b"\xff\0\0\0M"])
def test_damaged_errors_are_read_as_far_as_they_go(payload):
    fields = messages.parse_error_fields(payload)
    assert fields.code == "XX000"
    assert fields.severity


def test_the_severity_that_is_never_translated_is_preferred():
    assert messages.parse_error_fields(b"SFEHLER\0VERROR\0C22012\0M\0\0").severity == "ERROR"


def test_facts_come_back_as_they_were_encoded():
    assert messages.parse_parameter_status(messages.parameter_status("TimeZone", "UTC\udce4")[5:]) == (
        "TimeZone",
        "UTC\udce4",
    )
    assert messages.parse_backend_key_data(messages.backend_key_data(7, b"k" * 256)[5:]) == (7, b"k" * 256)
    assert messages.parse_ready_for_query(messages.ready_for_query(b"E")[5:]) == b"E"
    assert messages.parse_mechanisms(messages.authentication_sasl(["A", "B"])[9:]) == ["A", "B"]
    assert messages.parse_sasl_initial_response(messages.sasl_initial_response("A", b"x")[5:]) == ("A", b"x")
    assert messages.parse_password(messages.password_message("p\xe4")[5:]) == b"p\xc3\xa4"


def test_a_sasl_initial_response_may_come_without_data():
    assert messages.parse_sasl_initial_response(b"A\0\xff\xff\xff\xff") == ("A", b"")


def test_authentication_tells_its_kind_and_its_data():
    parsed = messages.parse_authentication(messages.authentication_md5(b"salt")[5:])
    assert parsed == Authentication(AuthenticationKind.MD5_PASSWORD, b"salt")
    with pytest.raises(ProtocolViolation, match="unknown authentication request 99"):
        messages.parse_authentication(b"\0\0\0\x63")


@pytest.mark.parametrize(
    ("decoder", "payload"),
    [
        (messages.parse_authentication, b"\0\0\0"),
        (messages.parse_mechanisms, b"A"),
        (messages.parse_parameter_status, b"a\0"),
        (messages.parse_parameter_status, b"a"),
        (messages.parse_parameter_status, b"a\0b\0c"),
        (messages.parse_backend_key_data, b"\0\0\0\1key"),
        (messages.parse_backend_key_data, b"\0\0\0\1" + b"k" * 257),
        (messages.parse_ready_for_query, b""),
        (messages.parse_ready_for_query, b"X"),
        (messages.parse_ready_for_query, b"IT"),
        (messages.parse_sasl_initial_response, b"A"),
        (messages.parse_sasl_initial_response, b"A\0\0\0\0"),
        (messages.parse_sasl_initial_response, b"A\0\0\0\0\5abc"),
        (messages.parse_password, b""),
        (messages.parse_password, b"x"),
        (messages.parse_password, b"x\0y\0"),
    ],
)
def test_damaged_facts_are_violations(decoder, payload):
    with pytest.raises(ProtocolViolation):
        decoder(payload)


def test_a_nul_in_text_cannot_be_sent():
    with pytest.raises(ValueError, match="NUL"):
        messages.query("a\0b")
