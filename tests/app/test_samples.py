"""Each operation's samples of code are there, and fit the SDKs' types. tests/clients/test_samples.py runs them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from buntime.web.app import OPERATIONS, openapi_pages
from buntime.web.openapi import document
from buntime.web.samples import FILE

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk/typescript"
PATIENCE = 300.0  # seconds; a guard against a hang
LANGUAGES = {"shell", "python", "typescript"}
DESCRIBED: dict[str, dict[str, Any]] = {
    operation["operationId"]: operation
    for methods in document(OPERATIONS, openapi_pages())["paths"].values()
    for operation in methods.values()
}


def samples(language: str) -> dict[str, str]:
    """Operation → program."""
    return {
        name: sample["source"]
        for name, operation in DESCRIBED.items()
        for sample in operation["x-codeSamples"]
        if sample["lang"] == language
    }


def test_every_operation_of_accounts_has_samples_in_three_languages() -> None:
    for name, operation in DESCRIBED.items():
        languages = {sample["lang"] for sample in operation["x-codeSamples"]}
        assert languages == (LANGUAGES if name != "getMetrics" else {"shell"}), name


def test_every_program_belongs_to_an_operation() -> None:
    assert set(tomllib.loads(FILE.read_text())) <= set(DESCRIBED)


def test_the_samples_for_curl_name_every_required_parameter() -> None:
    for name, command in samples("shell").items():
        for parameter in DESCRIBED[name].get("parameters", ()):
            if parameter.get("required") and parameter["in"] == "query":
                assert f"{parameter['name']}=" in command, name


def test_the_samples_for_curl_save_files_that_no_terminal_can_show() -> None:
    for name in ("getPythonClient", "getNpmClient"):
        assert "curl -O " in samples("shell")[name]


def test_the_samples_in_python_fit_the_types_of_the_sdk(tmp_path: Path) -> None:
    for name, program in samples("python").items():
        (tmp_path / f"{name}.py").write_text(program)
    cache = ROOT / ".mypy_cache/samples"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", cache, "."],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_samples_in_typescript_fit_the_types_of_the_sdk(tmp_path: Path) -> None:
    for name, program in samples("typescript").items():
        (tmp_path / f"{name}.ts").write_text(program + "\nexport {};\n")
    (tmp_path / "node_modules").symlink_to(SDK / "node_modules")
    settings = {
        "extends": str(SDK / "tsconfig.json"),
        "compilerOptions": {
            "noUnusedLocals": False,
            "paths": {"@buntime/sdk": [str(SDK / "src/index.ts")]},
        },
        "include": [str(tmp_path / "*.ts")],
        "exclude": [],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))
    checked = subprocess.run(
        [SDK / "node_modules/.bin/tsc", "-p", tmp_path],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
