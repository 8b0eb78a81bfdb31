"""POST /execute on real sandboxes: what runs, its environment, and its result."""

import base64
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.client import Client, Reply, Session
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MIB = 1 << 20
OUTPUT_LIMIT = 10 * MIB
RESULT = {
    "stdout", "stderr", "exitCode", "executionTime", "memoryUsed", "cpuTime", "timedOut", "filesWritten",
}  # fmt: skip


def _printed(result: Mapping[str, Any]) -> str:
    assert result["exitCode"] == 0, result
    return str(result["stdout"])


def test_a_result_has_the_fields_of_the_contract_with_plausible_numbers(session: Session) -> None:
    result = session.code("let sum = 0; for (const n of [1, 2, 3, 4, 5]) sum += n; console.log(`Sum: ${sum}`)")
    assert set(result) == RESULT
    assert (result["stdout"], result["stderr"], result["exitCode"]) == ("Sum: 15\n", "", 0)
    assert (result["timedOut"], result["filesWritten"]) == (False, [])
    assert 0 < result["executionTime"] < 30_000
    assert 0 < result["cpuTime"] < 30_000
    assert MIB < result["memoryUsed"] < 1024 * MIB


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("const x: number = 1; enum E { A = 4 } console.log(x + E.A)", "5\n"),
        ("interface P { n: number } const f = <T,>(p: T): T => p; console.log(f<P>({ n: 1 }).n)", "1\n"),
        ("console.log(await Promise.resolve('top'))", "top\n"),
        ("import { basename } from 'node:path'; console.log(basename('/a/b'))", "b\n"),
        ("import fs from 'fs'; console.log(typeof fs.readFileSync)", "function\n"),
        ("console.log(require('os').EOL === '\\n')", "true\n"),
        ("const { join } = await import('node:path'); console.log(join('a', 'b'))", "a/b\n"),
        ("console.log(process.cwd(), process.env.HOME)", "/workspace /root\n"),
        ("process.stdout.write('no newline'); console.error('err')", "no newline"),
        ("import { $ } from 'bun'; console.log((await $`echo hi`.text()).trim())", "hi\n"),
        (
            "console.log('ünïcödé 🚀', \"quotes ' and \\\" and `\", '$HOME', '\\\\')",
            "ünïcödé 🚀 quotes ' and \" and ` $HOME \\\n",
        ),
        ("", ""),
    ],
)
def test_code_is_typescript_for_bun(session: Session, code: str, printed: str) -> None:
    assert _printed(session.code(code)) == printed


def test_code_may_be_jsx(session: Session) -> None:
    code = "const h = (tag, props, ...c) => ({tag, c}); console.log(JSON.stringify(<b>hi</b>))"
    assert _printed(session.code("/** @jsxRuntime classic @jsx h */\n" + code)) == '{"tag":"b","c":["hi"]}\n'


def test_relative_imports_resolve_from_the_working_directory(session: Session) -> None:
    session.write("lib/one.ts", "export const one: number = 1").done()
    session.write("lib/two.ts", "import { one } from './one'; export const two = one + one").done()
    assert _printed(session.code("import { two } from './lib/two'; console.log(two)")) == "2\n"
    assert _printed(session.code("import { two } from './two'; console.log(two)", workingDir="lib")) == "2\n"
    assert (
        _printed(session.code("import { one } from '../lib/one.ts'; console.log(one)", workingDir="/workspace/lib"))
        == "1\n"
    )


@pytest.mark.parametrize("stdin", ["", "from stdin"])
def test_code_longer_than_an_argument_may_be_runs_and_leaves_no_file(session: Session, stdin: str) -> None:
    session.write("one.ts", "export const one = 1").done()
    text = "x" * (300 * 1024)
    code = f"import {{ one }} from './one'; console.log('{text}'.length + one, await Bun.stdin.text())"
    result = session.code(code, stdin=stdin)
    assert _printed(result) == f"{300 * 1024 + 1} {stdin}\n"
    assert result["filesWritten"] == []
    assert [entry["path"] for entry in session.list().done()["files"]] == ["one.ts"]


def test_a_command_longer_than_an_argument_may_be_runs(session: Session) -> None:
    command = f"x={'y' * (300 * 1024)}; echo ${{#x}}; cat"
    assert session.output(command, stdin="in") == f"{300 * 1024}\nin"


def test_a_missing_package_is_installed_on_import(session: Session) -> None:
    """Needs the npm registry. The message says so if the registry cannot be reached."""
    reached = session.command("curl -sS -m 20 -o /dev/null https://registry.npmjs.org/is-odd")
    assert reached["exitCode"] == 0, f"the npm registry cannot be reached from a session: {reached['stderr']}"
    code = "import isOdd from 'is-odd'; console.log(isOdd(3))"
    assert _printed(session.code(code, timeout=120)) == "true\n"
    session.output("mkdir -p node_modules/own && echo 'export default 5' > node_modules/own/index.js")
    beside = "import own from 'own'; import leftPad from 'left-pad'; console.log(own, leftPad('x', 3))"
    assert _printed(session.code(beside, timeout=120)) == "5   x\n"
    assert "is-number" in session.output("bun add is-number > log 2>&1; ls node_modules", timeout=120).split()


def test_a_command_is_run_by_bash_as_root_of_the_session(session: Session) -> None:
    assert session.output("echo $BASH_VERSION | cut -c1; id -u; echo $HOME; pwd; [[ a < b ]] && echo yes").split() == [
        "5", "0", "/root", "/workspace", "yes",
    ]  # fmt: skip
    assert session.output("echo 'a b' \"c  d\" | tr a-z A-Z; printf '%s\\n' \"$0\"").startswith("A B C  D\n")
    assert session.output("node --version; bun --version; python3 -c 'print(1)'; git --version").count("\n") == 4


def test_env_holds_for_one_run_and_over_the_sessions_own(paid: Client) -> None:
    session = paid.open(env={"A": "session", "B": "session"})
    assert session.output("echo $A $B $C", env={"B": "run", "C": "a 'b' \"c\" $d\n"}) == "session run a 'b' \"c\" $d\n"
    assert session.output("echo $A $B $C") == "session session\n"
    many = {f"V{number}": "x" * 60_000 for number in range(20)}
    assert session.output("echo ${#V19}", env=many) == "60000\n"
    session.delete().done()


def test_stdin_is_given_whole_and_then_ends(session: Session) -> None:
    text = "line ünï\n" * 200_000
    assert session.output("sha256sum | cut -c1-8; cat", stdin=text) == session.output(
        "sha256sum | cut -c1-8", stdin=text
    )
    assert session.output("wc -c", stdin=text) == f"{len(text.encode())}\n"
    assert session.output("true", stdin=text) == ""
    assert session.output("cat; echo end") == "end\n"


def test_files_are_written_before_the_run(session: Session) -> None:
    binary = bytes(range(256))
    result = session.command(
        "cat a.txt deep/er/b.txt; sha256sum < c.bin | cut -c1-4; ls -l run.sh | cut -c1-10",
        files=[
            {"path": "a.txt", "content": "a\n"},
            {"path": "/workspace/deep/er/b.txt", "content": "b\n"},
            {"path": "c.bin", "content": base64.b64encode(binary).decode(), "encoding": "base64"},
            {"path": "run.sh", "content": "", "mode": "755"},
        ],
    )
    assert _printed(result) == "a\nb\n40af\n-rwxr-xr-x\n"
    assert result["filesWritten"] == ["a.txt", "c.bin", "deep/er/b.txt", "run.sh"]


def test_a_thousand_files_are_written_with_one_request_or_none(session: Session) -> None:
    files = [{"path": f"many/{number % 7}/{number}", "content": str(number)} for number in range(1000)]
    result = session.command("find many -type f | wc -l; cat many/2/996", files=files)
    assert _printed(result) == "1000\n996"
    assert len(result["filesWritten"]) == 1000
    session.output("rm -r many; mkdir -p many/5/999/directory")
    session.execute(command="true", files=files).refused(409, "file_conflict")
    assert session.output("find many -type f | wc -l") == "0\n"
    too_many = [*files, {"path": "one-more", "content": ""}]
    session.execute(command="true", files=too_many).refused(400, "invalid_request", "files")


def test_the_run_does_not_start_where_a_file_cannot_be_written(session: Session) -> None:
    session.output("touch file")
    refused = session.execute(
        command="touch ran", files=[{"path": "ok", "content": ""}, {"path": "file/x", "content": ""}]
    )
    assert refused.refused(409, "file_conflict")["reason"] == "ENOTDIR"
    assert session.output("ls") == "file\n"


def test_the_working_directory_is_the_one_asked_for(session: Session) -> None:
    session.output("mkdir -p 'a b/$c'")
    assert session.output("pwd", workingDir="a b/$c") == "/workspace/a b/$c\n"
    assert session.output("pwd", workingDir="/tmp") == "/tmp\n"
    assert session.output("pwd", workingDir="a b/../a b") == "/workspace/a b\n"


@pytest.mark.parametrize("program", [{"command": "pwd"}, {"code": "console.log(1)"}])
def test_a_working_directory_that_does_not_exist_is_named_on_stderr(
    session: Session, program: dict[str, object]
) -> None:
    result = session.execute(workingDir="missing", **program).done()
    assert (result["exitCode"], result["stdout"]) == (1, "")
    assert result["stderr"] == "buntime: workingDir /workspace/missing: No such file or directory\n"


@pytest.mark.parametrize(
    "program", [{"command": "echo before; sleep 60"}, {"code": "console.log('before'); setInterval(() => 0, 9)"}]
)
def test_a_run_past_its_timeout_is_killed_and_keeps_its_output(session: Session, program: dict[str, object]) -> None:
    result = session.execute(timeout=1, **program).done()
    assert (result["stdout"], result["exitCode"], result["timedOut"]) == ("before\n", 124, True)
    assert result["executionTime"] >= 1000
    assert session.look().done()["activeProcesses"] == 0


def test_a_timeout_kills_the_whole_tree_of_the_run_and_nothing_of_earlier_ones(session: Session) -> None:
    session.sleeper(601)
    tree = "trap '' TERM HUP INT; (setsid sleep 602 & (sleep 603 &) ); nohup sleep 604 & sleep 605"
    assert session.command(tree, timeout=1)["timedOut"]
    assert session.output("pgrep -a sleep | cut -d' ' -f2-") == "sleep 601\n"


def test_the_timeout_of_the_session_holds_where_the_run_names_none(paid: Client) -> None:
    session = paid.open(resourceLimits={"timeout": 1, "cpu": 1})
    assert session.command("sleep 60")["timedOut"]
    assert session.command("sleep 1.5; echo done", timeout=20)["stdout"] == "done\n"
    session.delete().done()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("exit 3", 3),
        ("false", 1),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
        ("no-such-program", 127),
        ("/etc/hosts", 126),
    ],
)
def test_a_program_that_fails_is_a_result_with_its_exit_code(session: Session, command: str, code: int) -> None:
    assert session.command(command)["exitCode"] == code


@pytest.mark.parametrize(
    ("code", "exit_code", "told"),
    [
        ("process.exit(7)", 7, ""),
        ("throw new Error('my mistake')", 1, "my mistake"),
        ("await Promise.reject(new Error('late'))", 1, "late"),
        ("const x = ;", 1, "error"),
        ("process.kill(process.pid, 'SIGKILL')", 137, ""),
        ("import './missing'", 1, "missing"),
    ],
)
def test_code_that_fails_is_a_result_with_its_exit_code(session: Session, code: str, exit_code: int, told: str) -> None:
    result = session.code(code)
    assert result["exitCode"] == exit_code
    assert told in result["stderr"]


def test_output_is_cut_at_its_limit_and_the_program_goes_on(session: Session) -> None:
    result = session.command(f"head -c {OUTPUT_LIMIT + 5} /dev/zero | tr '\\0' a; echo fine >&2; touch finished")
    assert len(result["stdout"]) == OUTPUT_LIMIT
    assert (result["stderr"], result["exitCode"], result["truncated"]) == ("fine\n", 0, True)
    assert result["filesWritten"] == ["finished"]
    whole = session.command(f"head -c {OUTPUT_LIMIT} /dev/zero | tr '\\0' b >&2")
    assert (len(whole["stderr"]), "truncated" in whole) == (OUTPUT_LIMIT, False)


def test_output_that_is_not_text_is_shown_with_replacements(session: Session) -> None:
    assert session.output(r"printf 'a\xff\xfeb\0c\xc3\xa9'") == "a��b\0cé"
    random = session.command("head -c 300000 /dev/urandom")
    assert random["exitCode"] == 0
    assert "�" in random["stdout"]


def test_standard_output_can_be_opened_again_by_its_name(session: Session) -> None:
    result = session.command("echo one > /dev/stdout; echo two > /dev/stderr; echo three | tee /dev/stderr")
    assert (result["stdout"], result["stderr"], result["exitCode"]) == ("one\nthree\n", "two\nthree\n", 0)


def test_background_processes_live_on_and_do_not_hold_up_the_answer(session: Session) -> None:
    started = time.monotonic()
    result = session.command("echo pid; (sleep 600; echo never) & echo started")
    assert time.monotonic() - started < 30
    assert (result["stdout"], result["exitCode"]) == ("pid\nstarted\n", 0)
    until(lambda: session.command("pgrep -c sleep")["stdout"] == "1\n", "the shell in the background to start it")
    session.code("Bun.spawn(['sleep', '700'], { stdio: ['ignore', 'ignore', 'ignore'] }).unref()")
    assert session.look().done()["activeProcesses"] >= 2


def test_a_background_server_answers_later_runs(session: Session) -> None:
    session.write("server.ts", "Bun.serve({ port: 8080, fetch: () => new Response('from before') })").done()
    session.command("bun run server.ts > log 2>&1 &")
    assert (
        session.output("curl -sS --retry 50 --retry-connrefused --retry-delay 0 http://localhost:8080") == "from before"
    )


def test_a_background_process_that_goes_on_printing_neither_blocks_nor_dies(session: Session) -> None:
    session.command("(for i in $(seq 1 200); do head -c 20000 /dev/zero; done; touch survived; sleep 600) &")
    waits = "for i in $(seq 1 300); do [ -e survived ] && echo yes && exit; sleep 0.1; done"
    assert session.output(waits, timeout=40) == "yes\n"


def test_the_files_that_a_run_wrote_are_told(session: Session) -> None:
    session.write("old", "1").done()
    session.write("touched", "1").done()
    command = """
        mkdir -p d/e node_modules/x .git sub/node_modules
        echo 1 > 'd/e/new ünï'; echo 2 >> touched; touch node_modules/x/y .git/z sub/node_modules/q /root/out
        ln -s old link; echo 1 > gone; rm gone; touch sub/a
    """
    assert session.command(command)["filesWritten"] == ["d/e/new ünï", "link", "sub/a", "touched"]
    assert session.command("cat old touched")["filesWritten"] == []
    assert session.command("mv old moved")["filesWritten"] == ["moved"]


def test_the_list_of_written_files_ends_at_a_thousand(session: Session) -> None:
    result = session.command("mkdir m; cd m; touch $(seq 1 1500)")
    assert len(result["filesWritten"]) == 1000
    assert result["filesWrittenTruncated"] is True


def test_many_runs_at_once_in_one_session_do_not_mix(session: Session) -> None:
    def run(number: int) -> str:
        return session.output(
            f"echo $MINE; cat; sleep 0.2; touch {number}", env={"MINE": str(number)}, stdin=str(number)
        )

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(run, range(40))) == [f"{number}\n{number}" for number in range(40)]
    assert session.look().done()["activeProcesses"] == 0


@pytest.mark.parametrize("program", [
    {"command": "echo $$ > pid; sleep 300; touch after"},
    {"code": "await Bun.write('pid', String(process.pid)); await Bun.sleep(300_000)"},
])  # fmt: skip
def test_a_client_that_hangs_up_ends_its_run(session: Session, program: dict[str, object]) -> None:
    body = {"sessionId": session.id, "timeout": 300, **program}
    with pytest.raises(TimeoutError):
        session.client.call("POST", "/execute", json_body=body, timeout=3)
    until(lambda: session.output("test -d /proc/$(cat pid) || echo ended") == "ended\n", "the run to end")


def test_a_run_with_a_key_goes_on_when_its_client_hangs_up(session: Session) -> None:
    body, key = {"sessionId": session.id, "command": "sleep 3; echo done"}, {"Idempotency-Key": f"left-{session.id}"}
    with pytest.raises(TimeoutError):
        session.client.call("POST", "/execute", json_body=body, headers=key, timeout=1)

    def repeated() -> Reply:
        return session.client.call("POST", "/execute", json_body=body, headers=key)

    until(lambda: repeated().status == 200, "the first answer")
    assert repeated().done()["stdout"] == "done\n"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "code"),
        ({"code": "1", "command": "true"}, "code"),
        ({"command": 5}, "command"),
        ({"command": "a\0b"}, "command"),
        ({"code": "a\0b"}, "code"),
        ({"command": "true", "timeout": 0}, "timeout"),
        ({"command": "true", "timeout": 301}, "timeout"),
        ({"command": "true", "timeout": 1.5}, "timeout"),
        ({"command": "true", "timeot": 1}, "timeot"),
        ({"command": "true", "workingDir": ""}, "workingDir"),
        ({"command": "true", "workingDir": "a\0b"}, "workingDir"),
        ({"command": "true", "env": {"A=B": "x"}}, "env"),
        ({"command": "true", "env": {f"V{n}": "" for n in range(101)}}, "env"),
        ({"command": "true", "env": {"A": "\0"}}, "env.A"),
        ({"command": "true", "files": [{"path": "a"}]}, "files[0].content"),
        ({"command": "true", "files": [{"path": "", "content": ""}]}, "files[0].path"),
        ({"command": "true", "files": [{"path": "a", "content": "!", "encoding": "base64"}]}, "files[0].content"),
        ({"command": "true", "files": [{"path": "a", "content": ""}, {"path": "./a", "content": ""}]}, "files[1].path"),
        ({"command": "true", "stdin": "\ud800"}, None),
    ],
)
def test_a_bad_request_is_named(session: Session, fields: dict[str, object], field: str | None) -> None:
    session.execute(**fields).refused(400, "invalid_request", field)
