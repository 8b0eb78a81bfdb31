"""Things that a session must not see, reach or do. Each is tried once from inside, and must be refused."""

import json
import os
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buntime.plan import MB
from tests.acceptance import packets, traces
from tests.acceptance.client import Client, Session
from tests.acceptance.inside.system_calls import ACTIONS
from tests.acceptance.server import Server
from tests.acceptance.sleeping import deep_sleep, wake

pytestmark = pytest.mark.sandbox

INSIDE = Path(__file__).with_name("inside")
CAPABILITIES = {  # the only ones that a session has
    "chown": 0, "dac_override": 1, "fowner": 3, "fsetid": 4, "kill": 5, "setgid": 6, "setuid": 7, "setpcap": 8,
    "net_bind_service": 10, "sys_chroot": 18, "setfcap": 31,
}  # fmt: skip
OWN_MOUNTS = re.compile(
    r"/|/proc(/.*)?|/sys(/fs/(cgroup(/(memory|cpu))?|btrfs/session))?"
    r"|/dev(/(pts|shm|null|zero|full|tty|random|urandom))?|/run(/guest)?|/etc/resolv.conf"
)
COMMANDS_THAT_MUST_FAIL = [
    "mount -t tmpfs x /mnt",
    "mount -o remount,rw /sys",
    "unshare -Ur true",
    "chroot / mount -t proc proc /proc",
    "touch /sys/x",
    "echo 1 > /proc/sys/kernel/panic",
    "echo 1 > /proc/sys/vm/drop_caches",
    "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
    "echo /tmp/x > /proc/sys/kernel/core_pattern",
    "echo 1 > /proc/irq/default_smp_affinity",
    "ip addr add 10.1.2.3/32 dev eth0",
    "ip link set eth0 down",
    "ip link set eth0 address 02:00:00:00:00:09",
    "ip link add dummy0 type dummy",
    "ip route replace default dev lo",
    "hostname other",
    "date -s 2020-01-01",
    "dmesg",
    "cat /dev/kmsg",
    "mknod /tmp/disk b 254 0",
    "touch /run/guest/new",
    "rm -f /run/guest/guest",
    "chmod 777 /run/guest/kernel.js",
    "mv /run/guest /tmp/guest",
    "echo nameserver 8.8.8.8 > /etc/resolv.conf",
    "chown 70000 /tmp",
    "echo -1000 > /proc/self/oom_score_adj",
    "renice -n -5 $$",
    "ulimit -n 1048576",
    "ls /dev/vda /dev/sda /dev/mem /dev/fuse /dev/kvm /dev/loop0 2>/dev/null | grep .",
    "find /sys -maxdepth 1 | grep -vE '^/sys(/devices|/fs)?$'",
    "ls /sys/devices /sys/devices/system /sys/fs/btrfs | grep -vE '^(/sys/.*:|system|cpu|session|)$'",
    "head -c 1 /proc/kcore | grep -c .",
    "cat /proc/keys /proc/timer_list /proc/interrupts | grep .",
    "find /proc/acpi /proc/scsi | grep -v -x -e /proc/acpi -e /proc/scsi",
    "touch /proc/acpi/x",
    "chmod 777 /proc/acpi",
    "mount -o remount,rw /proc/acpi",
    "mount -o remount,dev,exec /dev/shm",
    "mount -o remount,size=1g /run",
    "mount --bind /dev/shm /run/guest",
    "rm -f /dev/null",
    "mv /dev/zero /dev/null",
    "chmod 600 /dev/null",
    "chown 1 /dev/tty",
    "mknod /dev/disk b 254 0",
    "mknod /dev/shm/null c 1 3",
    "mknod /run/null c 1 3",
    "cp -a /dev/null /run/null",
    "ln /dev/null /dev/other",
    "cp /bin/true /dev/shm/true; /dev/shm/true",
    "cp /bin/true /dev/true; /dev/true",
    "touch /run/a; ln /run/a /dev/a",
    "touch /dev/a; ln /dev/a /dev/shm/a",
    "rmdir /dev/shm",
    "mv /dev/pts /dev/other",
]
FLAGS = {  # mount point → what no program there may do
    "/": {"nosuid", "nodev"},
    "/dev": {"nosuid", "nodev", "noexec"},
    "/dev/shm": {"nosuid", "nodev", "noexec"},
    "/run": {"nosuid", "nodev"},
    "/dev/pts": {"nosuid", "noexec"},
    "/dev/null": {"nosuid", "noexec"},
    "/proc": {"nosuid", "nodev", "noexec"},
    "/proc/acpi": {"ro", "nosuid", "nodev", "noexec"},
    "/proc/keys": {"ro", "nosuid"},
    "/proc/sys": {"ro", "nosuid", "nodev", "noexec"},
    "/sys": {"ro", "nosuid", "nodev"},
    "/run/guest": {"ro", "nosuid", "nodev"},
    "/etc/resolv.conf": {"ro", "nosuid", "nodev"},
}
# Each costs the kernel memory for each memory cgroup of the host.
OWN_FILE_SYSTEMS = {"overlay": 2, "tmpfs": 1, "proc": 1, "devpts": 1}


CHANGE = "touch /root/kept; mv /usr/share/perl5 /root/perl5; rm -rf /usr/share/bash-completion"


def _parked(client: Client, server: Server) -> Session:
    """A session on the root that its sandbox was started with."""
    return client.open()


def _woken(client: Client, server: Server) -> Session:
    """A session whose root was given to a sandbox that was parked with another one."""
    session = client.open()
    session.output(CHANGE)

    def again() -> Session:
        deep_sleep(session)
        wake(session).done()
        return session

    return _attached(again, server)


def _on_a_made_image(client: Client, server: Server) -> Session:
    """The same, with a layer that an account made."""
    source = client.open()
    source.output(CHANGE)
    client.call("POST", "/images/create", json_body={"name": "attacked", "sessionId": source.id}).done()
    source.delete()
    session = _attached(lambda: client.open(image="attacked"), server)
    client.call("DELETE", "/images/attacked").done()
    return session


def _attached(begin: Callable[[], Session], server: Server) -> Session:
    """A session that `begin` gave to a sandbox which was parked before."""
    for _ in range(20):
        before = time.time()
        session = begin()
        sandbox = traces.sandbox_of(server.config, session.id)
        if (server.config.data_dir / "sandboxes" / sandbox / "pid").stat().st_mtime < before:
            return session
        time.sleep(0.5)  # until the pool has some
    raise AssertionError("no sandbox was parked")


@pytest.fixture(scope="module", params=[_parked, _woken, _on_a_made_image])
def inside(paid: Client, server: Server, request: pytest.FixtureRequest) -> Iterator[Session]:
    session: Session = request.param(paid, server)
    for program in INSIDE.glob("*.py"):
        session.write(f"/root/{program.name}", program.read_text()).done()
    yield session
    session.delete()


@pytest.fixture(scope="module")
def neighbour(paid: Client) -> Iterator[Session]:
    session = paid.open()
    yield session
    session.delete()


@pytest.fixture(scope="module")
def system_calls(inside: Session) -> dict[str, str]:
    return dict(json.loads(inside.output("python3 /root/system_calls.py")))


@pytest.mark.parametrize("name", ACTIONS)
def test_a_system_call_that_reaches_beyond_the_session_is_refused(system_calls: dict[str, str], name: str) -> None:
    # any other error would mean that the kernel looked at the arguments, so that the call is allowed
    refusals = ("EPROTONOSUPPORT",) if name == "socket audit" else ("EPERM", "ENOSYS", "EACCES")
    assert system_calls[name] in refusals


@pytest.mark.parametrize("command", COMMANDS_THAT_MUST_FAIL)
def test_a_command_that_reaches_beyond_the_session_fails(inside: Session, command: str) -> None:
    assert inside.command(command, timeout=20)["exitCode"] not in (0, 124, 127)


@pytest.mark.parametrize(
    "change",
    [
        "ulimit -S -c 0",
        "ulimit -c 0",
        "ulimit -c unlimited",
        "python3 -c 'import ctypes; ctypes.CDLL(None).syscall(302, 0, (1 << 32) + 4, (ctypes.c_uint64 * 2)(0, 0), 0)'",
        "python3 -c 'import ctypes; ctypes.CDLL(None).syscall(160, (1 << 32) + 4, (ctypes.c_uint64 * 2)(0, 0))'",
    ],
)
def test_a_crash_starts_no_core_handler_of_the_host(inside: Session, change: str) -> None:
    """The kernel starts the handler as root of the host, unless the core size limit is exactly 1."""
    limits = inside.output(f"{change}; grep -i core /proc/self/limits").split()
    assert limits[-3:] == ["1", "1", "bytes"]
    assert inside.output("ulimit -S -n 100; ulimit -S -n") == "100\n"  # other limits may be lowered


def test_root_of_the_session_is_nobody_on_the_host_and_gains_nothing(inside: Session, neighbour: Session) -> None:
    status = dict(re.findall(r"^(\w+):\t(.*)$", inside.output("cat /proc/self/status"), re.MULTILINE))
    allowed = sum(1 << number for number in CAPABILITIES.values())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[kind], 16) & ~allowed == 0, kind
    mine, theirs = (session.output("cat /proc/self/uid_map").split() for session in (inside, neighbour))
    for first, on_host, count in (mine, theirs):
        assert (first, count) == ("0", "65536")
        assert int(on_host) >= 65536
    assert abs(int(mine[1]) - int(theirs[1])) >= 65536


def test_a_session_sees_its_own_mounts_and_no_others(inside: Session) -> None:
    points = inside.output("awk '{print $5}' /proc/self/mountinfo").split()
    assert [point for point in points if not OWN_MOUNTS.fullmatch(point)] == []


def test_each_mount_has_its_flags(inside: Session) -> None:
    table = [line.split() for line in inside.output("cat /proc/self/mountinfo").splitlines()]
    flags = {fields[4]: set(fields[5].split(",")) for fields in table}
    missing = {point: needed - flags[point] for point, needed in FLAGS.items() if point in flags}
    assert {point: left for point, left in missing.items() if left} == {}
    assert FLAGS.keys() - flags.keys() <= {"/proc/acpi"}, "a host may have no such file"


def test_a_session_has_few_file_systems_of_its_own(inside: Session) -> None:
    lines = inside.output("cat /proc/self/mountinfo").splitlines()
    found = {(line.split(" - ")[1].split()[0], line.split()[2]) for line in lines}
    assert Counter(kind for kind, _ in found if kind not in ("cgroup", "cgroup2", "sysfs")) == OWN_FILE_SYSTEMS


def test_what_a_session_has_in_memory_is_bounded_in_all(paid: Client) -> None:
    session = paid.open(resourceLimits={"memory": 512, "cpu": 1})
    session.command("for place in /dev/shm /run /dev; do head -c 200M /dev/zero > $place/filled; done", timeout=60)
    held = session.output("cat /dev/shm/filled /run/filled /dev/filled | wc -c")
    assert 70 * MB < int(held) <= 80 * MB
    assert session.output("echo fine; ls / > /dev/null") == "fine\n", "the next run starts all the same"
    assert session.execute(code="console.log(1)").done()["stdout"] == "1\n"
    session.delete().done()


def test_files_in_memory_of_another_session_are_invisible(inside: Session, neighbour: Session) -> None:
    places = ("/dev/shm", "/dev", "/run")
    for place in places:
        neighbour.output(f"echo theirs > {place}/of-the-neighbour; chmod 777 {place}/of-the-neighbour")
    assert inside.output("find /dev /run /proc/acpi -name 'of-the-*' 2>/dev/null; true") == ""
    for place in places:
        inside.output(f"echo mine > {place}/of-the-neighbour")
        assert neighbour.output(f"cat {place}/of-the-neighbour; rm {place}/of-the-neighbour") == "theirs\n"


def test_nothing_beside_its_own_mounts_is_in_reach_of_a_session(inside: Session) -> None:
    """By descriptors, roots, working directories or mapped files of any process, or by `..`."""
    inside.command("sleep 600 > /dev/null 2>&1 < /workspace & exec 7</ 8</proc 9</dev; sleep 600 > /dev/null 2>&1 &")
    assert inside.output("python3 /root/reaching.py") == ""


def test_the_hosts_processes_files_and_name_are_invisible(inside: Session, server: Server) -> None:
    mark = f"buntime-test-{os.getpid()}"
    secret = server.config.data_dir.with_name(mark)
    secret.write_text("host")
    with subprocess.Popen(["sh", "-c", "read _", mark], stdin=subprocess.PIPE) as host:
        seen = inside.output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /proc; cat /etc/passwd; hostname")
        assert host.stdin is not None
        host.stdin.close()
    assert mark not in seen
    assert "buntime" not in seen
    assert seen.splitlines()[-1] == "session"
    assert len([name for name in seen.split() if name.isdecimal()]) < 12
    assert inside.output(f"find / -xdev -name '{mark}' 2>/dev/null; ls -d {secret} 2>/dev/null; true") == ""
    assert inside.command(f"ls {server.config.data_dir}")["exitCode"] != 0


def test_another_sessions_files_and_processes_are_invisible(inside: Session, neighbour: Session) -> None:
    neighbour.write("/root/secret-of-the-neighbour", "x").done()
    mark = f"mark-of-the-neighbour-of-{inside.id}"
    neighbour.command(f"exec -a {mark} sleep 600 &")
    assert inside.output("find / -xdev -name 'secret-of-*' 2>/dev/null; true") == ""
    assert mark not in inside.output("ps axww; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert neighbour.output(f"pgrep -fc {mark}") == "1\n"


def test_another_sessions_ports_are_unreachable(inside: Session, neighbour: Session) -> None:
    neighbour.write(
        "server.ts", "for (const p of [80, 8080]) Bun.serve({ port: p, fetch: () => new Response('hi') })"
    ).done()
    neighbour.command("bun run server.ts > /dev/null 2>&1 &")
    neighbour.output("curl -sS --retry 50 --retry-connrefused --retry-delay 0 http://localhost:8080")
    address = _address(neighbour)
    assert _reached(inside, *(f"{address}:{port}" for port in (49, 80, 8080))) == ""
    assert _reached(neighbour, f"{address}:80", program=inside) == f"{address}:80\n"


def test_the_hosts_services_are_unreachable(inside: Session, server: Server) -> None:
    with socket.socket() as everywhere, socket.socket() as local:
        for listener, address in ((everywhere, "0.0.0.0"), (local, "127.0.0.1")):
            listener.bind((address, 0))
            listener.listen()
            listener.setblocking(False)
        ports = [everywhere.getsockname()[1], local.getsockname()[1], server.config.port, 22, 25, 80]
        gateway = _gateway(inside)
        targets = [f"{address}:{port}" for address in {gateway, *_addresses_of_host(), "127.0.0.1"} for port in ports]
        with socket.create_connection(("127.0.0.1", ports[0])):
            everywhere.accept()[0].close()
        assert _reached(inside, *targets) == ""
        for listener in (everywhere, local):
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_private_and_metadata_addresses_are_unreachable(inside: Session) -> None:
    gateway = _gateway(inside)
    targets = [f"{address}:80" for address in (gateway, "169.254.169.254", "192.168.255.254")]
    assert _reached(inside, *targets, f"{gateway}:25", f"{gateway}:443") == ""


@pytest.mark.parametrize(("user", "reaches"), [("root", True), ("nobody", False)])
def test_of_the_hosts_users_only_its_own_reach_a_session(inside: Session, user: str, reaches: bool) -> None:
    connect = "import socket, sys; socket.create_connection((sys.argv[1], 49), 10)"
    program = ["setpriv", "--reuid", user, "--clear-groups", "/usr/bin/python3", "-c", connect, _address(inside)]
    assert (subprocess.run(program, capture_output=True, check=False, timeout=60).returncode == 0) is reaches


def test_a_session_that_may_reach_nothing_reaches_nothing_and_resolves_nothing(paid: Client) -> None:
    for network in ({"egress": "none", "allow": ["0.0.0.0/0"]}, {"allow": ["203.0.113.7"]}):
        closed = paid.open(network=network)
        try:
            # an address that is never routed: a packet that no rule refuses times out
            refused = closed.command("timeout 5 bash -c '</dev/tcp/198.51.100.7/443'")
            assert (refused["exitCode"], "No route to host" in refused["stderr"]) == (1, True), refused
            assert closed.command("getent hosts example.com")["exitCode"] == 2
        finally:
            closed.delete()


def test_there_is_no_ipv6(inside: Session) -> None:
    assert inside.output("cat /proc/net/if_inet6") == ""


def test_a_name_that_is_not_is_answered_at_once(inside: Session) -> None:
    """A test in test_execution installs a package, and so shows that existing names resolve."""
    assert inside.command("getent hosts host.invalid")["exitCode"] == 2


def test_names_are_resolved_by_the_given_server_alone(inside: Session) -> None:
    # an address that is never routed: a packet that no rule refuses times out
    for port in (25, 53, 853):
        refused = inside.command(f"timeout 5 bash -c '</dev/tcp/198.51.100.7/{port}'")
        assert (refused["exitCode"], "No route to host" in refused["stderr"]) == (1, True), (port, refused)


def test_a_packet_with_another_sessions_address_goes_nowhere(
    inside: Session, neighbour: Session, server: Server
) -> None:
    inits = {s.id: traces.init_of(server.config, traces.sandbox_of(server.config, s.id)) for s in (inside, neighbour)}
    gateway, theirs = _gateway(inside), _address(neighbour)
    route = subprocess.run(["ip", "-o", "route", "get", theirs], capture_output=True, text=True, check=True).stdout
    interface = re.search(r"dev (\S+)", route)
    assert interface
    with packets.passing(interface[1]) as tap:
        packets.ask(inits[neighbour.id], theirs, gateway, 1001)
        assert packets.answers_until(tap, 1001) == [1001]
        packets.ask(inits[inside.id], theirs, gateway, 6666)
        packets.ask(inits[neighbour.id], theirs, gateway, 1002)
        assert packets.answers_until(tap, 1002) == [1002]


def _reached(session: Session, *targets: str, program: Session | None = None) -> str:
    """Returns the targets that accept a connection from the session."""
    if program is not None:
        session.write("/root/connect.py", program.text("/root/connect.py")).done()
    return session.output("python3 /root/connect.py " + " ".join(targets))


def _address(session: Session) -> str:
    return session.output("ip -4 -o addr show dev eth0 | awk '{print $4}' | cut -d/ -f1").strip()


def _gateway(session: Session) -> str:
    return session.output("ip route show default | awk '{print $3}'").strip()


def _addresses_of_host() -> list[str]:
    shown = subprocess.run(["ip", "-4", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    return [address for address in re.findall(r"inet ([0-9.]+)", shown) if not address.startswith("127.")]


def test_rules_that_somebody_flushes_are_back_at_once(inside: Session, server: Server) -> None:
    table = f"buntime_{server.config.instance}"
    subprocess.run(["nft", "delete", "table", "inet", table], check=True)
    deadline = time.monotonic() + 30
    while table not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout:
        assert time.monotonic() < deadline, "the rules did not come back"
        time.sleep(0.05)
    assert _reached(inside, "169.254.169.254:80", f"{_gateway(inside)}:22") == ""
    assert inside.output("getent hosts localhost").split()[0] == "127.0.0.1"
    assert server.client(None).call("GET", "/readyz").json()["checks"]["rules"] is True
