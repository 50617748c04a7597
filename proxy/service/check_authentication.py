"""The part of the start-up check about what clients have to prove.

Owns: the rules about methods, the users they need, and who gets in without proof.
Does not know: TLS files, listeners, how clients are told apart (check_access.py does).
"""

import ipaddress
from pathlib import Path
from typing import Final

from proxy.service.check_files import is_loopback, report_file
from proxy.service.config.errors import ConfigError
from proxy.service.config.errors import Path as KeyPath
from proxy.service.config.model import Config, Rule
from proxy.service.config.users import load_users
from proxy.service.findings import Reporter

_ALL_USERS_SHOWN: Final = 5
_BY_STORED_PASSWORD: Final = ("scram", "md5", "cleartext")
_IN_CLEARTEXT: Final = ("cleartext", "passthrough")
_AUTH: Final = ("auth",)


def report_authentication(report: Reporter, config: Config) -> None:
    auth = config.auth
    if auth.rules and "method" in auth.model_fields_set:
        text = "says the same as auth.rules in fewer words, and both are written"
        report.error((*_AUTH, "method"), text, "leave auth.method out, or auth.rules")
    for where, rule in _rules(config):
        _report_rule(report, config, where, rule)
    _report_order(report, config)
    _report_lookup(report, config)
    secrets = _secrets(report, config)
    if auth.uses(*_BY_STORED_PASSWORD) and auth.auth_query is None and not secrets and not _has_file(config):
        text = f"method {_named(config)} without users: nobody can log in"
        report.error((*_AUTH, "users_file"), text, "set auth.users_file (in PgBouncer's format), users or auth_query")
    _report_usable(report, config, secrets)


def _rules(config: Config) -> list[tuple[KeyPath, Rule]]:
    """The rules in force with where each is written."""
    if not config.auth.rules:
        return [((*_AUTH, "method"), rule) for rule in config.auth.rules_in_force]
    return [((*_AUTH, "rules", position), rule) for position, rule in enumerate(config.auth.rules)]


def _named(config: Config) -> str:
    return ", ".join(dict.fromkeys(rule.method for _, rule in _rules(config) if rule.method in _BY_STORED_PASSWORD))


def _has_file(config: Config) -> bool:
    """A users file that cannot be read, or names nobody, is a finding of its own."""
    return config.auth.users_file is not None


# One rule


def _report_rule(report: Reporter, config: Config, where: KeyPath, rule: Rule) -> None:
    tls = config.listen.tls
    offers_tls = tls.mode != "disable" and tls.cert is not None
    if rule.tls == "required" and not offers_tls:
        report.error(where, "no client can use TLS, which this entry is for", "set listen.tls.cert and listen.tls.key")
    if rule.tls == "required" and rule.address == "local":
        report.warning(where, "nobody is meant: a unix socket is never under TLS", "drop tls, or address")
    if rule.method == "trust" and _is_open(config, rule):
        text = f"trust lets whoever reaches {config.listen.host} in, as any user"
        if rule.address is not None or rule.user is not None:
            text = f"trust lets whoever connects from {rule.address or 'anywhere'} in as {rule.user or 'any user'}"
        report.warning(where, text, "set scram, or the address of loopback or a named network, or listen on 127.0.0.1")
    if rule.method in _IN_CLEARTEXT:
        _report_cleartext(report, config, where, rule, offers_tls)
    if rule.method == "cert" and (tls.client_ca is None or not offers_tls):
        text = "method cert, and no certificate of a client can be verified"
        report.error(where, text, "set listen.tls.client_ca, with listen.tls.cert and key")


def _report_cleartext(report: Reporter, config: Config, where: KeyPath, rule: Rule, offers_tls: bool) -> None:
    if offers_tls or rule.address == "local" or config.listen.host is None:
        return
    text = f"method {rule.method} takes passwords over TLS only, and TLS is not offered"
    report.error(where, text, "set listen.tls.cert and listen.tls.key, or method scram")


def _is_open(config: Config, rule: Rule) -> bool:
    """Whether other machines than this one can come under the rule, however narrow the network is."""
    host = config.listen.host
    if host is None or is_loopback(host) or rule.address == "local":
        return False
    if rule.address is None:
        return True
    try:
        network = ipaddress.ip_network(rule.address)
    except ValueError:
        return True  # a glob
    return not network.is_loopback and (rule.user is None or network.num_addresses > 1)


def _report_order(report: Reporter, config: Config) -> None:
    """What stands behind an entry for everybody is never looked at."""
    rules = _rules(config)
    for position, (where, rule) in enumerate(rules):
        if not (rule.address or rule.user or rule.database) and rule.tls == "any":
            for late, _ in rules[position + 1 :]:
                text = f"no client gets this far: auth.rules[{where[-1]}] matches everybody"
                report.warning(late, text, "move it up, or leave it out")
            return


# Users


def _report_lookup(report: Reporter, config: Config) -> None:
    auth = config.auth
    where = (*_AUTH, "auth_query")
    if auth.auth_query is None:
        return
    if "$1" not in auth.auth_query:
        text = "asks for the same whoever logs in: $1, the name of the user, is not in it"
        report.error(where, text, "as: SELECT usename, passwd FROM pg_shadow WHERE usename = $1")
    if not auth.uses(*_BY_STORED_PASSWORD):
        report.warning(where, "is never asked: no method in force compares a password", "leave it out")


def _secrets(report: Reporter, config: Config) -> dict[str, str]:
    """All users that are listed; findings about the file on the way."""
    auth, where = config.auth, (*_AUTH, "users_file")
    inline = {user: stored.secret for user, stored in (auth.users or {}).items()}
    if auth.users_file is None or not report_file(report, where, auth.users_file, secret=True):
        return inline
    listed = _listed(report, where, auth.users_file)
    if listed == {} and not inline and auth.auth_query is None and auth.uses(*_BY_STORED_PASSWORD):
        report.error(where, f"{auth.users_file} names no user: nobody can log in", 'add a line "user" "secret"')
    twice = sorted(set(listed or ()) & set(inline))
    if twice:
        text = f"{_some(twice)} also in auth.users, which wins"
        report.warning(where, text, "keep each user in one place")
    return {**(listed or {}), **inline}


def _listed(report: Reporter, where: KeyPath, path: Path) -> dict[str, str] | None:
    """None where the file has mistakes."""
    try:
        return load_users(path)
    except ConfigError as error:
        for finding in error.findings:
            report.error(where, str(finding), "correct the line")
        return None


def _report_usable(report: Reporter, config: Config, secrets: dict[str, str]) -> None:
    """A secret of a kind that no method in force can compare locks its user out."""
    methods = {rule.method for _, rule in _rules(config)} & set(_BY_STORED_PASSWORD)
    if methods == {"scram"}:
        locked_out = [user for user, secret in secrets.items() if secret.startswith("md5")]
        if locked_out:
            text = f"what is stored of {_some(locked_out)} is an md5 hash, which cannot serve method scram"
            report.warning(_where_users(config), text, "store a password or a SCRAM verifier")


def _where_users(config: Config) -> KeyPath:
    return (*_AUTH, "users_file" if config.auth.users_file is not None else "users")


def _some(users: list[str]) -> str:
    return ", ".join(users[:_ALL_USERS_SHOWN]) + (", ..." if len(users) > _ALL_USERS_SHOWN else "")
