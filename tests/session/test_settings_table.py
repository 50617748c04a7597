"""What a client is greeted with, worked out once for a fleet and anew when it is no longer so."""

from proxy.session.parameters import SettingsTable
from proxy.wire import messages

REPORTED = {"server_version": "18.0", "TimeZone": "UTC", "DateStyle": "ISO, MDY", "application_name": ""}
BERLIN = (("timezone", "europe/berlin"),)


def told(**changed: str) -> bytes:
    return b"".join(messages.parameter_status(name, value) for name, value in {**REPORTED, **changed}.items())


def known_table() -> SettingsTable:
    table = SettingsTable()
    table.learn_login(REPORTED)
    return table


def test_a_client_is_told_its_own_values_and_else_those_of_the_server() -> None:
    table = known_table()
    beginning = table.beginning_or_none((("application_name", "web"),))
    assert beginning is not None
    settings, statuses = beginning
    assert settings.values["application_name"] == "web"
    assert statuses == told(application_name="web") == table.statuses(settings)
    assert table.statuses(table.neutral) == told()


def test_the_next_of_a_fleet_is_greeted_with_the_same() -> None:
    table = known_table()
    first, second = (table.beginning_or_none((("application_name", "web"),)) for _ in range(2))
    assert first is second


def test_a_value_nobody_has_tried_is_the_servers_to_judge_each_time() -> None:
    table = known_table()
    assert [table.beginning_or_none(BERLIN) for _ in range(2)] == [None, None]
    table.accept("timezone", "europe/berlin", "Europe/Berlin")
    beginning = table.beginning_or_none(BERLIN)
    assert beginning is not None
    assert beginning[1] == told(TimeZone="Europe/Berlin")


def test_another_answer_of_the_server_counts_from_then_on() -> None:
    table = known_table()
    for shown in ("Europe/Berlin", "EUROPE/BERLIN"):
        table.accept("timezone", "europe/berlin", shown)
        beginning = table.beginning_or_none(BERLIN)
        assert beginning is not None
        assert beginning[1] == told(TimeZone=shown)


def test_a_server_with_other_values_counts_from_then_on() -> None:
    table = known_table()
    table.beginning_or_none(())
    table.learn_login({**REPORTED, "server_version": "18.1", "DateStyle": "German, DMY"})
    beginning = table.beginning_or_none(())
    assert beginning is not None
    assert beginning[1] == told(server_version="18.1", DateStyle="German, DMY")
    assert beginning[0] is table.neutral


def test_clients_that_invent_names_do_not_fill_the_memory() -> None:
    table = known_table()
    for number in range(1000):
        table.beginning_or_none((("application_name", f"run {number}"),))
    assert len(table._beginnings) <= 64
