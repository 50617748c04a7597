"""The upstream URL is read as libpq reads it; where libpq is at hand, it is asked."""

import pytest
from psycopg import conninfo, pq

from proxy.service.config.upstream_keywords import KEYWORDS, Use
from proxy.service.config.upstream_url import UpstreamUrlError, parse_upstream_url

ENVIRONMENT_OF_LIBPQ = [keyword.environment for keyword in KEYWORDS.values() if keyword.environment]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:1/d",
        "postgres://u:p@h/d",
        "postgresql://h",
        "postgresql://h/",
        "postgresql://u@h?dbname=d",
        "postgresql://u@h/d?user=other&dbname=e&port=7&host=g",
        "postgresql://u%20x:p%40%2F%3A@h/d%2Fe",
        "postgresql://u@[::1]:7/d",
        "postgresql://u@[2001:db8::1]/d",
        "postgresql://u@a:1,b:2,c/d",
        "postgresql://u@a,b/d?port=7",
        "postgresql://u@/d?host=/var/run/postgresql",
        "postgresql://u@%2Fvar%2Frun%2Fpostgresql:7/d",
        "postgresql:///d?host=a,b&port=1,2",
        "postgresql://u@h/d?hostaddr=127.0.0.1",
        "postgresql://u:p+q@h/d+e",
        "postgresql://u@h/d?ssl=true",
        "postgresql://u@h/d?sslmode=verify-full&sslrootcert=/ca&connect_timeout=3&application_name=x%20y",
        "postgresql://u@h/d?options=-c%20geqo%3Doff",
        "postgresql://u:@h/d",
    ],
)
def test_hosts_user_password_and_database_are_those_libpq_reads(url, monkeypatch):
    for name in ENVIRONMENT_OF_LIBPQ:
        monkeypatch.delenv(name, raising=False)
    theirs = conninfo.conninfo_to_dict(url)
    ours = parse_upstream_url(url)
    assert ",".join(host.host for host in ours.hosts) == (theirs.get("host") or theirs.get("hostaddr"))
    ports = [port or "5432" for port in theirs.get("port", "").split(",")]
    assert [str(host.port) for host in ours.hosts] == (ports if len(ports) > 1 else ports * len(ours.hosts))
    assert ours.password == (theirs.get("password") or None)
    assert ours.user == theirs.get("user", ours.user)
    assert ours.database == theirs.get("dbname", ours.user)
    assert ours.sslmode == theirs.get("sslmode", "prefer")
    assert ours.options == theirs.get("options")
    assert ours.application_name == theirs.get("application_name")


def test_every_keyword_of_the_libpq_at_hand_is_known():
    of_libpq = {option.keyword.decode(): (option.envvar or b"").decode() for option in pq.Conninfo.get_defaults()}
    assert set(of_libpq) - set(KEYWORDS) == set()
    for name, keyword in KEYWORDS.items():
        if keyword.use is Use.USED and name in of_libpq:
            assert keyword.environment == of_libpq[name], name


@pytest.mark.parametrize("name", [name for name, keyword in KEYWORDS.items() if keyword.use is Use.REFUSED])
def test_a_refused_keyword_says_what_to_do_and_its_harmless_values_pass(name):
    with pytest.raises(UpstreamUrlError, match=f"^{name} is refused: .+"):
        parse_upstream_url(f"postgresql://h/d?{name}=require")
    for value in KEYWORDS[name].harmless:
        parse_upstream_url(f"postgresql://h/d?{name}={value}")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("host=h dbname=d", "not a connection URI"),
        ("postgresql://", "no host"),
        ("postgresql:///d", "no host"),
        ("postgresql://a,,b/d", "a host in the list is empty"),
        ("postgresql://h:0/d", "the port is not a number from 1 to 65535"),
        ("postgresql://h/d?port=1,2", "2 ports and 1 hosts"),
        ("postgresql://a,b/d?hostaddr=127.0.0.1", "2 hosts and 1 in hostaddr"),
        ("postgresql://::1/d", "several colons"),
        ("postgresql://[::1/d", "a [ without its ]"),
        ("postgresql://[::1]x/d", "a [ without its ]"),
        ("postgresql://h/d%zz", "a % without two hexadecimal digits"),
        ("postgresql://h/d%00", "no value may hold a zero byte"),
        ("postgresql://h/d%ff", "not UTF-8"),
        ("postgresql://h/d?sslmode", "without a name or without ="),
        ("postgresql://h/d?options=a=b", "options holds a second ="),
        ("postgresql://h/d?sslmod=require", 'unknown parameter "sslmod"; did you mean "sslmode"?'),
        ("postgresql://h/d?pgbouncer=true", '"pgbouncer" belongs to Prisma'),
        ("postgresql://h/d?sslmode=on", 'sslmode: read "on", allowed: disable, allow, prefer'),
        ("postgresql://h/d?connect_timeout=soon", 'connect_timeout: read "soon", allowed: a whole number'),
        ("postgresql://h/d?sslrootcert=system&sslmode=require", "write sslmode=verify-full"),
        ("postgresql://h/d?sslnegotiation=tls", 'sslnegotiation: read "tls", allowed: postgres, direct'),
        ("postgresql://h/d?sslkey=k", "sslkey without sslcert"),
        ("postgresql://h/d?sslcertmode=require", "sslcertmode=require without sslcert"),
        (
            "postgresql://h/d?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "is below ssl_min_protocol_version",
        ),
    ],
)
def test_what_cannot_be_used_is_told(url, told):
    with pytest.raises(UpstreamUrlError) as caught:
        parse_upstream_url(url)
    assert told in str(caught.value)


@pytest.mark.parametrize("password", ["hush/x", "hush@x", "hush:x", "hu%sh", "hush?x", "hush/x:y@z"])
def test_a_password_that_is_not_encoded_is_never_shown(password):
    url = f"postgresql://user:{password}@host:5432/db"
    shown = ""
    try:
        ours = parse_upstream_url(url)
        shown = repr(ours) + ours.shown()
    except UpstreamUrlError as error:
        shown = str(error)
    assert "hush" not in shown


def test_the_url_speaks_before_the_environment_and_the_environment_before_the_default():
    environ = {
        "PGPORT": "7",
        "PGSSLMODE": "require",
        "PGUSER": "env",
        "PGPASSWORD": "pw",
        "PGDATABASE": "",
        "PGSERVICE": "",
    }
    ours = parse_upstream_url("postgresql://url@h/?sslmode=disable", environ)
    assert (ours.user, ours.hosts[0].port, ours.sslmode, ours.password, ours.database) == (
        "url",
        7,
        "disable",
        "pw",
        "url",
    )


def test_a_mistake_in_the_environment_names_the_variable():
    with pytest.raises(UpstreamUrlError, match="PGSSLMODE in the environment: read"):
        parse_upstream_url("postgresql://h", {"PGSSLMODE": "on"})


def test_the_systems_certificates_imply_full_verification():
    assert parse_upstream_url("postgresql://h?sslrootcert=system").sslmode == "verify-full"


def test_sockets_addresses_and_numbers():
    ours = parse_upstream_url(
        "postgresql://u@a,b/d?hostaddr=127.0.0.1,&keepalives_idle=30&connect_timeout=0"
        "&sslcert=c&sslkey=k&sslcertmode=disable&fallback_application_name=fb"
    )
    assert ours.addresses == ("127.0.0.1", None)
    assert ours.connect_timeout_seconds is None
    assert ours.sslcert is None
    assert ours.application_name == "fb"
    assert parse_upstream_url("postgresql:///d?host=/tmp").hosts[0].is_unix_socket


def test_what_is_shown_holds_no_password_and_no_parameters():
    ours = parse_upstream_url("postgresql://u%40x:hush@[::1],%2Ftmp/d?sslpassword=hush")
    assert ours.shown() == "postgresql://u%40x@[::1]:5432,%2Ftmp:5432/d"
    assert "hush" not in repr(ours)


@pytest.mark.parametrize(("tail", "mode"), [("", "prefer"), ("?channel_binding=disable", "disable")])
def test_channel_binding_is_read_as_libpq_reads_it(tail, mode):
    assert parse_upstream_url(f"postgresql://h/db{tail}").channel_binding == mode


def test_a_required_channel_binding_needs_tls():
    url = "postgresql://h/db?channel_binding=require&sslmode="
    assert parse_upstream_url(url + "require").channel_binding == "require"
    with pytest.raises(UpstreamUrlError, match="channel_binding=require with sslmode=disable"):
        parse_upstream_url(url + "disable")
