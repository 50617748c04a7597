"""What users of such a proxy need, and the tests that show it: nobody takes one of those tests away unnoticed.

Owns: the needs in words, and the names of their tests.
Does not know: how a test shows it.
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.clients.programs import DRIVERS

ROOT = Path(__file__).parents[1]
UPSTREAMS = ROOT / "config" / "upstreams"

NEEDS: Mapping[str, tuple[str, ...]] = {
    # -- storms -------------------------------------------------------------------------------------------------------
    "clients that retry without backoff are slowed down, and told when to come again": (
        "tests/clients/test_retry_storms.py::test_naive_loops",
        "tests/clients/test_retry_storms.py::test_sqlalchemys_pool",
        "tests/clients/test_retry_storms.py::test_psycopgs_pool",
        "tests/clients/test_retry_storms.py::test_knexs_pool",
        "tests/admission/test_retry_turns.py::test_they_come_no_faster_than_slots_become_free",
        "tests/session/test_connects.py::test_who_works_may_connect_as_often_as_it_likes",
        "tests/session/test_slow_start.py::test_when_the_server_is_back_nobody_storms_it",
    ),
    "a wait that would be in vain is refused before it begins, and every other one says how long it will be": (
        "tests/admission/test_hope.py::test_exactly_those_are_refused_who_would_wait_in_vain",
        "tests/admission/test_simulation_retries.py::test_who_would_wait_in_vain_does_not_and_as_much_gets_done",
        "tests/session/test_refusals.py::test_who_would_wait_in_vain_is_told_at_once_how_long_it_would_take",
        "tests/session/test_refusals.py::test_the_notice_tells_the_place_in_the_queue",
    ),
    # -- knowing the traffic ------------------------------------------------------------------------------------------
    "a budget from what a normal hour has shown, not from guesses": (
        "tests/service/test_recommendation.py::test_more_demand_never_suggests_less",
        "tests/service/test_recommendation.py::test_it_can_always_be_kept_and_every_class_makes_progress",
        "tests/service/test_recommend_report.py::test_over_drawn_classes_and_demand_the_block_passes_the_check",
        "tests/service/test_recommend_report.py::test_the_block_passes_the_check_and_keeps_what_it_does_not_suggest",
        "tests/session/test_traffic_watch.py::test_slots_and_waiting_clients_are_seen_by_class_and_application",
        "tests/session/test_traffic_watch.py::test_a_restart_loses_nothing",
    ),
    "the ceiling is checked again for as long as the proxy runs, whoever opens first": (
        "tests/session/test_budget_while_running.py::"
        "test_connections_past_the_proxy_that_eat_into_the_budget_are_named_once",
        "tests/session/test_budget_while_running.py::"
        "test_a_server_that_comes_back_smaller_makes_the_budget_smaller_and_that_is_told",
        "tests/deploy/test_prometheus.py::test_each_alert_fires_when_it_has_to_and_only_then",
    ),
    "a new fleet is listed with its names, and where it might belong": (
        "tests/service/test_recommend_report.py::test_unmatched_names_are_told_where_they_might_belong",
        "tests/session/test_traffic_watch.py::test_a_new_fleet_is_listed_with_its_names_and_how_many_came",
        "tests/cli/test_status.py::test_the_totals",
    ),
    "connections per identity are seen and bounded, and a job that waits for itself is named": (
        "tests/session/test_traffic_watch.py::test_connections_by_identity",
        "tests/session/test_traffic_watch.py::test_a_job_that_waits_for_itself_is_named",
        "tests/session/test_refusals.py::test_an_identity_at_its_bound_is_refused_by_name_while_others_come_in",
        "tests/admission/test_places_per_identity.py::"
        "test_bounds_hold_nobody_waits_in_vain_and_identities_keep_their_order",
    ),
    # -- steering ----------------------------------------------------------------------------------------------------
    "one person stops work in seconds, by whatever is at hand, and it is written down": (
        "tests/session/test_switches.py::test_an_order_is_in_effect_well_within_a_second",
        "tests/session/test_switches.py::test_waiters_of_a_paused_class_keep_their_places_and_others_are_served",
        "tests/session/test_switches.py::test_a_pause_for_a_while_ends_by_itself_and_says_so",
        "tests/session/test_switches.py::test_a_pause_is_in_force_before_the_first_client_is_served",
        "tests/session/test_switches.py::test_a_file_pauses_and_its_removal_resumes",
        "tests/session/test_switches.py::test_every_order_and_every_end_leaves_a_line",
        "tests/session/test_switches.py::test_orders_reach_a_class_under_load_and_nobody_is_lost",
        "tests/cli/test_switches.py::test_pause_and_resume",
        "tests/service/test_http.py::test_only_our_own_page_may_use_the_switch",
        "tests/loadtests/test_scenarios.py::test_a_pause_that_does_nothing_falls_short",
    ),
    "work that is not urgent rests in busy hours": (
        "tests/session/test_schedules.py::"
        "test_a_window_pauses_the_class_when_it_begins_and_one_that_is_in_force_from_the_start",
        "tests/session/test_schedules.py::test_a_window_changes_the_limit_and_its_end_changes_it_back",
        "tests/session/test_schedules.py::test_an_order_counts_before_the_window_and_the_window_again_when_it_ends",
        "tests/service/test_schedule.py::test_nothing_changes_before_the_next_change_and_something_does_at_it",
    ),
    "who gains and who loses is told before it is so, and what cannot hold changes nothing": (
        "tests/session/test_reload.py::test_the_difference_says_who_gains_who_loses_and_what_is_in_use",
        "tests/session/test_reload.py::test_the_difference_shows_no_secret",
        "tests/session/test_reload.py::test_what_cannot_hold_is_refused_whole_with_file_and_line",
        "tests/session/test_operation.py::test_a_reload_under_load_loses_nobody_and_its_limits_hold_afterwards",
        "tests/session/test_set.py::test_numbers_that_cannot_hold_are_refused_and_nothing_changes",
    ),
    "a class is introduced before it decides anything": (
        "tests/session/test_modes.py::test_above_its_limit_a_class_that_warns_is_served_and_told",
        "tests/session/test_modes.py::test_what_is_reserved_for_others_is_not_taken_and_who_waits_is_not_refused",
        "tests/session/test_modes.py::test_a_reload_makes_it_decide",
    ),
    "urgent and other work of one application are told apart, and inside a class everybody has a turn": (
        "tests/admission/test_classification.py::test_values_are_globs_and_case_counts",
        "tests/admission/test_granting.py::test_flows_of_a_class_take_turns_and_each_is_in_order",
        "tests/session/test_refusals.py::test_who_is_one_identity_is_said_by_the_flow_key",
        "tests/session/test_tags.py::test_a_tag_moves_the_unit_that_begins_with_it_and_no_other",
        "tests/session/test_tags.py::test_a_tag_never_raises_a_class_unless_trusted",
    ),
    "how long slots are held is seen, and bounded": (
        "tests/service/test_metrics.py::test_histogram_buckets_add_up_and_the_last_holds_what_is_beyond_all_bounds",
        "tests/session/test_traffic_watch.py::test_holds_are_counted_by_application",
        "tests/session/test_holds.py::test_a_transaction_that_stays_open_too_long_ends_with_its_client",
        "tests/session/test_holds.py::test_a_query_that_takes_too_long_is_cancelled_and_its_client_goes_on",
        "tests/session/test_holds.py::test_a_client_that_reads_nothing_of_its_result_loses_its_slot",
    ),
    "a worker reads how much room its class has": (
        "tests/service/test_http.py::test_a_worker_reads_both_limits_of_its_class_and_what_is_left_of_them",
    ),
    "thirty workers that wake together are nothing to customers": (
        "tests/loadtests/test_scenarios.py::test_every_scenario_holds_in_the_simulator",
        "tests/loadtests/test_scenarios.py::test_a_small_scenario_runs_for_real",
        "tests/cli/test_demo.py::test_a_small_demo_for_real_and_its_figures_as_json",
    ),
    "what is left running by a client that is gone ends": (
        "tests/session/test_vanishing.py::test_what_a_vanished_client_had_running_ends_on_the_server",
        "tests/session/test_vanishing.py::test_while_waiting_in_the_queue",
    ),
    # -- customers who fare badly ------------------------------------------------------------------------------------
    "where customers slow down the least important work gets less first, and gets it back slowly": (
        "tests/admission/test_adaptive_scenarios.py::test_bulk_shrinks_within_five_seconds_of_a_slow_server",
        "tests/admission/test_adaptive_scenarios.py::"
        "test_customers_on_the_slow_server_wait_at_most_twice_as_long_as_if_they_were_alone",
        "tests/admission/test_adaptive_scenarios.py::test_bulk_has_its_limit_back_within_a_minute_and_its_rate",
        "tests/admission/test_adaptive_scenarios.py::test_eight_drawn_hours_of_health_hold_no_false_alarm",
        "tests/admission/test_adaptive_properties.py::test_every_rule_holds_in_drawn_hours",
        "tests/session/test_adaptive_running.py::"
        "test_bulk_gets_less_while_customers_fare_badly_and_its_limit_back_with_the_reload",
        "tests/session/test_adaptive_running.py::test_observing_says_what_it_would_do_and_does_not_do_it",
    ),
    "a database that is up while customers are not served is told by a canary that asks as they do": (
        "tests/session/test_adaptive_running.py::test_a_canary_waits_where_customers_wait_and_says_so",
        "tests/service/test_adaptive_shown.py::test_the_endpoint_says_whether_customers_are_served",
        "tests/service/test_adaptive_shown.py::test_the_canary_as_a_metric",
    ),
    "lock waits do not drift out of sight": (
        "tests/session/test_adaptive_running.py::test_server_processes_that_wait_for_locks_are_counted",
    ),
    # -- clients that come and go ------------------------------------------------------------------------------------
    "thousands of runs keep a connection each, and cost the server nothing while they sleep": (
        "tests/session/test_crowds.py::test_thousands_of_runs_hold_a_connection_each_and_share_a_few",
        "tests/session/test_operation.py::test_idle_clients_cost_no_server_connection",
        "tests/session/test_transactions.py::test_many_clients_share_few_connections",
    ),
    "prepared statements work on shared connections without a flag in the client": (
        "tests/session/test_statements.py::test_a_statement_is_executed_on_whatever_connection_serves",
        "tests/session/test_statements_like_a_server.py::test_it_answers_as_a_server_of_one_s_own",
        "tests/clients/test_drivers.py::test_in_transaction_mode",
        "tests/clients/test_asyncpg.py::test_prepared_statements_keep_their_meaning_across_connections",
    ),
    "migrations have a session of their own on the same port": (
        "tests/clients/test_drivers.py::test_in_session_mode",
        "tests/session/test_refusals.py::test_a_session_class_takes_its_slot_at_login_and_is_refused_there",
        "tests/admission/test_unbounded_holds.py::test_a_session_never_stands_on_a_lent_slot",
    ),
    "LISTEN works on the same URL as everything else": (
        "tests/session/test_listening.py::test_fifty_clients_listen_over_one_server_connection",
        "tests/session/test_listening.py::test_a_lost_connection_comes_back_and_every_listener_is_told_of_the_gap",
        "tests/session/test_listening.py::test_psycopg_listens_and_works_on_the_same_connection",
        "tests/session/test_listening.py::test_asyncpgs_listeners_are_called_until_they_are_removed",
    ),
    "a transaction that waits for its client is seen by application, and bounded": (
        "tests/session/test_parameters.py::test_a_transaction_that_waits_for_its_client_is_seen_and_ends",
        "tests/session/test_long_lives.py::test_a_client_suspended_in_a_transaction_loses_it_and_nobody_waits_for_it",
        "tests/session/test_holds.py::test_a_client_that_idles_in_a_transaction_is_ended_as_by_the_server",
        "tests/session/test_holds.py::test_a_borrowed_slot_is_taken_back_only_once_somebody_waits",
    ),
    "idle connections live, and where they die on the server's side nobody is told": (
        "tests/session/test_long_lives.py::test_both_legs_are_kept_alive",
        "tests/session/test_long_lives.py::test_server_connections_that_are_cut_while_nobody_uses_them_are_not_missed",
        "tests/session/test_long_lives.py::"
        "test_server_connections_that_died_without_a_word_are_noticed_before_anything_is_sent_on_them",
        "tests/session/test_faults.py::test_an_idle_connection_that_is_lost_is_invisible",
        "tests/session/test_faults.py::test_a_restart_of_the_server_is_invisible_to_idle_clients",
    ),
    "a process that wakes up to a dead socket gets an error at once, and can come again": (
        "tests/session/test_long_lives.py::test_a_client_that_comes_back_to_a_dead_socket_gets_an_error_at_once",
        "tests/session/test_faults.py::test_while_the_server_is_down_units_fail_fast_and_the_client_stays",
    ),
    "read replicas and the primary have their own limits, behind one port": (
        "tests/session/test_upstreams.py::test_a_flood_on_the_replica_leaves_the_primary_alone",
        "tests/session/test_upstreams.py::test_one_server_that_is_down_leaves_the_other_served",
        "tests/session/test_upstreams.py::test_the_database_that_a_client_names_chooses_the_server",
        "tests/session/test_upstreams.py::test_a_reload_changes_the_budget_of_one",
    ),
    "the server's refusal for want of slots reaches no client": (
        "tests/session/test_crowds.py::"
        "test_slots_that_others_took_are_waited_for_and_the_servers_refusal_is_never_shown",
        "tests/session/test_faults.py::test_too_many_connections_is_asked_again_and_never_shown",
        "tests/session/test_faults.py::test_a_server_that_stays_full_is_told_in_our_words_at_the_end_of_the_wait",
        "tests/session/test_operation.py::test_the_budget_is_never_exceeded_and_the_server_never_refuses",
    ),
    "a long wire costs no more round trips than without the proxy": (
        "tests/session/test_round_trips.py::test_a_query_takes_the_time_of_one_round_trip",
        "tests/session/test_round_trips.py::test_a_driver_waits_as_long_as_straight_at_the_server",
        "tests/session/test_round_trips.py::test_a_driver_takes_as_many_turns_as_straight_at_the_server",
        "tests/session/test_round_trips.py::test_known_settings_travel_with_the_query",
        "tests/session/test_round_trips.py::"
        "test_a_statement_is_parsed_with_its_first_use_on_a_connection_that_does_not_know_it",
        "tests/session/test_parameters.py::test_known_parameters_cost_no_round_trip",
    ),
    "a URI means what it means to libpq, and what is wrong with TLS is told in words": (
        "tests/service/test_upstream_url.py::test_hosts_user_password_and_database_are_those_libpq_reads",
        "tests/service/test_upstream_url.py::test_every_keyword_of_the_libpq_at_hand_is_known",
        "tests/service/test_upstream_url.py::test_the_systems_certificates_imply_full_verification",
        "tests/session/test_tls_server_leg.py::test_every_sslmode_gets_in",
        "tests/session/test_tls_server_leg.py::test_the_authorities_of_the_system",
        "tests/session/test_tls_server_leg.py::test_the_name_that_a_server_is_asked_for",
        "tests/session/test_tls_server_leg.py::test_an_authority_that_nobody_trusts_is_told_with_the_setting",
        "tests/session/test_tls_server_leg.py::test_a_certificate_for_another_name_is_told_with_its_names_and_the_setting",
        "tests/session/test_long_lives.py::test_a_server_that_has_an_ipv6_address_only",
    ),
    "our error comes before the driver's pool gives up, and names the class and what decides": (
        "tests/session/test_refusals.py::test_a_queue_timeout_says_which_settings_decide",
        "tests/session/test_refusals.py::test_drivers_see_a_refusal_as_an_error_and_go_on",
        "tests/service/test_check.py::test_the_pools_that_give_up_first_are_named",
        "tests/service/test_check.py::test_the_default_queue_timeout_suits_every_known_pool",
    ),
    "jobs of the same second queue, and a class can be a mutex": (
        "tests/session/test_crowds.py::"
        "test_jobs_of_the_same_second_run_one_after_the_other_where_their_class_admits_one",
        "tests/session/test_crowds.py::test_without_it_they_run_side_by_side",
        "tests/admission/test_places.py::test_max_clients_one_is_a_mutex",
        "tests/session/test_refusals.py::"
        "test_over_max_clients_a_login_is_queued_and_then_refused_after_authentication_ok",
    ),
    # -- programs and servers that work as they are --------------------------------------------------------------------
    "runs that are suspended while they wait, as trigger.dev has them": (
        "tests/session/test_crowds.py::test_thousands_of_runs_hold_a_connection_each_and_share_a_few",
        "tests/session/test_long_lives.py::test_a_client_that_comes_back_to_a_dead_socket_gets_an_error_at_once",
    ),
    "servers of versions 13 to 18": (
        "tests/session/test_server_versions.py::test_a_server_of_each_version_serves",
        "tests/session/test_server_versions.py::test_a_query_on_a_server_of_each_version_is_cancelled",
    ),
    "PgBouncer as the server": (
        "tests/session/test_pooler.py::test_many_clients_share_the_few_connections_of_the_pooler",
        "tests/session/test_pooler.py::test_a_cancel_reaches_the_query_through_both",
        "tests/session/test_pooler.py::test_a_pooler_that_takes_no_more_clients_is_asked_again",
        "tests/session/test_pooler.py::test_the_limit_of_a_pooler_cannot_be_asked_and_has_to_be_written",
        "tests/service/test_upstream_presets.py::test_the_preset_for_pgbouncer_holds_before_pgbouncer",
    ),
    "a client of another database, or of none, reads why it is not served": (
        "tests/session/test_faults.py::test_what_is_not_postgresql_gets_one_error_and_is_closed",
        "tests/wire/test_startup.py::test_what_is_not_postgresql_is_named_at_once",
    ),
}

# Programs that have to work through the proxy as they are, by the names of their rows in the matrix of clients.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "node-postgres": ("pg",),
    "postgres.js": ("postgres",),
    "Prisma with its adapter": ("prisma",),
    "Drizzle": ("drizzle",),
    "Knex, and with it Strapi": ("knex",),
    "psycopg 3": ("psycopg", "psycopg_async"),
    "psycopg2": ("psycopg2",),
    "asyncpg": ("asyncpg",),
    "SQLAlchemy": ("sqlalchemy", "sqlalchemy_asyncpg"),
    "Django": ("django",),
    "Horsies": ("horsies",),
    "pgbench": ("pgbench",),
    "psql": ("psql",),
    "pg_dump and pg_restore": ("pg_dump",),
    "pgx": ("pgx",),
    "pgjdbc": ("pgjdbc",),
}
SHOWS_A_PROGRAM = (
    "tests/clients/test_drivers.py::test_straight_at_the_server",
    "tests/clients/test_drivers.py::test_in_transaction_mode",
    "tests/clients/test_drivers.py::test_in_session_mode",
    "tests/clients/test_matrix.py::test_the_readme_has_a_row_for_each_driver_and_a_column_for_each_scenario",
    "tests/clients/test_matrix.py::test_the_readme_says_what_the_tests_expect",
)

# Servers that cannot be had here: an example to begin with, which says that it is not tested there.
FAR_AWAY: Mapping[str, str] = {
    "PgCat": "pgcat",
    "Supavisor": "supabase",
    "Neon": "neon",
    "RDS Proxy": "rds",
    "PlanetScale": "planetscale",
}
SHOWS_AN_EXAMPLE = (
    "tests/service/test_upstream_presets.py::test_every_preset_can_be_started_from",
    "tests/service/test_upstream_presets.py::test_every_preset_is_listed_in_the_documentation",
)


@cache
def functions_of(path: Path) -> frozenset[str]:
    """The test functions of a file, also those of its classes; none where there is no such file."""
    if not path.is_file():
        return frozenset()
    found = (
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return frozenset(node.name for node in found if node.name.startswith("test_"))


def missing(tests: tuple[str, ...]) -> list[str]:
    parts = ((test, *test.split("::")) for test in tests)
    return [test for test, path, name in parts if name not in functions_of(ROOT / path)]


@pytest.mark.parametrize("need", NEEDS)
def test_every_need_has_tests(need: str) -> None:
    assert NEEDS[need]
    assert missing(NEEDS[need]) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_is_among_the_clients_of_the_tests(program: str) -> None:
    assert {driver.id for driver in DRIVERS} >= set(PROGRAMS[program])


def test_every_client_of_the_tests_is_needed() -> None:
    assert {name for names in PROGRAMS.values() for name in names} == {driver.id for driver in DRIVERS}


def test_clients_and_examples_are_tested() -> None:
    assert missing(SHOWS_A_PROGRAM + SHOWS_AN_EXAMPLE) == []


@pytest.mark.parametrize("server", FAR_AWAY)
def test_every_server_that_cannot_be_had_here_has_an_example(server: str) -> None:
    text = (UPSTREAMS / f"{FAR_AWAY[server]}.yaml").read_text()
    assert server in text
    assert "not tested there" in text or "After the provider's documentation" in text


def test_a_test_that_is_gone_is_noticed() -> None:
    gone = ("tests/test_needs.py::test_that_nobody_wrote", "tests/no_such_file.py::test_every_need_has_tests")
    assert missing((*gone, "tests/test_needs.py::test_a_test_that_is_gone_is_noticed")) == list(gone)
