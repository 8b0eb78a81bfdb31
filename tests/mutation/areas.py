"""Which tests are worth running for a mutant that survived the tests known to execute its line.

The first row whose words stand in the mutant's path decides. Words are looked for in the path below src/buntime,
buntime_cli or guest/src, so a row holds wherever the file stands. Tests that do not exist are passed over: correct the
row when you move a test. `collect` finds the tests that run the code in pytest's own process, so rows list those that
start a server or a command.
"""

import re
from collections.abc import Sequence
from pathlib import Path

ACCEPTANCE = "tests/acceptance/test_"
ROWS: Sequence[tuple[str, str]] = (
    # regular expression, names of tests: `a` for tests/acceptance/test_a.py
    (r"testing", ""),  # the fakes: `collect` sees all of it
    (r"fleet|fenc|freezing|watchdog", "tests/fleet"),
    (r"doctor", "tests/unit/test_doctor.py operations"),
    (r"commands/|dashes", "tests/clients/test_command_line.py tests/clients/test_documented_code.py"),
    (
        r"mcp",
        "tests/clients/test_mcp_tools.py tests/clients/test_mcp_conversations.py tests/clients/test_mcp_transports.py",
    ),
    (r"seccomp|oci|user_namespaces|sharing", "isolation inside_limits limits real_work"),
    (r"uncounted|kernel_watch|local_ports|chunks", "uncounted kernel_memory counted_apart touched"),
    (r"process_limit", "process_limit limits"),
    (
        r"network|nft|nfnetlink|edge_rules|dns|/names\.py|resolver|disconnecting|egress|firewall|message",
        "tests/network isolation previews operations recovery",
    ),
    (r"reclaim|pageout", "paged_out sleep"),
    (r"cgroup|host_settings|stopped|machinery|mounts", "limits process_limit sleep pressure recovery paged_out"),
    (
        r"image|host\.py|record\.py|opening|containers|local\.py|steps|children|listening|main\.py|config|cli\.py|daemon",
        "tests/app/test_cli.py sessions recovery tests/sandboxes/test_image.py operations sleep crashes",
    ),
    (
        r"archive|saving|snapshots|sealing|packing|transfer|volume|master|sleep|trimming|backup",
        "tests/sandboxes/test_volume.py archive archive_s3 master_key backup sleep",
    ),
    (r"account|auth|quota|keys|cors|admin", "tests/app/test_cli.py accounts sessions idempotency backup"),
    (r"preview|edge|pages|visitor|refusals", "previews websocket_floods edge_flood tests/browser operations"),
    (r"terminal|pty|screen|shell|websocket", "tests/contracts/test_terminals.py terminals hostile_streams"),
    (r"^/kernel/|context|evaluation", "tests/contracts/test_contexts.py contexts"),
    (
        r"watch|inotify|changes|following|news|hidden",
        "tests/contracts/test_watching.py watch tests/contracts/test_files.py execution",
    ),
    (r"tarball|trees|walk", "tests/contracts/test_files.py contents tar_bombs"),
    (
        r"file|contents|search|list|read\.ts|write|upload|remove|director|names\.ts|body|paths|ranges",
        "tests/contracts/test_files.py files contents tar_bombs",
    ),
    (
        r"process|logs|records|readiness|pace|feeds|starting",
        "tests/contracts/test_processes.py processes process_limit execution",
    ),
    (r"prepared|spares|script|boot", "tests/contracts/test_sandboxes.py prepared execution"),
    (
        r"keeper|leases|lifecycle|holds|room|tasks|idempot|stores|control_plane|operations|entrance|relief",
        "sleep sessions idempotency recovery processes crashes lifecycle_model",
    ),
    (r"web/|stream|wire", "execution sessions streaming files schemathesis"),
    (r"", "execution tests/contracts/test_sandboxes.py streaming hostile_streams files sessions prepared sleep"),
)
# Run by nobody else at the same time: they use fixed names on the host.
ALONE = ("tests/network", "tests/attack", "tests/fleet")
# Such tests run the server's code in pytest's own process, so `collect` sees which lines each executes.
TRACED = ("tests/contracts", "tests/sandboxes", "tests/network", "tests/fleet")


def tests_of(checkout: Path, file: str) -> list[str]:
    path = re.sub(r"^(src/buntime|guest/src|sdk/python/src/buntime_cli)/", "", file)
    names = next(tests for words, tests in ROWS if re.search(words, f"/{path}")).split()
    tests = [name if "/" in name else f"{ACCEPTANCE}{name}.py" for name in names]
    return [test for test in tests if (checkout / test).exists()]


def run_alone(test: str) -> bool:
    return test.startswith(ALONE)
