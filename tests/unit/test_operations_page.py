"""docs/operations.md has every setting with its default, and messages and commands that exist."""

import re
import subprocess
from pathlib import Path

from buntime.config import Config
from buntime.plan import load_plans
from buntime.sandboxes.network.host_settings import host_settings
from buntime.sandboxes.opening import default_pool_size

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
PRODUCTION = (ROOT / "docs/production.md").read_text()
SETTINGS = re.findall(r"^\| `(BUNTIME_\w+)` \| (\S+) \| [^|]+ \|$", PAGE, re.MULTILINE)
SOURCE = "".join(file.read_text() for file in (ROOT / "src/buntime").rglob("*.py"))
DERIVED = {"images_dir": "DATA_DIR/images", "archive": "DATA_DIR/archive", "master_key_file": "DATA_DIR/master.key"}


def _shown(name: str) -> str:
    default = DERIVED.get(name, getattr(Config(), name))
    return f"`{default}`" if default not in ("", None) else "none"


def test_the_page_lists_every_setting_with_its_default() -> None:
    fields = Config.__dataclass_fields__
    assert dict(SETTINGS) == {f"BUNTIME_{name.upper()}": _shown(name) for name in fields}
    assert len(SETTINGS) == len(fields)


def test_every_message_that_the_page_explains_is_one_that_the_server_gives() -> None:
    table = PAGE.partition("| 503 `unavailable`; the message has")[2].partition("\n\n")[0]
    messages = re.findall("^\\| “(.+)” \\|", table, re.MULTILINE)
    assert len(messages) == len(table.splitlines()) - 2
    assert [message for message in messages if message not in SOURCE] == []


def test_the_page_names_every_kernel_setting_that_buntime_raises() -> None:
    raised = {name.replace("/", ".") for name in host_settings(1)}
    named = PAGE.partition("The settings are ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([\w.-]+)`", named)) == raised


def test_the_commands_that_change_a_plan_make_a_file_that_the_server_takes(tmp_path: Path) -> None:
    commands = re.findall(r"^sed .*$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        here = command.replace("/opt/buntime", str(ROOT)).replace("/etc", str(tmp_path))
        subprocess.run(["sh", "-ec", here], check=True)
    plans = load_plans(tmp_path / "buntime-plans.toml")
    assert plans["paid"].sessions == 300
    assert plans["paid"].most == load_plans(None)["paid"].most
    assert set(plans) == set(load_plans(None))


def test_the_sizes_of_the_production_page_follow_from_its_formula() -> None:
    memory, system, reserve, parked, ran, own = 16 * 1024, 1024, Config().memory_reserve_mb, 5.7, 4.1, 96
    pool = default_pool_size(memory << 20)
    assert f"the default pool of {pool}:" in " ".join(PRODUCTION.split())
    room = memory - system - reserve - pool * parked
    limit = load_plans(None)["paid"].default.memory
    fit = [int(room / (ran + programs)) for programs in (0, 100, limit + own)]
    rows = re.findall(r"^\| (?:nothing|100 MB|1,024 MB[^|]*) \| ([\d,]+) \|$", PRODUCTION, re.MULTILINE)
    assert [int(row.replace(",", "")) for row in rows] == fit
