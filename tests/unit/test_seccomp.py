import json

from buntime.sandboxes.seccomp import profile

PODMAN = json.dumps(
    {
        "syscalls": [
            {"names": ["read", "clone", "clone3", "mount", "sync", "socket"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
            {"names": ["reboot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_BOOT"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
            {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"},
        ]
    }
)


def allowed(name: str) -> list[dict[str, object]]:
    rules = profile(PODMAN, "x86_64")["syscalls"]
    return [rule for rule in rules if name in rule["names"] and rule["action"] == "SCMP_ACT_ALLOW"]


def test_what_is_not_named_is_refused() -> None:
    assert profile(PODMAN, "x86_64")["defaultAction"] == "SCMP_ACT_ERRNO"
    assert allowed("ptrace") == []


def test_rules_for_capabilities_that_sessions_lack_are_left_out() -> None:
    assert allowed("bpf") == []
    assert allowed("reboot") == []


def test_only_rules_of_this_machine_are_kept() -> None:
    assert allowed("arch_prctl")
    assert allowed("cacheflush") == []


def test_conditions_of_the_profile_are_kept() -> None:
    assert allowed("personality")[0]["args"]


def test_no_namespace_can_be_made() -> None:
    (clone,) = allowed("clone")
    assert clone["args"], "clone must look at its flags"
    assert allowed("mount") == []
    assert allowed("clone3") == []


def test_a_socket_is_of_a_family_that_sessions_need() -> None:
    families = {rule["args"][0]["value"] for rule in allowed("socket")}  # type: ignore[index]
    assert families == {1, 2, 10, 16}


def test_flushing_the_whole_host_succeeds_and_does_nothing() -> None:
    rules = profile(PODMAN, "x86_64")["syscalls"]
    (rule,) = [rule for rule in rules if "sync" in rule["names"]]
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", 0)
