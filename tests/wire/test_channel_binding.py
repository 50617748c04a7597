"""The hash of a certificate that binds SCRAM to TLS, held against what openssl says of real certificates."""

import hashlib
import ssl
import subprocess
from pathlib import Path

import pytest

from proxy.wire.channel_binding import end_point_hash_or_none

EC = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
RSA = "-newkey rsa:2048"
PSS = "-sigopt rsa_padding_mode:pss"


def made(folder: Path, key: str, signing: str) -> bytes:
    """A self-signed certificate, as DER."""
    command = f"openssl req -x509 {key} -nodes {signing} -days 2 -subj /CN=x -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return ssl.PEM_cert_to_DER_cert((folder / "cert.pem").read_text())


@pytest.mark.parametrize(
    ("key", "signing", "name"),
    [
        (RSA, "-sha256", "sha256"),
        (RSA, "-sha384", "sha384"),
        (RSA, "-sha512", "sha512"),
        (RSA, "-sha224", "sha224"),
        (RSA, "-sha1", "sha256"),
        (RSA, f"-sha256 {PSS}", "sha256"),
        (RSA, f"-sha512 {PSS}", "sha512"),
        (RSA, f"-sha1 {PSS}", "sha256"),
        (EC, "-sha256", "sha256"),
        (EC, "-sha384", "sha384"),
        (EC, "-sha1", "sha256"),
    ],
)
def test_the_hash_is_that_of_the_signature(tmp_path, key, signing, name):
    der = made(tmp_path, key, signing)
    assert end_point_hash_or_none(der) == hashlib.new(name, der).digest()


def test_a_signature_without_a_hash_function_binds_nothing(tmp_path):
    assert end_point_hash_or_none(made(tmp_path, "-newkey ed25519", "")) is None


def test_half_a_certificate_binds_nothing(tmp_path):
    der = made(tmp_path, EC, "-sha256")
    assert {end_point_hash_or_none(der[:end]) for end in range(len(der))} == {None}
