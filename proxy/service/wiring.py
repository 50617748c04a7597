"""From the configuration to the values the session layer is told.

Owns: this translation, reading the users file on the way.
Does not know: the running process, what the server says about itself.
"""

from dataclasses import replace

from proxy.admission.holds import HoldBounds
from proxy.admission.lateness import LatenessSettings
from proxy.service.config.model import Config, Holds, Rule
from proxy.service.config.parts import UpstreamPart
from proxy.service.config.upstream_url import UpstreamUrl
from proxy.service.config.users import load_users
from proxy.service.tls import tls_offer, upstream_tls
from proxy.session.settings import (
    AuthCacheSettings,
    AuthRule,
    AuthSettings,
    ClassBehaviour,
    LimitSettings,
    ListenSettings,
    OnSessionState,
    PoolMode,
    PoolSettings,
    SessionAttrs,
    SessionSettings,
    SslMode,
    TagSettings,
    TagsFollowed,
    TlsDemand,
    UpstreamHost,
    UpstreamSettings,
)
from proxy.wire.passwords import StoredPassword
from proxy.wire.server_login import ChannelBinding


def session_settings(config: Config) -> SessionSettings:
    """Raises ConfigError for the users file and TlsFilesUnusable for certificates."""
    return SessionSettings(
        listen=listen_settings(config),
        auth=auth_settings(config),
        limits=limit_settings(config),
        classes=class_behaviours(config),
        refusals=refusal_settings(config),
        tags=tag_settings(config),
    )


def numbers_of(config: Config, settings: SessionSettings) -> SessionSettings:
    """The settings with all of `config` that changes beside the file, without reading any other file."""
    listen = config.listen
    return replace(
        settings,
        auth=replace(
            settings.auth,
            cache=auth_cache_settings(config),
            passthrough_dials=config.auth.passthrough_dials,
            failures=failure_settings(config),
        ),
        listen=replace(
            settings.listen,
            login_timeout_seconds=listen.login_timeout,
            max_client_connections=listen.max_client_connections,
        ),
        limits=limit_settings(config),
        classes=class_behaviours(config),
        refusals=refusal_settings(config),
        tags=tag_settings(config),
    )


def tag_settings(config: Config) -> TagSettings:
    return TagSettings(TagsFollowed(config.tags.comments), config.tags.key, config.tags.value == "application_name")


def limit_settings(config: Config) -> LimitSettings:
    limits = config.limits
    return LimitSettings(
        max_message_bytes=limits.max_message_bytes,
        max_startup_bytes=limits.max_startup_bytes,
        max_inspected_bytes=limits.max_inspected_bytes,
        max_waiting_bytes=limits.max_waiting_bytes,
        max_statement_bytes=limits.max_statement_bytes,
        max_notification_bytes=limits.max_notification_bytes,
    )


def listen_settings(config: Config) -> ListenSettings:
    listen = config.listen
    return ListenSettings(
        host=listen.host or None,
        port=listen.port,
        unix_socket_dir=str(listen.unix_socket_dir) if listen.unix_socket_dir is not None else None,
        tls=tls_offer(listen.tls),
        tls_required=listen.tls.mode in ("require", "verify"),
        client_certificate_required=listen.tls.mode == "verify",
        login_timeout_seconds=listen.login_timeout,
        max_client_connections=listen.max_client_connections,
    )


def upstream_settings(
    url: UpstreamUrl,
    *,
    server_name: str | None = None,
    check_seconds: float = 5.0,
) -> UpstreamSettings:
    """Raises TlsFilesUnusable."""
    return UpstreamSettings(
        hosts=tuple(
            UpstreamHost(host.host, host.port, address) for host, address in zip(url.hosts, url.addresses, strict=True)
        ),
        user=url.user,
        password=url.password,
        database=url.database,
        ssl_mode=SslMode(url.sslmode),
        tls=upstream_tls(url, server_name),
        wanted=SessionAttrs(url.target_session_attrs),
        balances_load=url.load_balance_hosts == "random",
        check_seconds=check_seconds,
        channel_binding=ChannelBinding(url.channel_binding),
        protocol_minor=url.protocol_minor,
    )


def upstream_settings_of(part: UpstreamPart) -> UpstreamSettings:
    """Raises TlsFilesUnusable."""
    upstream = part.upstream
    return replace(
        upstream_settings(upstream.url, server_name=upstream.server_name, check_seconds=upstream.check_hosts),
        name=part.name,
        databases=part.databases,
        database_there=part.database,
        replication_class=part.replication_class,
    )


def auth_settings(config: Config) -> AuthSettings:
    auth = config.auth
    listed = load_users(auth.users_file) if auth.users_file is not None else {}
    return AuthSettings(
        rules=tuple(map(_auth_rule, auth.rules_in_force)),
        users={**{user: StoredPassword.parse(text) for user, text in listed.items()}, **(auth.users or {})},
        auth_query=auth.auth_query,
        cache=auth_cache_settings(config),
        cert_users=auth.cert_users or {},
        passthrough_dials=auth.passthrough_dials,
        failures=failure_settings(config),
    )


def auth_cache_settings(config: Config) -> AuthCacheSettings:
    cache = config.auth.cache
    return AuthCacheSettings(cache.ttl, cache.negative_ttl, cache.max_users)


def failure_settings(config: Config) -> LatenessSettings:
    failures = config.auth.failures
    return LatenessSettings(
        delay_seconds=failures.delay,
        max_delay_seconds=failures.max_delay,
        forget_after_seconds=failures.forget_after,
        max_held=_most_held(config, failures.max_held),
    )


def refusal_settings(config: Config) -> LatenessSettings:
    """Half of the delay is drawn by chance: those who were refused together must not come back together."""
    refusals = config.refusals
    return LatenessSettings(
        delay_seconds=refusals.delay,
        max_delay_seconds=refusals.max_delay,
        forget_after_seconds=refusals.forget_after,
        max_held=_most_held(config, refusals.max_held),
        at_once=1,
        jitter=0.5,
    )


def _most_held(config: Config, written: int) -> int:
    """Those who fail must not keep others from connecting."""
    return min(written, config.listen.max_client_connections // 4)


def _auth_rule(rule: Rule) -> AuthRule:
    return AuthRule(rule.method, TlsDemand(rule.tls), rule.address, rule.user, rule.database)


def pool_settings(part: UpstreamPart) -> PoolSettings:
    pool = part.pool
    connect_timeout = part.upstream.url.connect_timeout_seconds
    return PoolSettings(
        server_lifetime_seconds=pool.server_lifetime,
        server_idle_timeout_seconds=pool.server_idle_timeout,
        check_after_seconds=pool.check_after,
        dial_timeout_seconds=connect_timeout or pool.dial_timeout,
        max_dials=pool.max_dials,
        max_prepared_statements=pool.max_prepared_statements,
        gone_timeout_seconds=pool.gone_timeout,
        retry_min_seconds=pool.retry_min,
        retry_max_seconds=pool.retry_max,
        cancel_on_disconnect=pool.cancel_on_disconnect,
        listen_connections=pool.listen_connections,
    )


def hold_bounds(holds: Holds) -> HoldBounds:
    return HoldBounds(**{name: seconds for name, seconds in holds if seconds is not None})


def class_behaviours(config: Config) -> dict[str, ClassBehaviour]:
    return {
        name: ClassBehaviour(
            PoolMode(one.pool_mode),
            one.priority,
            one.queue.timeout,
            one.flow_key,
            OnSessionState(one.on_session_state),
            one.parameters or {},
            hold_bounds(one.holds),
        )
        for name, one in config.classes.items()
    }
