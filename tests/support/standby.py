"""Standbys without a primary: enough for whoever only wants to know what a server is.

Owns: turning a server into a standby and back.
Does not know: replication. What is written on one server does not appear on another.
"""

from proxy.demo.postgres import PostgresServer

# A standby can be asked only where the WAL it reads was written for that.
SETTINGS = {"wal_level": "replica", "max_wal_senders": "2"}


def demote(server: PostgresServer) -> None:
    """Restart as a hot standby, on the same port."""
    server.stop()
    (server.data_directory / "standby.signal").touch()
    server.installation.give(server.data_directory / "standby.signal")
    server.start()


def promote(server: PostgresServer) -> None:
    server.psql("SELECT pg_promote()")
