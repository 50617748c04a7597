"""Facts of startup packets, shared by the clients for which they are the same."""

import pytest

from proxy.session.encryption import ClientTls
from proxy.session.identity import _MAX_REMEMBERED_BYTES, introduction, is_introduction, with_parameters_of_class
from proxy.wire.errors import ProtocolViolation
from proxy.wire.startup import encode_cancel_request, encode_ssl_request, encode_startup

LENGTH_BYTES = 4


def packet(**parameters: str) -> bytes:
    return encode_startup({"user": "app", **parameters})[LENGTH_BYTES:]


def test_clients_of_one_fleet_share_what_is_known_of_them() -> None:
    first, second = (introduction(packet(application_name="worker"), "10.0.0.1", None) for _ in range(2))
    assert first is second
    assert first.identity.flow == ("app", "10.0.0.1", "worker")
    assert first.identity.parameters == {"application_name": "worker"}


@pytest.mark.parametrize(
    ("said", "address", "tls"),
    [
        (packet(application_name="other"), "10.0.0.1", None),
        (packet(application_name="worker"), "10.0.0.2", None),
        (packet(application_name="worker"), None, None),
        (packet(application_name="worker"), "10.0.0.1", ClientTls(b"certificate", None, "app", "CN=app")),
    ],
    ids=["name", "address", "unix socket", "certificate"],
)
def test_nobody_is_taken_for_somebody_else(said: bytes, address: str | None, tls: ClientTls | None) -> None:
    known = introduction(packet(application_name="worker"), "10.0.0.1", None).identity
    found = introduction(said, address, tls).identity
    assert found is not known
    assert (found.address, found.tls) == (address, tls)


def test_a_long_packet_is_read_and_not_remembered() -> None:
    said = packet(options="-c my.value=" + "x" * _MAX_REMEMBERED_BYTES)
    first, second = (introduction(said, None, None) for _ in range(2))
    assert first is not second
    assert first.identity.parameters == second.identity.parameters


def test_what_is_wrong_is_wrong_each_time() -> None:
    for _ in range(2):
        with pytest.raises(ProtocolViolation, match="user"):
            introduction(b"\0\3\0\0\0", None, None)


def test_a_request_that_holds_a_key_is_no_introduction() -> None:
    assert not is_introduction(encode_cancel_request(1, b"1234")[LENGTH_BYTES:])
    assert not is_introduction(encode_ssl_request()[LENGTH_BYTES:])


def test_parameters_of_a_class_stand_behind_those_of_the_client() -> None:
    own = introduction(packet(timezone="UTC"), None, None).identity
    first, second = (with_parameters_of_class(own, {"timezone": "CET", "datestyle": "ISO"}) for _ in range(2))
    assert first.parameters == {"timezone": "UTC", "datestyle": "ISO"}
    assert first is second
    assert with_parameters_of_class(own, {}) is own
