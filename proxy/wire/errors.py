"""The one error of the wire layer."""


class ProtocolViolation(Exception):  # noqa: N818 - the server's own word for it (SQLSTATE 08P01)
    """The peer broke the protocol.

    The text is one sentence fit for the peer and for the log: it names what was wrong and never a value that could be
    a secret. The caller answers it once (SQLSTATE 08P01) and closes.
    """
