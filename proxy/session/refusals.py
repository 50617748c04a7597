"""What clients are told when the answer is no.

Owns: the words, SQLSTATEs, DETAIL and HINT of every refusal and of every failure the proxy itself reports.
Does not know: when to refuse, how a client is answered.
Source: PostgreSQL manual, "PostgreSQL Error Codes" (errcodes-appendix). The phrases "terminating connection" and
"closed the connection" are avoided: drivers match on them and throw whole pools away.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from proxy.admission.decisions import RefusalReason, Refuse, StillWaiting
from proxy.admission.holds import Bound
from proxy.admission.trial import Would
from proxy.wire.messages import ErrorFields
from proxy.wire.sql import PinReason

TOO_MANY_CONNECTIONS: Final = "53300"
CANNOT_CONNECT_NOW: Final = "57P03"
ADMIN_SHUTDOWN: Final = "57P01"
QUERY_CANCELED: Final = "57014"
CONNECTION_FAILURE: Final = "08006"
PROTOCOL_VIOLATION: Final = "08P01"
IN_FAILED_TRANSACTION: Final = "25P02"
WARNING: Final = "01000"
WARN_EVERY_SECONDS: Final = 60.0  # a client of a class that only warns is told so no more often


def refused(refusal: Refuse, severity: str) -> ErrorFields:
    """The error for a decided no. `severity` is FATAL while connecting and ERROR for a unit of work."""
    message, hint = _WORDS[refusal.reason](refusal)
    detail = (
        f"class={refusal.class_name} reason={refusal.reason.value} in_use={refusal.in_use} limit={refusal.limit} "
        f"waiting={refusal.waiting} retry_after_ms={refusal.retry_after_ms}{_expected(refusal.expected_wait_seconds)}"
    )
    return ErrorFields(severity, _CODES.get(refusal.reason, TOO_MANY_CONNECTIONS), message, detail, hint)


def _expected(seconds: float | None) -> str:
    return "" if seconds is None else f" expected_wait_ms={round(1000 * seconds)}"


def no_place(refusal: Refuse) -> ErrorFields:
    """The no to a login: `in_use`, `limit` and `waiting` are client connections here."""
    error = refused(refusal, "FATAL")
    if refusal.reason not in (RefusalReason.QUEUE_FULL, RefusalReason.QUEUE_TIMEOUT):
        return error
    name = refusal.class_name
    text = f'class "{name}" has as many clients as it may have: {refusal.in_use} of {refusal.limit}'
    waited = f", {refusal.waiting} waiting; waited {refusal.waited_seconds:.1f} s"
    return replace(error, message=text + waited, hint=f"raise classes.{name}.max_clients or classes.{name}.queue")


_CODES: Final = {
    RefusalReason.SHUTTING_DOWN: CANNOT_CONNECT_NOW,
    RefusalReason.SERVER_UNAVAILABLE: CONNECTION_FAILURE,
}

_Words = Callable[[Refuse], tuple[str, str]]


def _use(refusal: Refuse) -> str:
    return f"{refusal.in_use} of {refusal.limit} server connections in use, {refusal.waiting} clients waiting"


def _queue_full(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    return f'class "{name}" is full: {_use(refusal)}', f"raise classes.{name}.limit or classes.{name}.queue.max"


def _queue_timeout(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    return (
        f'class "{name}" had no server connection free within {refusal.waited_seconds:.1f} s: {_use(refusal)}',
        f"raise classes.{name}.limit or classes.{name}.queue.timeout, or hold connections for less time",
    )


def _deadline(refusal: Refuse) -> tuple[str, str]:
    name, expected = refusal.class_name, refusal.expected_wait_seconds or 0.0
    return (
        f'class "{name}" cannot give a server connection in time, it would take {expected:.1f} s: {_use(refusal)}',
        f"raise classes.{name}.limit or classes.{name}.queue.timeout, or hold connections for less time;"
        f" classes.{name}.queue.refuse_hopeless: false would let it wait",
    )


def _limit(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    return (
        f'class "{name}" does not queue and has no server connection free: {_use(refusal)}',
        f"raise classes.{name}.limit, or let it queue with classes.{name}.queue.max",
    )


def _max_clients(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    if refusal.per_identity:
        use = f"{refusal.in_use} of {refusal.limit}, {refusal.waiting} waiting; waited {refusal.waited_seconds:.1f} s"
        return (
            f'class "{name}" has as many clients of this identity as it may have: {use}',
            f"raise classes.{name}.max_clients_per_identity, or open fewer connections (classes.{name}.flow_key says "
            "who is one identity)",
        )
    return f'class "{name}" has as many clients as it may have', f"raise classes.{name}.max_clients"


def _pinned_limit(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    return (
        f'class "{name}" may not hold another server connection for a whole session: {_use(refusal)}',
        f"raise classes.{name}.pinned_limit or its reservation; lent slots are never used for sessions",
    )


def _rate(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    who, setting = ("clients like this one", "connects.per_identity") if refusal.per_identity else ("all", "connects")
    return (
        f'clients of class "{name}" connect too often for nothing: more often than {setting} lets {who}',
        f"reconnect later and later, with jitter, or raise classes.{name}.{setting}.rate",
    )


def _paused(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    return (
        f'class "{name}" is paused; waited {refusal.waited_seconds:.1f} s',
        f"an operator resumes it with: pgheadroom resume {name}",
    )


def _rejecting(refusal: Refuse) -> tuple[str, str]:
    name = refusal.class_name
    return f'class "{name}" is switched off', f"an operator resumes it with: pgheadroom resume {name}"


def _shutting_down(_: Refuse) -> tuple[str, str]:
    return "pgheadroom is shutting down", "connect again: another instance or the next one will answer"


def _server_unavailable(_: Refuse) -> tuple[str, str]:
    return "the PostgreSQL server cannot be reached", "see upstream.url and the log of pgheadroom"


_WORDS: Final[dict[RefusalReason, _Words]] = {
    RefusalReason.QUEUE_FULL: _queue_full,
    RefusalReason.QUEUE_TIMEOUT: _queue_timeout,
    RefusalReason.DEADLINE: _deadline,
    RefusalReason.LIMIT: _limit,
    RefusalReason.MAX_CLIENTS: _max_clients,
    RefusalReason.PINNED_LIMIT: _pinned_limit,
    RefusalReason.RATE: _rate,
    RefusalReason.PAUSED: _paused,
    RefusalReason.CLASS_REJECTING: _rejecting,
    RefusalReason.SHUTTING_DOWN: _shutting_down,
    RefusalReason.SERVER_UNAVAILABLE: _server_unavailable,
}


def still_waiting(event: StillWaiting) -> ErrorFields:
    """The one notice a waiting client gets after `notify_after`."""
    name = event.class_name
    return ErrorFields(
        "NOTICE",
        "00000",
        f'waiting for a server connection of class "{name}" for {event.waited_seconds:.1f} s',
        f"class={name} position={event.position}{_expected(event.expected_wait_seconds)}",
        f"classes.{name}.limit and classes.{name}.queue.timeout decide how long this may take",
    )


def would_have_been(would: Would) -> ErrorFields:
    """A class that only warns has let somebody pass."""
    name = would.class_name
    if would.reason is None:
        text = f'class "{name}" would have let this wait: {would.in_use} of {would.limit} server connections in use'
    else:
        text = f'class "{name}" would have refused this: {would.reason.value}'
    reason = "queue" if would.reason is None else would.reason.value
    detail = f"class={name} would={reason} in_use={would.in_use} limit={would.limit}"
    return ErrorFields("WARNING", WARNING, text, detail, f"classes.{name}.mode is warn: its bounds do not decide yet")


def hold_ended(class_name: str, bound: Bound, seconds: float, severity: str) -> ErrorFields:
    """A client has gone on for longer than its class lets it. PostgreSQL has the same codes for its own timeouts."""
    code, text, hint = _HOLDS[bound]
    key = f"classes.{class_name}.holds.{bound.value}"
    message = f'class "{class_name}" lets a client {text} for {seconds:g} s at most'
    detail = f"class={class_name} bound={bound.value} after_ms={round(1000 * seconds)}"
    return ErrorFields(severity, code, message, detail, f"{hint}, or raise {key}")


_HOLDS: Final = {
    Bound.IDLE_IN_TRANSACTION: ("25P03", "idle in a transaction", "commit or roll back before doing something else"),
    Bound.BORROWED_IDLE_IN_TRANSACTION: (
        "25P03",
        "idle in a transaction, while others wait for its slot,",
        "commit or roll back before doing something else",
    ),
    Bound.TRANSACTION: ("25P04", "keep a transaction open", "do the work in smaller transactions"),
    Bound.QUERY: (QUERY_CANCELED, "run one query", "make the query faster or smaller"),
    Bound.CLIENT_IDLE: ("57P05", "stay connected without a query", "connect again"),
    Bound.SLOW_READER: (QUERY_CANCELED, "read nothing of its result", "fetch in portions, or read faster"),
}


def listen_timeout(seconds: float) -> ErrorFields:
    text = f"LISTEN was not confirmed within {seconds:g} s: the shared connection had no slot, or no answer"
    hint = "raise budget.total or lower reservations: it needs a slot of its own, see pool.listen_connections"
    return ErrorFields("ERROR", TOO_MANY_CONNECTIONS, text, "reason=queue_timeout", hint)


def notifications_missed(since: float, until: float) -> ErrorFields:
    """`since` and `until` in Unix seconds."""
    text = f"notifications may have been missed between {_utc(since)} and {_utc(until)}"
    detail = "the server connection that listens for this client was lost and is back"
    return ErrorFields("WARNING", WARNING, text, detail, "look for what the notifications would have announced")


def notifications_interrupted(since: float) -> ErrorFields:
    text = f"notifications may be missed since {_utc(since)}: the connection that listens for this client is lost"
    return ErrorFields("WARNING", WARNING, text, "it is dialled again until it is back; that will be told too")


def notifications_dropped(count: int) -> ErrorFields:
    text = f"{count} notifications were dropped here: the client was busy, or did not read, for too long"
    return ErrorFields("WARNING", WARNING, text, None, "limits.max_notification_bytes decides how much is kept")


def channel_lost(channel: bytes, error: ErrorFields) -> ErrorFields:
    name = channel.decode("utf-8", "surrogateescape")
    text = f'channel "{name}" is not listened to any more: the server refused after a lost connection'
    return ErrorFields("WARNING", WARNING, text, error.message, "LISTEN again")


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="milliseconds")


def protocol_violation(text: str) -> ErrorFields:
    return ErrorFields("FATAL", PROTOCOL_VIOLATION, text, None, None)


def no_upstream(database: str) -> ErrorFields:
    text = f'database "{database}" is served by no upstream of this proxy'
    return ErrorFields("FATAL", "3D000", text, None, "see upstreams.<name>.databases")


def server_lost() -> ErrorFields:
    text = "the server went away while it worked for this client"
    return ErrorFields("FATAL", CONNECTION_FAILURE, text, "whether the last statement took effect is unknown", None)


def server_silent(seconds: float) -> ErrorFields:
    text = f"the server has not answered for {seconds:.1f} s"
    return ErrorFields("FATAL", CONNECTION_FAILURE, text, None, "see pool.dial_timeout")


def no_unnamed_statement() -> ErrorFields:
    return ErrorFields("ERROR", "26000", "unnamed prepared statement does not exist", None, None)


def no_transaction_block(class_name: str, severity: str) -> ErrorFields:
    """In `pool_mode: statement`."""
    text = f'class "{class_name}" runs single statements: no transaction block, no text too long to be looked at'
    hint = f"set classes.{class_name}.pool_mode to transaction, or raise limits.max_inspected_bytes for a long text"
    return ErrorFields(severity, "0A000", text, f"class={class_name} pool_mode=statement", hint)


def session_state_rejected(class_name: str, reasons: Collection[PinReason]) -> ErrorFields:
    """Where `on_session_state` is reject."""
    names = ", ".join(sorted(reason.value for reason in reasons))
    text = f'class "{class_name}" does not let a statement change the session: {names}'
    hint = f"set classes.{class_name}.on_session_state to pin, or classes.{class_name}.pool_mode to session"
    return ErrorFields("ERROR", "0A000", text, f"class={class_name} on_session_state=reject", hint)


def statement_exists(name: bytes) -> ErrorFields:
    return ErrorFields("ERROR", "42P05", f'prepared statement "{name.decode("utf-8", "replace")}" already exists')


def too_many_statements(max_bytes: int) -> ErrorFields:
    text = f"the prepared statements of this client take more than {max_bytes} bytes"
    return ErrorFields("ERROR", "54000", text, None, "close some, or raise limits.max_statement_bytes")


def result_changed() -> ErrorFields:
    """In the server's words and with its routine: drivers know by them that they have to prepare again."""
    text = "cached plan must not change result type"
    return ErrorFields("ERROR", "0A000", text, routine="RevalidateCachedQuery")


def cancelled_while_waiting() -> ErrorFields:
    return ErrorFields("ERROR", QUERY_CANCELED, "canceling statement due to user request", "it was still waiting", None)


def in_failed_transaction() -> ErrorFields:
    text = "current transaction is aborted, commands ignored until end of transaction block"
    return ErrorFields("ERROR", IN_FAILED_TRANSACTION, text, None, None)


def shutting_down_idle() -> ErrorFields:
    return ErrorFields("FATAL", ADMIN_SHUTDOWN, "pgheadroom is shutting down", None, "connect again")


def shutting_down_new() -> ErrorFields:
    return ErrorFields("FATAL", CANNOT_CONNECT_NOW, "pgheadroom is shutting down", None, "connect again")


def login_timeout(seconds: float) -> ErrorFields:
    text = f"login was not finished within {seconds:g} s"
    return ErrorFields("FATAL", "08004", text, None, "raise listen.login_timeout if this client is only slow")


def too_many_clients(limit: int) -> ErrorFields:
    text = f"pgheadroom already serves {limit} clients"
    return ErrorFields("FATAL", TOO_MANY_CONNECTIONS, text, None, "raise listen.max_client_connections")


def tls_required() -> ErrorFields:
    return ErrorFields("FATAL", "28000", "this port takes TLS connections only", None, "use sslmode=require")


def client_certificate_required() -> ErrorFields:
    hint = "set sslcert and sslkey in the client; listen.tls.mode is verify"
    return ErrorFields("FATAL", "28000", "connection requires a valid client certificate", None, hint)


def direct_tls_without_alpn() -> ErrorFields:
    text = 'a connection that begins with TLS must offer the ALPN protocol "postgresql"'
    return ErrorFields("FATAL", "08P01", text, None, "use a client that knows sslnegotiation=direct")


def no_replication() -> ErrorFields:
    hint = "name a class for them in replication_class, or connect to the server itself"
    return ErrorFields("FATAL", "0A000", "replication connections have no class here", None, hint)


def no_walsender(words: str) -> ErrorFields:
    return ErrorFields("FATAL", "53400", "the server has no walsender free", words, "raise max_wal_senders there")
