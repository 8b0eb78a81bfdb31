"""deploy/helm/buntime, without a cluster: Helm renders it, schemas of Kubernetes and checkov's rules judge it."""

import json
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from buntime.config import from_environment

CHECKOUT = Path(__file__).parents[2]
CHART = CHECKOUT / "deploy/helm/buntime"
TOOLS = CHECKOUT / ".tools/charts/bin"
NEEDED: dict[str, Any] = {
    "image": {"repository": "registry.example.com/buntime"},
    "domain": "sandbox.example.com",
    "store": {"secretName": "buntime-store"},
    "archive": {"url": "s3://bucket/prefix", "secretName": "buntime-s3"},
    "masterKey": {"secretName": "buntime-key"},
}
DIGEST = "sha256:" + "0" * 64
OTHER = {
    "image": {"repository": "registry.example.com/buntime", "digest": DIGEST, "pullSecrets": ["registry"]},
    "archive": {"url": "s3://bucket", "endpoint": "https://s3.example.com", "region": "eu-1", "secretName": ""},
    **{"hostNetwork": True, "ipFamily": "IPv6", "priorityClassName": "hosts", "trustedProxies": "10.1.0.0/16"},
    **{"drain": {"onStop": False}, "settings": {"BUNTIME_POOL_SIZE": "16"}, "tolerations": [{"operator": "Exists"}]},
    **{"ingress": {"enabled": False}, "podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}},
}
REFUSED: Sequence[tuple[dict[str, Any], str]] = [
    ({"domain": ""}, "domain"),
    ({"store": {"secretName": "buntime-store", "url": "postgresql://u:secret@db/d"}}, "url"),
    ({"archive": {"url": "/mnt/archive"}}, "archive"),
    ({"masterKey": {"secretName": ""}}, "masterKey"),
    ({"nodeSelector": {"buntime-host": None}}, "nodeSelector"),
    ({"settings": {"BUNTIME_STORE": "postgresql://u:secret@db/d"}}, "BUNTIME_STORE"),
    ({"settings": {"POOL_SIZE": "16"}}, "POOL_SIZE"),
    ({"drain": {"graceSeconds": 20}}, "graceSeconds"),
    ({"replicas": 3}, "replicas"),
]


@cache
def judged() -> list[dict[str, Any]]:
    """Of the values that are needed, of OTHER ones with them, and of each of REFUSED. All at once: Helm is large."""
    values = [NEEDED, NEEDED | OTHER, *(NEEDED | wrong for wrong, _ in REFUSED)]
    done = subprocess.run(
        [TOOLS / "python", Path(__file__).parent / "charts/judge.py", CHART],
        input=json.dumps(values), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def manifests(of: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = judged()[of]["manifests"]
    return found


def container(of: int = 0) -> dict[str, Any]:
    (found,) = manifests(of)["daemonset.yaml"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def environment(of: int = 0) -> dict[str, Any]:
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container(of)["env"]}


@pytest.mark.parametrize("of", [0, 1])
def test_helm_and_the_last_three_versions_of_kubernetes_accept_the_chart(of: int) -> None:
    assert judged()[of]["refused"] is None
    assert judged()[of]["lint"] == []
    assert len(set(judged()[of]["versions"])) == 3
    assert judged()[of]["invalid"] == []


@pytest.mark.parametrize("place", range(len(REFUSED)))
def test_values_that_cannot_work_are_refused_by_name(place: int) -> None:
    assert REFUSED[place][1] in judged()[2 + place]["refused"]


@pytest.mark.parametrize("of", [0, 1])
def test_checkov_finds_nothing_but_what_the_chart_gives_a_reason_for(of: int, tmp_path: Path) -> None:
    for name, manifest in manifests(of).items():
        (tmp_path / name).write_text(json.dumps(manifest))
    options = ["--framework", "kubernetes", "--skip-download", "--output", "json"]
    done = subprocess.run([TOOLS / "checkov", "--directory", tmp_path, *options], capture_output=True, text=True,
                          check=False)  # fmt: skip
    found = json.loads(done.stdout)["results"]
    failed = {check["check_id"] for check in found["failed_checks"]}
    assert failed == (set() if "networkpolicy.yaml" in manifests(of) else {"CKV2_K8S_6"})  # a pod without a policy
    skipped = {check["check_id"] for check in found["skipped_checks"]}
    reasons: dict[str, str] = manifests(of)["daemonset.yaml"]["metadata"]["annotations"]
    told = {text.partition("=")[0] for key, text in reasons.items() if key.startswith("checkov.io/skip")}
    assert told - skipped <= {"CKV_K8S_43", "CKV_K8S_19"}, "no reason for what is not there"


@pytest.mark.parametrize("of", [0, 1])
def test_the_server_takes_the_settings_that_the_chart_gives_it(of: int) -> None:
    variables = environment(of)
    secret = variables.pop("BUNTIME_STORE")
    assert secret == {"secretKeyRef": {"name": "buntime-store", "key": "url"}}
    pod = "[fd00::7]" if of else "10.1.0.7"
    given = {name: str(value).replace("$(POD_IP)", pod.strip("[]")) for name, value in variables.items()}
    config = from_environment(given | {"BUNTIME_STORE": "postgresql://db/buntime"})
    assert config.peer == f"{pod}:8443"
    assert (config.domain, config.port, config.own_watchdog) == ("sandbox.example.com", 8000, 1)
    mounts = {mount["name"]: mount["mountPath"] for mount in container(of)["volumeMounts"]}
    assert str(config.data_dir) == mounts["data"]
    assert config.master_key_file == Path(mounts["master-key"]) / "master.key"


def test_secrets_are_named_and_never_values() -> None:
    kinds = {manifest["kind"] for manifest in manifests().values()}
    assert "Secret" not in kinds
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert environment()[name] == {"secretKeyRef": {"name": "buntime-s3", "key": name}}
        assert name not in environment(1), "the role of the node"
    volumes = {v["name"]: v for v in manifests()["daemonset.yaml"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["master-key"]["secret"]["defaultMode"] == 0o400, "the server refuses a key that others can read"


def test_a_pod_that_ends_drains_its_host_within_its_grace() -> None:
    hook = container()["lifecycle"]["preStop"]["exec"]["command"][-1]
    waits = re.fullmatch(r"exec timeout (\d+) buntime hosts drain here --within 60 --wait", hook)
    assert waits
    grace = manifests()["daemonset.yaml"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert 0 < int(waits[1]) < grace
    assert "hosts resume here" in container()["lifecycle"]["postStart"]["exec"]["command"][-1]
    assert "lifecycle" not in container(1)


def test_hosts_are_replaced_one_after_another_and_never_two_on_a_node() -> None:
    strategy = manifests()["daemonset.yaml"]["spec"]["updateStrategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 1, "maxSurge": 0}
    assert manifests()["poddisruptionbudget.yaml"]["spec"]["minAvailable"] == 1


def test_the_ingress_has_the_domain_and_all_names_below_it() -> None:
    spec = manifests()["ingress.yaml"]["spec"]
    both = ["sandbox.example.com", "*.sandbox.example.com"]
    assert [rule["host"] for rule in spec["rules"]] == both
    assert spec["tls"] == [{"secretName": "buntime-tls", "hosts": both}]


def test_only_hosts_reach_the_port_for_hosts() -> None:
    labels = manifests()["daemonset.yaml"]["spec"]["selector"]["matchLabels"]
    everybody, hosts = manifests()["networkpolicy.yaml"]["spec"]["ingress"]
    assert everybody == {"ports": [{"port": "http"}]}
    assert hosts == {"ports": [{"port": "peer"}], "from": [{"podSelector": {"matchLabels": labels}}]}


def test_the_container_has_the_nodes_cgroups_and_devices_and_is_privileged() -> None:
    assert container()["securityContext"] == {"privileged": True}
    volumes = {v["name"]: v for v in manifests()["daemonset.yaml"]["spec"]["template"]["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]]["hostPath"]["path"]
              for mount in container()["volumeMounts"] if "hostPath" in volumes[mount["name"]]}  # fmt: skip
    assert mounts == {path: path for path in ("/var/lib/buntime", "/sys/fs/cgroup", "/dev")}
