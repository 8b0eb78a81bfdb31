import json

from buntime.sandboxes.kernel.seccomp import profile

PODMAN = json.dumps(
    {
        "syscalls": [
            {"names": ["read", "clone", "clone3", "mount", "sync", "socket", "ioctl"], "action": "SCMP_ACT_ALLOW"},
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


def test_calls_that_the_profile_does_not_name_are_refused() -> None:
    assert profile(PODMAN, "x86_64")["defaultAction"] == "SCMP_ACT_ERRNO"
    assert allowed("ptrace") == []


def test_rules_for_capabilities_that_sessions_lack_are_left_out() -> None:
    assert allowed("bpf") == []
    assert allowed("reboot") == []


def test_only_rules_for_this_machine_are_kept() -> None:
    assert allowed("arch_prctl")
    assert allowed("cacheflush") == []


def test_conditions_of_the_profile_are_kept() -> None:
    assert allowed("personality")[0]["args"]


def test_no_program_can_make_a_namespace() -> None:
    assert [call("clone", flags | 17) for flags in (0, 0x4100)] == [ALLOW, ALLOW]  # fork, vfork
    assert {call("clone", flag | 17) for flag in (0x20000, 0x10000000, 0x40000000)} == {"refused"}
    assert allowed("mount") == []
    assert allowed("clone3") == []


def test_only_families_that_sessions_need_have_sockets() -> None:
    families = {rule["args"][0]["value"] for rule in allowed("socket")}  # type: ignore[index]
    assert families == {1, 2, 10, 16}


def test_a_socket_for_auditing_is_not_supported_instead_of_forbidden() -> None:
    (refused,) = [
        rule
        for rule in profile(PODMAN, "x86_64")["syscalls"]
        if "socket" in rule["names"] and rule["action"] == "SCMP_ACT_ERRNO"
    ]
    assert refused["errnoRet"] == 93
    assert [(condition["index"], condition["value"]) for condition in refused["args"]] == [(0, 16), (2, 9)]


def test_flushing_the_whole_host_succeeds_and_does_nothing() -> None:
    rules = profile(PODMAN, "x86_64")["syscalls"]
    (rule,) = [rule for rule in rules if "sync" in rule["names"]]
    assert (rule["action"], rule["errnoRet"]) == ("SCMP_ACT_ERRNO", 0)


ALLOW = "SCMP_ACT_ALLOW"


def call(name: str, *arguments: int) -> str | int:
    """Returns what the profile does with a call: an action or an errno. Asserts that matching rules agree."""
    answers: set[str | int] = {
        rule.get("errnoRet", rule["action"])
        for rule in profile(PODMAN, "x86_64")["syscalls"]
        if name in rule["names"]
        and all(
            arguments[condition["index"]] & condition["value"] == condition["valueTwo"] for condition in rule["args"]
        )
    }
    assert len(answers) <= 1, (name, arguments)
    return answers.pop() if answers else "refused"


def answer(number: int) -> str | int:
    return call("ioctl", 0, number)


def test_only_threads_share_their_open_files() -> None:
    threads, files = 0x3D0F00, 0x400
    assert call("clone", threads) == ALLOW
    assert call("clone", files | 17) == "refused"
    assert call("clone", threads & ~files) == "refused"


def test_locks_belong_to_the_process_that_took_them() -> None:
    for command in (36, 37, 38):
        assert call("fcntl", 3, command) == call("fcntl", 3, command | 1 << 40) == 22
    others = [*range(36), *range(39, 42), *range(1024, 1045)]
    assert {call("fcntl", 3, command) for command in others} == {ALLOW}


def test_socket_options_that_hold_memory_do_nothing() -> None:
    ignored = [(1, 8), (1, 18), (1, 37), (1, 65), (0, 11), (41, 25)]
    for level, option in ignored:
        assert call("setsockopt", 3, level, option) == call("setsockopt", 3, level | 1 << 32, option | 1 << 40) == 0
    others = [(level, option) for level in (0, 1, 6, 17, 41, 270, 282) for option in range(90)]
    assert {call("setsockopt", 3, *each) for each in others if each not in ignored} == {ALLOW}


def test_no_form_of_the_number_changes_flags_of_files() -> None:
    for setter in (0x40086602, 0x401C5820):  # FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
        assert answer(setter) == 25
        assert answer(setter | 1 << 40) == 25
    assert answer(0x40046602) == "refused"  # the number that 32-bit programs use
    assert answer(0x40806685) == "refused"  # FS_IOC_ENABLE_VERITY


def test_every_other_ioctl_is_allowed() -> None:
    kinds = [kind for kind in range(256) if kind not in b"fX"]
    assert {answer(0x40040000 | kind << 8 | 1) for kind in kinds} == {"SCMP_ACT_ALLOW"}
    for reader in (0x80086601, 0xC020660B, 0x801C581F):  # FS_IOC_GETFLAGS, FS_IOC_FIEMAP, FS_IOC_FSGETXATTR
        assert answer(reader) == "SCMP_ACT_ALLOW"
