"""The sidecar manifest: valid for Kubernetes, and its numbers fit together."""

import kubernetes_validate
import pytest

from proxy.service.config.loading import load_config_text
from tests.deploy.artifacts import ROOT, read_documents

MANIFEST = "kubernetes/sidecar.yaml"
FIRST_WITH_SIDECARS = "1.29"  # without a feature gate
NEWEST = kubernetes_validate.utils.major_minor(kubernetes_validate.latest_version())  # whose schema is at hand
ENVIRONMENT = {"PGHEADROOM_UPSTREAM_URL": "postgresql://pgheadroom:x@db/shop", "PGHEADROOM_INSTANCES": "4"}


def document(kind):
    (found,) = [one for one in read_documents(MANIFEST) if one["kind"] == kind]
    return found


@pytest.fixture
def deployment():
    return document("Deployment")["spec"]


@pytest.fixture
def pod(deployment):
    return deployment["template"]["spec"]


@pytest.fixture
def sidecar(pod):
    (container,) = pod["initContainers"]
    return container


@pytest.fixture
def config():
    return load_config_text(document("ConfigMap")["data"]["pgheadroom.yaml"], ENVIRONMENT)


# The first version that has native sidecars without a feature gate, and the newest whose schema is at hand.
@pytest.mark.parametrize(
    "version", ["1.29", kubernetes_validate.utils.major_minor(kubernetes_validate.latest_version())]
)
@pytest.mark.parametrize("one", read_documents(MANIFEST), ids=lambda one: one["kind"])
def test_it_is_valid(one, version):
    assert kubernetes_validate.validate(one, version, strict=True) == version


def test_a_mistyped_key_would_be_seen():
    one = document("Deployment")
    one["spec"]["template"]["spec"]["initContainers"][0]["restartPolicie"] = "Always"

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, FIRST_WITH_SIDECARS, strict=True)


def test_it_is_a_native_sidecar_that_starts_before_the_application(sidecar):
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_a_lost_database_takes_the_pod_out_of_service_and_restarts_nothing(sidecar):
    assert sidecar["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_probes_and_scrapes_go_to_the_port_that_listens_on_the_pods_address(sidecar, config, deployment):
    (port,) = sidecar["ports"]
    probes = [sidecar[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]

    assert (config.http.host, config.http.port) == ("0.0.0.0", port["containerPort"])
    assert probes == [port["name"]] * 3
    assert deployment["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])


def test_clients_come_from_the_pod_only_and_so_do_switches(config):
    assert config.listen.host == "127.0.0.1"
    assert config.http.switches_from == "loopback"


def test_how_many_instances_there_are_is_said_and_includes_the_surge(sidecar, deployment, config):
    (instances,) = [one["value"] for one in sidecar["env"] if one["name"] == "PGHEADROOM_INSTANCES"]

    assert int(instances) == deployment["replicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    assert config.budget.instances == int(instances)


def test_the_configuration_has_no_default_for_the_number_of_instances():
    assert "${PGHEADROOM_INSTANCES}" in document("ConfigMap")["data"]["pgheadroom.yaml"]


def test_draining_fits_into_the_grace_period_beside_the_application(pod, config):
    application_stop_seconds, goodbye_seconds = 30, 10

    assert (
        application_stop_seconds + config.shutdown.drain_timeout + goodbye_seconds
        <= pod["terminationGracePeriodSeconds"]
    )


def test_the_budget_is_that_of_the_published_example(config):
    example = load_config_text((ROOT / "config/examples/sidecar.yaml").read_text(), ENVIRONMENT)

    assert (config.budget, config.classes) == (example.budget, example.classes)


def test_the_users_file_and_the_configuration_are_mounted_where_they_are_read(sidecar, config):
    mounts = {mount["name"]: mount["mountPath"] for mount in sidecar["volumeMounts"]}

    assert str(config.auth.users_file) == f"{mounts['pgheadroom-users']}/users.txt"
    assert mounts["pgheadroom-config"] == "/etc/pgheadroom"


def test_it_runs_with_as_few_rights_as_it_needs(pod, sidecar):
    rights = sidecar["securityContext"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert rights["runAsUser"] == 65532
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
