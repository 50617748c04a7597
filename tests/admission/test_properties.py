"""What follows from the admission rule, over drawn configurations and random operations."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.admission.machine import AdmissionMachine


def test_every_property_holds_over_drawn_configurations() -> None:
    run_state_machine_as_test(
        AdmissionMachine,
        settings=settings(
            max_examples=600,
            stateful_step_count=8,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
