"""The file operations on real sandboxes."""

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.client import Client, Session

pytestmark = pytest.mark.sandbox

MB = 1 << 20
# every byte that a UTF-8 file name may contain, except "/" and NUL
EVERY_CHARACTER = "".join(map(chr, range(1, 128))).replace("/", "")
NAMES = [
    EVERY_CHARACTER,
    "ünï çødé 漢字 🚀",
    "e\u0301 is not é",
    " leading and trailing ",
    "-rf",
    "...",
    "a%2Fb%00%",
    "a?b&c=d#e+f",
    "new\nline\r\ttab",
    "\u202eright to left",
    "x" * 255,
    "漢" * 85,
]

READS_UNTIL_TOLD_TO_STOP = """
import os
seen = set()
while not os.path.exists("stop"):
    content = open("f").read()
    seen.add((len(content), len(set(content))))
print(seen)
"""


def test_what_is_written_is_read_again(session: Session) -> None:
    assert session.write("a/b/c.txt", "ünï\n").done() == {"path": "a/b/c.txt", "size": 6}
    assert session.read("a/b/c.txt").done() == {"path": "a/b/c.txt", "content": "ünï\n", "size": 6, "encoding": "utf8"}
    assert session.output("cat a/b/c.txt; stat -c '%a %U' a/b/c.txt a/b") == "ünï\n644 root\n755 root\n"
    assert session.write("empty", "").done() == {"path": "empty", "size": 0}
    assert session.text("empty") == ""


def test_paths_are_relative_to_the_workspace_or_absolute_inside_the_session(session: Session) -> None:
    assert session.write("/workspace/x/../a", "1").done()["path"] == "a"
    assert session.write("/root/b", "2").done()["path"] == "/root/b"
    assert session.write("../../../etc/c", "3").done()["path"] == "/etc/c"
    assert session.text("./a") == "1"
    assert session.output("cat /workspace/a /root/b /etc/c") == "123"
    assert session.read("/etc/hostname").done()["content"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_may_have_every_legal_character(session: Session, name: str) -> None:
    path = f"d/{name}"
    assert session.write(path, "here").done() == {"path": path, "size": 4}
    assert session.text(path) == "here"
    assert [entry["path"] for entry in session.list("d").done()["files"]] == [path]
    assert session.output("find d -type f -exec cat {} +") == "here"
    result = session.command('cat -- "$NAME"', files=[{"path": f"e/{name}", "content": "e"}], env={"NAME": f"e/{name}"})
    assert (result["stdout"], result["filesWritten"]) == ("e", [f"e/{name}"])
    assert session.delete_file(path).done() == {"deleted": True, "path": path}
    assert session.list("d").done() == {"files": [], "total": 0}


def test_a_path_may_be_as_long_as_linux_takes_it(session: Session) -> None:
    path = "/".join(["d" * 200] * 19)
    session.write(path, "deep").done()
    assert session.text(path) == "deep"
    assert session.list(recursive=True).done()["total"] == 19
    session.delete_file("d" * 200, recursive=True).done()


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 256, "/".join(["y" * 100] * 41)])
def test_a_path_that_cannot_be_is_refused(session: Session, path: str) -> None:
    session.write(path, "").refused(400, "invalid_request", "path")
    session.read(path).refused(400, "invalid_request", "path")
    session.delete_file(path).refused(400, "invalid_request", "path")
    session.list(path).refused(400, "invalid_request", "path")


def test_binary_content_travels_as_base64(session: Session) -> None:
    content = bytes(range(256)) * 100
    text = base64.b64encode(content).decode()
    assert session.write("b", text, encoding="base64").done()["size"] == len(content)
    assert session.read("b").done() == {"path": "b", "content": text, "size": len(content), "encoding": "base64"}
    session.write("b", text[:-1] + "!", encoding="base64").refused(400, "invalid_request", "content")
    session.write("b", "x", encoding="utf16").refused(400, "invalid_request", "encoding")


def test_fifty_megabytes_are_written_and_read_and_one_byte_more_is_refused(session: Session) -> None:
    content = base64.b64encode(os.urandom(50 * MB)).decode()
    assert session.write("big", content, encoding="base64").done()["size"] == 50 * MB
    assert session.read("big").done()["content"] == content
    details = session.write("big", "x" * (50 * MB + 1)).refused(413, "payload_too_large")
    assert (details["plan"], details["limit"]) == ("paid", 50 * MB)
    session.output("echo >> big")
    assert session.read("big").refused(413, "payload_too_large")["limit"] == 50 * MB
    assert session.list().done()["files"][0]["size"] == 50 * MB + 1


def test_the_free_plan_takes_ten_megabytes(free: Client) -> None:
    session = Session(free, free.create().done()["sessionId"])
    assert session.write("big", "x" * (10 * MB)).done()["size"] == 10 * MB
    session.write("big", "x" * (10 * MB + 1)).refused(413, "payload_too_large")
    assert session.read("big").done()["size"] == 10 * MB
    session.delete().done()


def test_a_reader_sees_the_old_content_or_the_new(session: Session) -> None:
    size = 300_000
    session.write("f", "0" * size).done()
    session.write("reader.py", READS_UNTIL_TOLD_TO_STOP).done()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(session.output, "touch reading; python3 reader.py", timeout=60)
        while session.read("reading").status == 404:
            pass
        for digit in range(1, 10):
            session.write("f", str(digit) * size).done()
        session.write("stop", "").done()
        assert reader.result() == f"{{({size}, 1)}}\n"
    assert session.output("ls -A") == "f\nreader.py\nreading\nstop\n"


def test_append_adds_to_the_end_and_makes_what_is_missing(session: Session) -> None:
    assert session.write("log/a", "one\n", append=True).done()["size"] == 4
    assert session.write("log/a", "two\n", append=True).done()["size"] == 8
    assert session.text("log/a") == "one\ntwo\n"
    with ThreadPoolExecutor(8) as pool:
        assert all(
            r.status == 200 for r in pool.map(lambda n: session.write("log/b", f"{n}\n", append=True), range(24))
        )
    assert sorted(map(int, session.text("log/b").split())) == list(range(24))


def test_the_mode_is_the_one_asked_for_and_otherwise_stays(session: Session) -> None:
    session.write("run", "#!/bin/sh\necho ran", mode="755").done()
    assert session.output("./run") == "ran\n"
    session.write("run", "#!/bin/sh\necho again").done()
    assert session.output("./run; stat -c %a run") == "again\n755\n"
    session.write("run", "", mode="0600").done()
    assert session.output("stat -c %a run") == "600\n"
    for mode in ("888", "77", "rwx", "", 755):
        session.write("run", "", mode=mode).refused(400, "invalid_request", "mode")


def test_a_write_keeps_the_owner_and_goes_through_a_symlink(session: Session) -> None:
    session.output("mkdir d; echo old > d/target; chown 1000:1000 d/target; ln -s d/target link")
    session.write("link", "new").done()
    assert (
        session.output("cat d/target; stat -c ' %u %F' d/target; readlink link") == "new 1000 regular file\nd/target\n"
    )


def test_a_list_is_one_level_sorted_with_its_types(session: Session) -> None:
    session.output("mkdir -p b/inner; echo 12345 > a; touch b/inner/deep; ln -s nowhere c; ln -s b d; mkfifo e")
    listed = session.list().done()
    assert [(entry["path"], entry["type"]) for entry in listed["files"]] == [
        ("a", "file"), ("b", "directory"), ("c", "symlink"), ("d", "symlink"), ("e", "other"),
    ]  # fmt: skip
    assert listed["total"] == 5
    entry = listed["files"][0]
    assert (set(entry), entry["size"]) == ({"path", "size", "modified", "type"}, 6)
    assert abs(datetime.fromisoformat(entry["modified"]) - datetime.now(UTC)) < timedelta(minutes=2)
    assert [entry["path"] for entry in session.list("b").done()["files"]] == ["b/inner"]
    assert [entry["path"] for entry in session.list(recursive=True).done()["files"]] == [
        "a", "b", "b/inner", "b/inner/deep", "c", "d", "e",
    ]  # fmt: skip
    assert all(entry["path"].startswith("/etc/apt/") for entry in session.list("/etc/apt").done()["files"])


def test_a_list_is_paged_and_complete(session: Session) -> None:
    session.output("mkdir p; cd p; touch $(seq -w 1 250)")
    pages = [session.list("p", limit=100, offset=offset).done() for offset in (0, 100, 200, 300)]
    assert [len(page["files"]) for page in pages] == [100, 100, 50, 0]
    assert {page["total"] for page in pages} == {250}
    assert [entry["path"] for page in pages for entry in page["files"]] == [f"p/{n:03}" for n in range(1, 251)]
    assert len(session.list("p").done()["files"]) == 50
    session.list("p", limit=101).refused(400, "invalid_request", "limit")
    session.list("p", offset=-1).refused(400, "invalid_request", "offset")
    session.list("p", recursive="yes").refused(400, "invalid_request", "recursive")


def test_times_that_a_session_invents_are_shown_as_times(session: Session) -> None:
    session.output("touch -d @-5000000000 before; touch -d @9999999999 later; touch -d @0 zero")
    for entry in session.list().done()["files"]:
        assert datetime.fromisoformat(entry["modified"]).tzinfo is not None


def test_names_that_are_not_text_are_shown_with_replacements(session: Session) -> None:
    session.output("touch $'bad\\xffname'")
    assert session.list().done()["files"][0]["path"] == "bad\ufffdname"


def test_a_delete_takes_a_file_a_link_or_with_recursive_a_tree(session: Session) -> None:
    session.output("mkdir -p t/u/v keep; touch t/u/v/w keep/file; ln -s ../keep t/link; ln -s keep/file l; mkdir empty")
    session.delete_file("t").refused(409, "file_conflict")
    assert session.delete_file("l").done() == {"deleted": True, "path": "l"}
    session.delete_file("empty").done()
    session.delete_file("t", recursive=True).done()
    assert session.output("find . -type f") == "./keep/file\n"
    session.delete_file("t").refused(404, "file_not_found")


def test_deep_trees_are_listed_and_deleted(session: Session) -> None:
    session.output("python3 -c \"import os\nfor i in range(3000): os.mkdir('d'); os.chdir('d')\"")
    assert session.list("d").done()["total"] == 1
    session.delete_file("d", recursive=True).done()
    assert session.list().done()["total"] == 0


@pytest.mark.parametrize("path", ["/", "/workspace", ".", "/proc", "/dev/shm"])
def test_what_the_session_stands_on_cannot_be_deleted(session: Session, path: str) -> None:
    assert session.delete_file(path, recursive=True).status == 409
    assert session.output("echo fine") == "fine\n"


def test_what_is_missing_is_not_found(session: Session) -> None:
    assert session.read("no/such").refused(404, "file_not_found")["path"] == "no/such"
    session.list("no").refused(404, "file_not_found")
    session.delete_file("no").refused(404, "file_not_found")


def test_what_is_of_another_kind_is_a_conflict_that_says_why(session: Session) -> None:
    session.output("mkdir dir; touch file; ln -s loop loop; mkfifo fifo; ln -s /dev/zero zero")
    assert session.read("dir").refused(409, "file_conflict")["reason"] == "EISDIR"
    assert session.write("dir", "x").refused(409, "file_conflict")["reason"] == "EISDIR"
    assert session.write("file/below", "x").refused(409, "file_conflict")["reason"] == "ENOTDIR"
    assert session.list("file").refused(409, "file_conflict")["reason"] == "ENOTDIR"
    assert session.read("loop").refused(409, "file_conflict")["reason"] == "ELOOP"
    assert session.read("fifo").refused(409, "file_conflict")["reason"] == "EINVAL"
    assert session.read("zero").refused(409, "file_conflict")["reason"] == "EINVAL"
    assert session.write("/proc/version", "x").status in (409, 400)
    assert session.write("/run/guest/kernel.js", "x").refused(409, "file_conflict")["reason"] == "EROFS"


def test_files_of_the_kernel_can_be_read(session: Session) -> None:
    assert session.text("/proc/self/status").startswith("Name:")


def test_unknown_fields_and_missing_ones_are_named(session: Session) -> None:
    session.write("a", "b", append="yes").refused(400, "invalid_request", "append")
    session.write("a", "b", atomic=True).refused(400, "invalid_request", "atomic")
    session.client.call("POST", "/files/write", json_body={"sessionId": session.id, "path": "a"}).refused(
        400, "invalid_request", "content"
    )
    session.client.call("GET", "/files/read", query={"sessionId": session.id}).refused(400, "invalid_request", "path")
    session.client.call("GET", "/files/list").refused(400, "invalid_request", "sessionId")
