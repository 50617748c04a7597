"""Which class a client belongs to."""

import pytest

from proxy.admission.classification import Classification, Classifier, MatchEntry


def class_of(
    *entries: MatchEntry, name: str = "app", user: str = "u", database: str = "d", address: str | None = "10.1.2.3"
) -> str:
    classifier = Classifier([("matched", entries)], "default")
    return classifier.classify(name, user, database, address).class_name


def test_whatever_matches_nothing_falls_into_the_default_class() -> None:
    classifier = Classifier([("web", [MatchEntry(application_name="web*")])], "bulk")
    assert classifier.classify("worker", "u", "d", None) == Classification("bulk", matched=False)


def test_the_default_class_can_be_matched_too() -> None:
    classifier = Classifier([("bulk", [MatchEntry(application_name="worker*")])], "bulk")
    assert classifier.classify("worker-7", "u", "d", None) == Classification("bulk", matched=True)


def test_the_first_matching_rule_wins() -> None:
    rules = [("first", [MatchEntry(application_name="web*")]), ("second", [MatchEntry(application_name="*")])]
    classifier = Classifier(rules, "default")
    assert classifier.classify("web-1", "u", "d", None).class_name == "first"
    assert classifier.classify("other", "u", "d", None).class_name == "second"


def test_entries_are_alternatives() -> None:
    entries = (MatchEntry(application_name="psql"), MatchEntry(user="dba_*"))
    assert class_of(*entries, name="psql") == class_of(*entries, user="dba_ann") == "matched"


def test_keys_of_an_entry_must_all_match() -> None:
    entry = MatchEntry(application_name="psql", user="dba_*", database="shop")
    assert class_of(entry, name="psql", user="dba_ann", database="shop") == "matched"
    assert class_of(entry, name="psql", user="dba_ann", database="other") == "default"
    assert class_of(entry, name="psql", user="guest", database="shop") == "default"


def test_an_entry_without_keys_matches_everybody() -> None:
    assert class_of(MatchEntry()) == "matched"


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("web*", "web", True),
        ("web*", "Web", False),
        ("web-?", "web-12", False),
        ("[ab]*", "beta", True),
        ("a.c", "abc", False),
        ("*", "", True),
        ("two\nlines*", "two\nlines and more", True),
        ("web", "web\n", False),
    ],
)
def test_values_are_globs_and_case_counts(pattern: str, name: str, matches: bool) -> None:
    assert (class_of(MatchEntry(application_name=pattern), name=name) == "matched") is matches


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.9/24", "10.1.2.3", True),
        ("10.1.*", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("fd00::1", "fd00:0::1", True),
        ("fd00::/8", "10.1.2.3", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("10.0.0.0/8", None, False),
        ("10.0.0.0/8", "not an address", False),
        ("local", None, True),
        ("*", None, True),
    ],
)
def test_addresses_are_networks_or_globs(pattern: str, address: str | None, matches: bool) -> None:
    assert (class_of(MatchEntry(address=pattern), address=address) == "matched") is matches


@pytest.mark.parametrize("pattern", ["10.0.0.0/99", "ten/8", "::ffff:10.0.0.0/104"])
def test_a_network_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|IPv4 address written as IPv6"):
        class_of(MatchEntry(address=pattern))


def test_answers_do_not_mix_clients_of_different_hosts() -> None:
    classifier = Classifier([("near", [MatchEntry(address="10.0.0.0/8")])], "far")
    assert [classifier.classify("a", "u", "d", host).class_name for host in ("10.0.0.1", "11.0.0.1", None)] == [
        "near",
        "far",
        "far",
    ]


def test_many_names_stay_bounded() -> None:
    classifier = Classifier([("web", [MatchEntry(application_name="web*")])], "bulk")
    for number in range(10_000):
        assert classifier.classify(f"x{number}", "u", "d", None).class_name == "bulk"
    assert classifier._remembered.cache_info().currsize <= 4096
