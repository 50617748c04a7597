"""Every setting: its name in the file, its kind, its default, one line of meaning.

Owns: the shape of the configuration. The published JSON schema and the table in config/README.md follow from it.
Does not know: files, and which numbers fit together (proxy/service/check.py does).

Times are kept in seconds, amounts of memory in bytes. All counts are those of one instance of the proxy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, PrivateAttr, model_validator
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from proxy.admission.decisions import RefusalReason
from proxy.service.config import fields
from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.errors import key_text
from proxy.service.config.upstream_url import UpstreamUrl
from proxy.wire.passwords import StoredPassword

Port = Annotated[int, fields.whole(0, 65535)]
Count = Annotated[int, fields.whole(0)]
AtLeastOne = Annotated[int, fields.whole(1)]
RateOrZero = Annotated[float, fields.positive_number(or_zero=True)]
OptionalCount = Annotated[int | None, fields.whole(0, optional=True)]
Seconds = Annotated[float, fields.seconds()]
SecondsOrZero = Annotated[float, fields.seconds(minimum=0)]
OptionalSeconds = Annotated[float | None, fields.seconds(optional=True)]
OptionalFile = Annotated[Path | None, fields.file_path()]
OptionalText = Annotated[str | None, fields.text("some text", optional=True)]
Glob = Annotated[str | None, fields.text("some text, * and ? stand for any", optional=True)]
ClassName = Annotated[str, fields.class_name()]
UpstreamName = Annotated[str, fields.upstream_name()]
OptionalUpstreamName = Annotated[str | None, fields.upstream_name(optional=True)]
OptionalClassName = Annotated[str | None, fields.class_name(optional=True)]

AUTH_METHODS: Final = ("scram", "md5", "cleartext", "trust", "cert", "passthrough")

# What a reload does with a setting: takes it over at once where nothing is said, else only for connections that begin
# later, or not before the process starts again.
NEW_CONNECTIONS: Final[JsonDict] = {"reload": "new connections"}
RESTART: Final[JsonDict] = {"reload": "restart"}


def refuses(*reasons: RefusalReason) -> JsonDict:
    """The reasons with which clients are refused where the setting decides."""
    return {"refuses": [reason.value for reason in reasons]}


def only_in_the_file(why: str) -> JsonDict:
    """`pgheadroom set` leaves it alone, though its kind could be set; `why` is what kind of setting it is."""
    return {"only_in_the_file": why}


# What fairness inside a class goes by; "identity" is user, address and application_name together.
FlowKey = Literal["identity", "user", "database", "application_name", "address"]


class Section(BaseModel):
    """A mapping of settings: unknown names are mistakes, and a name left empty is as if it were not written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_what_is_left_empty(cls, data: object) -> object:
        if data is None:
            return {}
        if isinstance(data, cls):
            return data
        if not isinstance(data, dict):
            names = ", ".join(info.alias or name for name, info in cls.model_fields.items())
            raise PydanticCustomError(fields.NOT_ALLOWED, "", {"allowed": f"a section with {names}"})
        return {name: value for name, value in data.items() if value is not None}


class ListenTls(Section):
    mode: Annotated[
        Literal["disable", "allow", "require", "verify"], fields.choice("disable", "allow", "require", "verify")
    ] = Field(
        default="allow",
        description="disable, allow (where cert is given), require, or verify: require a client's certificate too",
        json_schema_extra={**NEW_CONNECTIONS, **only_in_the_file("read together with the files beside it")},
    )
    cert: OptionalFile = Field(
        default=None, description="certificate chain shown to clients, PEM", json_schema_extra=NEW_CONNECTIONS
    )
    key: OptionalFile = Field(default=None, description="its private key, PEM", json_schema_extra=NEW_CONNECTIONS)
    client_ca: OptionalFile = Field(
        default=None,
        description="CA that signs clients' certificates; those shown are verified in every mode",
        json_schema_extra=NEW_CONNECTIONS,
    )


class Listen(Section):
    host: OptionalText = Field(
        default="127.0.0.1",
        description="address to listen on; empty text for unix socket only",
        json_schema_extra=RESTART,
    )
    port: Port = Field(default=6432, description="TCP port; 0 takes a free one", json_schema_extra=RESTART)
    unix_socket_dir: OptionalFile = Field(
        default=None, description="directory for a unix socket named after the port", json_schema_extra=RESTART
    )
    tls: ListenTls = Field(default_factory=ListenTls, description="TLS towards clients")
    login_timeout: Seconds = Field(
        default=15.0, description="a client that has not logged in by then is closed", json_schema_extra=NEW_CONNECTIONS
    )
    max_client_connections: AtLeastOne = Field(
        default=10_000, description="client connections at once, of all classes", json_schema_extra=NEW_CONNECTIONS
    )


class Http(Section):
    host: Annotated[str, fields.text("an address to listen on")] = Field(
        default="127.0.0.1", description="address of metrics, health and the page", json_schema_extra=RESTART
    )
    port: Port = Field(default=9432, description="TCP port; 0 takes a free one", json_schema_extra=RESTART)
    switches_from: Annotated[Literal["loopback", "anywhere"], fields.choice("loopback", "anywhere")] = Field(
        default="loopback",
        description="where orders are taken from: loopback (this machine), or anywhere",
        json_schema_extra=only_in_the_file("about who may give orders, which no order changes"),
    )
    switch_token: Annotated[str | None, fields.secret_text()] = Field(
        default=None, repr=False, description="secret that an order has to bring; empty: nothing"
    )
    trusted_hosts: tuple[Annotated[str, fields.text("a host name")], ...] = Field(
        default=(), description="names, besides addresses and localhost, under which people open the page"
    )


class Switches(Section):
    dir: OptionalFile = Field(
        default=None,
        description="directory where a file pause-CLASS, drain-CLASS or reject-CLASS is a switch",
        json_schema_extra={**RESTART, **refuses(RefusalReason.PAUSED, RefusalReason.CLASS_REJECTING)},
    )
    state_file: OptionalFile = Field(
        default=None,
        description="file that keeps orders over a restart; empty: they end with the process",
        json_schema_extra=RESTART,
    )
    audit_file: OptionalFile = Field(
        default=None,
        description="file to which every order is appended as a line of JSON, besides the log",
        json_schema_extra=RESTART,
    )


class Reload(Section):
    watch: Annotated[bool, fields.true_or_false()] = Field(
        default=False, description="this file and the users file are looked at each second, and reloaded when changed"
    )


class Upstream(Section):
    url: Annotated[UpstreamUrl, fields.UrlSetting()] = Field(
        description="where PostgreSQL is, a libpq URI", json_schema_extra=RESTART
    )
    server_name: OptionalText = Field(
        default=None,
        description="name that the server's certificate has to hold, and SNI; empty: the host of the URL",
        json_schema_extra=NEW_CONNECTIONS,
    )
    check_hosts: Seconds = Field(
        default=5.0,
        description="how often names are resolved again, and the server in use is asked what it is",
        json_schema_extra=RESTART,
    )


class Rule(Section):
    method: Annotated[str, fields.auth_method(*AUTH_METHODS, "reject")] = Field(
        description="how they prove who they are: scram, md5, cleartext, trust, cert, passthrough; or reject"
    )
    tls: Annotated[Literal["any", "required", "refused"], fields.choice("any", "required", "refused")] = Field(
        default="any", description="connections under TLS (required), those without (refused), or any"
    )
    address: Annotated[str | None, fields.client_address()] = Field(
        default=None, description="the client's address, a block or glob of them, or local (unix socket)"
    )
    user: Glob = Field(default=None, description="glob over the user's name")
    database: Glob = Field(default=None, description="glob over the database's name")


class AuthCache(Section):
    ttl: SecondsOrZero = Field(
        default=30.0, description="what the server said of a user, or of a password passed through, is believed"
    )
    negative_ttl: SecondsOrZero = Field(default=5.0, description="that the server knows no such user is believed")
    max_users: AtLeastOne = Field(default=10_000, description="users that are remembered")


class AuthFailures(Section):
    delay: SecondsOrZero = Field(
        default=0.2,
        description="a failed login is answered so late; each further one of user and address twice as late",
    )
    max_delay: SecondsOrZero = Field(default=5.0, description="the latest such answer")
    forget_after: Seconds = Field(default=60.0, description="so long without a further failure, it begins anew")
    max_held: Count = Field(
        default=1000,
        description="answers that wait at once, for at most a quarter of all connections; more are given without delay",
    )


class Auth(Section):
    method: Annotated[str, fields.auth_method(*AUTH_METHODS)] = Field(
        default="scram",
        description="how all clients prove who they are: scram, md5, cleartext, trust, cert, passthrough",
    )
    rules: tuple[Rule, ...] = Field(
        default=(), description="instead of method: the first that matches decides, and whom none matches is rejected"
    )
    users: Annotated[Mapping[str, StoredPassword] | None, fields.Secrets()] = Field(
        default=None, repr=False, description="users and their secrets, as in the users file"
    )
    users_file: OptionalFile = Field(
        default=None, description='users, one `"user" "secret"` on a line, as for PgBouncer'
    )
    auth_query: OptionalText = Field(
        default=None, description="asks the server for users that are not listed: a row of user and secret for $1"
    )
    cache: AuthCache = Field(default_factory=AuthCache, description="what the server said of users")
    cert_users: Annotated[Mapping[str, str] | None, fields.names_by_name("a user")] = Field(
        default=None, description="common names of certificates whose user has another name, and that user"
    )
    passthrough_dials: AtLeastOne = Field(
        default=1, description="passwords that are tried at the server at once, above the proxy's own connections"
    )
    failures: AuthFailures = Field(default_factory=AuthFailures, description="failed logins are slowed down")

    @property
    def rules_in_force(self) -> tuple[Rule, ...]:
        """Those written, or the one that `method` is short for."""
        return self.rules or (Rule(method=self.method),)

    def uses(self, *methods: str) -> bool:
        """Whether somebody may have to prove who it is in one of these ways."""
        return any(rule.method in methods for rule in self.rules_in_force)


class Headroom(Section):
    size: Count = Field(default=0, description="slots that only the classes in `for` may use")
    for_classes: tuple[ClassName, ...] = Field(default=(), alias="for", description="these classes")


class Budget(Section):
    total: Annotated[int | Literal["auto"], fields.whole(1, word="auto")] = Field(
        default="auto", description="server connections of this instance; auto asks the server"
    )
    keep_free: Count = Field(default=5, description="connections of the server that the proxy leaves to others")
    instances: AtLeastOne = Field(default=1, description="instances of the proxy that share the server")
    headroom: Headroom = Field(default_factory=Headroom, description="spare slots for bursts of important classes")


class NamedUpstream(Upstream):
    databases: tuple[Annotated[str, fields.text("some text, * and ? stand for any")], ...] = Field(
        default=("*",),
        description="globs over the databases that clients name: whose these are come here",
        json_schema_extra=NEW_CONNECTIONS,
    )
    database: OptionalText = Field(
        default=None,
        description="what their database is called on this server; empty: as the client calls it",
        json_schema_extra=NEW_CONNECTIONS,
    )
    budget: Budget = Field(default_factory=Budget, description="how many connections of this server there are")
    default_class: ClassName = Field(description="class of its clients that match nothing")
    replication_class: OptionalClassName = Field(
        default=None, description="class of its clients that replicate; empty: refused"
    )


class Match(Section):
    application_name: Glob = Field(default=None, description="glob over what the client calls itself")
    user: Glob = Field(default=None, description="glob over the user's name")
    database: Glob = Field(default=None, description="glob over the database's name")
    address: Annotated[str | None, fields.client_address()] = Field(
        default=None, description="the client's address, a block or glob of them, or local (unix socket)"
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Match":
        if not (self.application_name or self.user or self.database or self.address):
            allowed = (
                "at least one of application_name, user, database, address (what matches nothing goes to default_class)"
            )
            raise PydanticCustomError(fields.NOT_ALLOWED, "", {"allowed": allowed})
        return self


class Queue(Section):
    timeout: Seconds = Field(
        default=5.0,
        description="how long a client waits for a slot before it is refused",
        json_schema_extra=refuses(RefusalReason.QUEUE_TIMEOUT, RefusalReason.PAUSED),
    )
    max: Count = Field(
        default=500,
        description="clients that may wait; 0 refuses instead of queueing",
        json_schema_extra=refuses(RefusalReason.QUEUE_FULL, RefusalReason.LIMIT),
    )
    refuse_hopeless: Annotated[bool, fields.true_or_false()] = Field(
        default=True,
        description="who would wait past the timeout, at the best pace of late, is refused at once",
        json_schema_extra=refuses(RefusalReason.DEADLINE),
    )


class ConnectsPerIdentity(Section):
    rate: RateOrZero = Field(
        default=100.0,
        description="connects per second of one identity that may come to nothing; 0 no bound",
        json_schema_extra=refuses(RefusalReason.RATE),
    )
    burst: AtLeastOne = Field(default=1000, description="how many of these may come at once after a quiet time")


class Connects(Section):
    rate: RateOrZero = Field(
        default=0.0,
        description="connects per second of the whole class that may come to nothing; 0 no bound",
        json_schema_extra=refuses(RefusalReason.RATE),
    )
    burst: AtLeastOne = Field(default=1000, description="how many of these may come at once after a quiet time")
    per_identity: ConnectsPerIdentity = Field(
        default_factory=ConnectsPerIdentity, description="the same for one identity"
    )


class Schedule(Section):
    days: tuple[Annotated[tuple[int, ...], fields.weekdays()], ...] = Field(
        default=(), description="days on which the window begins, as mon-fri or sat; none: every day"
    )
    start: Annotated[int, fields.time_of_day()] = Field(
        default=0, alias="from", description="when it begins, by the clock of the time zone"
    )
    end: Annotated[int, fields.time_of_day()] = Field(
        default=24 * 60, alias="to", description="when it ends; not after `from`: on the next day"
    )
    time_zone: Annotated[ZoneInfo, fields.TimeZoneSetting()] = Field(
        default=ZoneInfo("UTC"), description="whose clock it is, as Europe/Berlin; changes of clocks are followed"
    )
    limit: Annotated[int | None, fields.whole(1, optional=True)] = Field(
        default=None, description="the limit of the class meanwhile; empty: as ever"
    )
    state: Annotated[
        Literal["running", "paused", "draining", "rejecting"] | None,
        fields.choice("running", "paused", "draining", "rejecting"),
    ] = Field(
        default=None,
        description="what the class does meanwhile: running, paused, draining, rejecting; empty: as ever",
        json_schema_extra=refuses(RefusalReason.PAUSED, RefusalReason.CLASS_REJECTING),
    )
    reason: OptionalText = Field(default=None, description="why")

    @model_validator(mode="after")
    def _says_something(self) -> "Schedule":
        if self.limit is None and self.state is None:
            raise PydanticCustomError(fields.NOT_ALLOWED, "", {"allowed": "a limit or a state, or both"})
        if self.start in {self.end, 24 * 60}:
            allowed = "`from` before 24:00 and other than `to`; a whole day is 0:00 to 24:00"
            raise PydanticCustomError(fields.NOT_ALLOWED, "", {"allowed": allowed})
        return self


class Tags(Section):
    comments: Annotated[Literal["off", "lower", "trust"], fields.choice("off", "lower", "trust")] = Field(
        default="off",
        description="tags in the comments of statements: not read (off), followed to less important classes (lower),"
        " or to any class (trust)",
    )
    key: Annotated[str, fields.text("the key of a tag")] = Field(default="class", description="the tag that is read")
    value: Annotated[Literal["class", "application_name"], fields.choice("class", "application_name")] = Field(
        default="class", description="what it holds: the name of a class, or one that the rules of `match` are tried on"
    )


class Holds(Section):
    idle_in_transaction: OptionalSeconds = Field(
        default=None, description="a client that idles in a transaction for longer is ended (25P03)"
    )
    borrowed_idle_in_transaction: OptionalSeconds = Field(
        default=None,
        description="the same in a slot over the reservation, once somebody waits who would get it (25P03)",
    )
    transaction: OptionalSeconds = Field(
        default=None, description="a client whose slot is held without a break for longer is ended (25P04)"
    )
    query: OptionalSeconds = Field(
        default=None, description="what is answered no sooner is cancelled (57014); the client stays"
    )
    client_idle: OptionalSeconds = Field(
        default=None, description="a client that sends nothing for longer, and does not listen, is ended (57P05)"
    )
    slow_reader: OptionalSeconds = Field(
        default=None, description="a client that holds a slot and reads nothing of its result for longer is ended"
    )


class PriorityClass(Section):
    renamed_from: OptionalClassName = Field(
        default=None, description="name that the class had before; a reload moves its clients here with their places"
    )
    upstream: OptionalUpstreamName = Field(
        default=None, description="the upstream whose slots it gets, where there are several"
    )
    reason: OptionalText = Field(default=None, description="why the numbers are what they are")
    match: tuple[Match, ...] = Field(default=(), description="clients of this class; one entry has to match")
    mode: Annotated[Literal["enforce", "warn"], fields.choice("enforce", "warn")] = Field(
        default="enforce",
        description="what its bounds do: decide (enforce), or only tell what they would have decided (warn)",
    )
    priority: Count = Field(default=5, description="0 is served first")
    reserved: Count = Field(default=0, description="slots kept for this class")
    lendable: Count = Field(default=0, description="reserved slots that others may use while this class has no need")
    limit: AtLeastOne = Field(
        description="most slots this class may use", json_schema_extra=refuses(RefusalReason.LIMIT)
    )
    weight: Annotated[float, fields.positive_number()] = Field(
        default=1.0, description="share among classes of one priority"
    )
    pool_mode: Annotated[
        Literal["transaction", "session", "statement"], fields.choice("transaction", "session", "statement")
    ] = Field(
        default="transaction",
        description="when a client gives its server connection back: transaction, session, statement (no blocks)",
        json_schema_extra=NEW_CONNECTIONS,
    )
    on_session_state: Annotated[Literal["pin", "reject", "ignore"], fields.choice("pin", "reject", "ignore")] = Field(
        default="pin",
        description="what cannot follow a client (LISTEN, a temporary table ...): pin its connection, reject the"
        " statement, or ignore it: gone with the transaction",
    )
    queue: Queue = Field(default_factory=Queue, description="waiting for a slot")
    connects: Connects = Field(default_factory=Connects, description="how often clients may connect for nothing")
    max_clients: Annotated[int | None, fields.whole(1, optional=True)] = Field(
        default=None,
        description="client connections at once; 1 makes the class a mutex",
        json_schema_extra=refuses(RefusalReason.MAX_CLIENTS),
    )
    max_clients_per_identity: Annotated[int | None, fields.whole(1, optional=True)] = Field(
        default=None,
        description="of these, connections at once of clients that are one by `flow_key`",
        json_schema_extra=refuses(RefusalReason.MAX_CLIENTS),
    )
    pinned_limit: OptionalCount = Field(
        default=None,
        description="slots that may be pinned (held from one transaction to the next); empty: as many as limit",
        json_schema_extra=refuses(RefusalReason.PINNED_LIMIT),
    )
    parameters: Annotated[Mapping[str, str] | None, fields.session_parameters()] = Field(
        default=None,
        description="session parameters of its clients that do not set them, as idle_in_transaction_session_timeout",
        json_schema_extra=NEW_CONNECTIONS,
    )
    holds: Holds = Field(default_factory=Holds, description="how long its clients may go on; empty: without end")
    flow_key: Annotated[FlowKey, fields.choice("identity", "user", "database", "application_name", "address")] = Field(
        default="identity",
        description="clients alike in it take turns as one: identity, user, database, application_name, address",
    )
    schedules: tuple[Schedule, ...] = Field(
        default=(), description="windows of time with another limit or state; the first in force decides"
    )
    slow_start: SecondsOrZero = Field(
        default=2.0, description="time from resuming, or from the end of an outage, to the whole limit; 0 none"
    )
    lend_memory: Seconds = Field(default=10.0, description="half-life of remembered demand; longer lends later")
    notify_after: SecondsOrZero = Field(default=5.0, description="a client waiting this long gets a notice; 0 never")


class Pool(Section):
    server_lifetime: Seconds = Field(default=3600.0, description="an idle server connection older than this is closed")
    server_idle_timeout: Seconds = Field(default=600.0, description="a server connection idle for this long is closed")
    check_after: Seconds = Field(default=30.0, description="idle for this long, it is checked before it is handed out")
    dial_timeout: Seconds = Field(
        default=5.0,
        description="one dial and login of the server; connect_timeout in the URL wins",
        json_schema_extra=refuses(RefusalReason.SERVER_UNAVAILABLE),
    )
    max_dials: AtLeastOne = Field(
        default=2, description="dials of the server under way at once; more where it is far away"
    )
    max_prepared_statements: AtLeastOne = Field(
        default=200,
        description="statements of the protocol kept on one server connection, the least recently used goes",
    )
    gone_timeout: Seconds = Field(
        default=10.0, description="wait for the server to close its side before asking what became of it"
    )
    retry_min: Seconds = Field(default=0.2, description="first pause after a failed dial; doubles, with jitter")
    retry_max: Seconds = Field(default=5.0, description="longest pause between dials of a server that is down")
    cancel_on_disconnect: Annotated[bool, fields.true_or_false()] = Field(
        default=True,
        description="what a vanished client has running is cancelled; else it keeps its slot to its end",
    )
    listen_connections: Count = Field(
        default=4,
        description="databases whose listening clients share one server connection; beyond it, or with 0, each has one",
    )


class Adaptive(Section):
    """The mode alone, as `adaptive: on`, stands for the section with it."""

    MODES: ClassVar[tuple[str, ...]] = ("off", "observe", "on")

    mode: Annotated[Literal["off", "observe", "on"], fields.choice(*MODES)] = Field(
        default="off",
        description="on: the least important work gets less while customers feel an overload; observe: it is only said",
    )
    reference_class: OptionalClassName = Field(
        default=None, description="class whose waits and holds tell an overload; empty: the customers' class"
    )
    tolerance: Annotated[float, fields.positive_number()] = Field(
        default=2.0, description="an overload begins where it holds slots so many times as long as usual"
    )
    wait_target: Seconds = Field(
        default=0.1, description="or where one request of ten waits longer than this for a slot below the limit"
    )
    lock_probe: SecondsOrZero = Field(
        default=0.0, description="how often the server is asked how many of its processes wait for locks; 0 never"
    )

    @model_validator(mode="before")
    @classmethod
    def _mode_alone(cls, data: object) -> object:
        return {"mode": data} if isinstance(data, str) else data

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"enum": list(cls.MODES)}, handler(schema)]}


class Canary(Section):
    interval: SecondsOrZero = Field(default=0.0, description="how often a query is asked as customers would; 0 never")
    class_name: OptionalClassName = Field(
        default=None, alias="class", description="class it asks a slot of, or internal; empty: the customers' class"
    )
    query: Annotated[str, fields.text("a query")] = Field(
        default="select 1", description="what is asked, as the user of upstream.url"
    )
    timeout: Seconds = Field(
        default=2.0, description="a canary without its answer by then has failed, the wait included"
    )


class Limits(Section):
    max_message_bytes: Annotated[int, fields.byte_count(10_000, 1 << 30)] = Field(
        default=1 << 30, description="longest message a client may send", json_schema_extra=NEW_CONNECTIONS
    )
    max_startup_bytes: Annotated[int, fields.byte_count(1_000, 1 << 20)] = Field(
        default=10_000, description="longest startup packet", json_schema_extra=NEW_CONNECTIONS
    )
    max_inspected_bytes: Annotated[int, fields.byte_count(1_000, 1 << 30)] = Field(
        default=1 << 20,
        description="longest statement held whole to see what it does",
        json_schema_extra=NEW_CONNECTIONS,
    )
    max_waiting_bytes: Annotated[int, fields.byte_count(1_000, 1 << 30)] = Field(
        default=256 << 10, description="what a waiting client may send ahead before it is read no further"
    )
    max_statement_bytes: Annotated[int, fields.byte_count(1_000, 1 << 30)] = Field(
        default=16 << 20, description="texts of the prepared statements that one client may have"
    )
    max_notification_bytes: Annotated[int, fields.byte_count(10_000, 1 << 30)] = Field(
        default=256 << 10, description="notifications kept for a listening client that is busy or does not read"
    )


class Refusals(Section):
    delay: SecondsOrZero = Field(
        default=0.25,
        description="an identity refused again while connecting is told so late; each further time twice as late",
    )
    max_delay: SecondsOrZero = Field(default=1.0, description="the latest such answer; up to half of it less by chance")
    forget_after: Seconds = Field(default=10.0, description="so long without a further refusal, it begins anew")
    max_held: Count = Field(
        default=1000,
        description="answers that wait at once, for at most a quarter of all connections; more are given without delay",
    )


class Shutdown(Section):
    drain_timeout: SecondsOrZero = Field(
        default=30.0,
        description="how long running work may finish after SIGTERM",
        json_schema_extra=refuses(RefusalReason.SHUTTING_DOWN),
    )


class Traffic(Section):
    file: OptionalFile = Field(
        default=None, description="what was seen of the traffic is kept here over a restart; empty: in memory alone"
    )
    keep: Seconds = Field(default=604_800.0, description="so long it is worth knowing, in whole hours")


class Log(Section):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], fields.choice("debug", "info", "warning", "error")
    ] = Field(
        default="info",
        description="least severe lines that are written: debug, info, warning, error",
        json_schema_extra=RESTART,
    )
    format: Annotated[Literal["json", "text"], fields.choice("json", "text")] = Field(
        default="json", description="json for collectors, text for people", json_schema_extra=RESTART
    )


@dataclass(frozen=True, slots=True)
class Source:
    """Where a configuration was written: for findings about values that are well-formed and unwise."""

    file: str = ""
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    reasons: Mapping[KeyPath, str] = field(default_factory=dict)


class Config(Section):
    """The whole file."""

    listen: Listen = Field(default_factory=Listen, description="where clients connect")
    http: Http = Field(default_factory=Http, description="metrics, health, the page")
    reload: Reload = Field(default_factory=Reload, description="taking over changes of this file")
    switches: Switches = Field(default_factory=Switches, description="pause, drain, reject, resume")
    upstream: Upstream | None = Field(default=None, description="the server")
    upstreams: dict[UpstreamName, NamedUpstream] = Field(
        default_factory=dict,
        description="several servers instead, each with a budget; databases are looked up in order",
    )
    auth: Auth = Field(default_factory=Auth, description="who may connect")
    budget: Budget = Field(default_factory=Budget, description="how many server connections there are")
    default_class: OptionalClassName = Field(default=None, description="class of clients that match nothing")
    replication_class: OptionalClassName = Field(
        default=None,
        description="class of clients that replicate, each with a server connection of its own; empty: refused",
    )
    classes: dict[ClassName, PriorityClass] = Field(min_length=1, description="the classes, in the order of matching")
    adaptive: Adaptive = Field(default_factory=Adaptive, description="limits that follow how customers fare")
    canary: Canary = Field(default_factory=Canary, description="a query as customers would ask it")
    tags: Tags = Field(default_factory=Tags, description="classes of single statements")
    pool: Pool = Field(default_factory=Pool, description="server connections")
    limits: Limits = Field(default_factory=Limits, description="bounds on what one client may cost")
    refusals: Refusals = Field(default_factory=Refusals, description="clients that reconnect in a loop")
    shutdown: Shutdown = Field(default_factory=Shutdown, description="the end")
    traffic: Traffic = Field(default_factory=Traffic, description="what `pgheadroom recommend` goes by")
    log: Log = Field(default_factory=Log, description="the log")

    _source: Source = PrivateAttr(default_factory=Source)

    def line_of(self, path: KeyPath) -> int:
        """The line of the setting at `path`, or of the nearest thing around it; 0 where nothing is known."""
        while path and path not in self._source.lines:
            path = path[:-1]
        return self._source.lines.get(path, 0)

    @property
    def file(self) -> str:
        return self._source.file

    def reason_of(self, path: KeyPath) -> str | None:
        """Why the number at `path` is what it is: its own reason, else that of its class."""
        own = self._source.reasons.get(path)
        if own is None and len(path) > 1 and path[0] == "classes":
            found = self.classes.get(str(path[1]))
            return found.reason if found else None
        return own

    def reasons(self) -> dict[str, str]:
        """Every reason given with a number, by the number's key as text."""
        return {key_text(path): reason for path, reason in self._source.reasons.items()}
