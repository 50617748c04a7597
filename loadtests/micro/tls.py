"""TLS for a measurement: a certificate that signs itself, and clients that do not mind.

Owns: the files, the client's context (it begins with the handshake itself, as libpq 17 does).
Does not know: what is measured.
"""

import ssl
import subprocess
from pathlib import Path


def make_certificate(folder: Path) -> dict[str, str]:
    """The section listen.tls of a configuration, its files in `folder`."""
    cert, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return {"mode": "require", "cert": str(cert), "key": str(key)}


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["postgresql"])
    return context
