"""Who has to prove what: the rules of `auth.rules`, in order.

Owns: finding the first rule for a client.
Does not know: how a method is carried out, where the rules were written.
Source: PostgreSQL manual, "The pg_hba.conf File" (auth-pg-hba-conf), whose order and meaning these rules have.
"""

from collections.abc import Sequence

from proxy.admission.classification import Classifier, MatchEntry
from proxy.session.settings import AuthRule, TlsDemand


class AuthRules:
    """First match wins; whom nothing matches is not let in."""

    def __init__(self, rules: Sequence[AuthRule]) -> None:
        self._rules = tuple(rules)
        self._encrypted = self._finder(TlsDemand.REFUSED)
        self._in_clear = self._finder(TlsDemand.REQUIRED)

    def first_match_or_none(
        self, user: str, database: str, address: str | None, *, is_encrypted: bool
    ) -> AuthRule | None:
        """`address` is the text of an IP address, or None for a client of the unix socket."""
        finder = self._encrypted if is_encrypted else self._in_clear
        found = finder.classify("", user, database, address)
        return self._rules[int(found.class_name)] if found.matched else None

    def _finder(self, left_out: TlsDemand) -> Classifier:
        """The patterns are those of `classes.<name>.match`, so what matches them does so here."""
        entries = [
            (str(position), [MatchEntry(user=rule.user, database=rule.database, address=rule.address)])
            for position, rule in enumerate(self._rules)
            if rule.tls is not left_out
        ]
        return Classifier(entries, "")
