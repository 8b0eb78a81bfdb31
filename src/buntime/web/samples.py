"""Samples of code for each operation, in the form of `x-codeSamples` in the OpenAPI document.

The command for curl is made from the operation and its examples, the programs are in samples.toml. Samples read the
server's URL and the key from `BUNTIME_URL` and `BUNTIME_API_KEY`.
"""

import json
import shlex
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from buntime.web.examples import BODIES, DELIVERY, IMAGE, KEY, QUERIES, SERVICE, SESSION, SNAPSHOT, WEBHOOK
from buntime.web.operation import Operation, Page

FILE = Path(__file__).with_name("samples.toml")
URL = "$BUNTIME_URL"
AUTHORIZATION = '-H "Authorization: Bearer $BUNTIME_API_KEY"'
UPLOADS = {"writeContent": "photos.zip", "writeArchive": "src.tar.gz"}  # operation → local file that curl sends
DOWNLOADS = {"readContent": "photos.zip", "readArchive": "src.tar.gz"}
# curl speaks no WebSocket by itself, but it shows that the server accepts one.
UPGRADE = (
    "--http1.1 --max-time 5",
    '-H "Connection: Upgrade" -H "Upgrade: websocket"',
    '-H "Sec-WebSocket-Version: 13" -H "Sec-WebSocket-Key: $(head -c 16 /dev/urandom | base64)"',
)

IMPORTS = ("from buntime_sdk import {}\n\n", 'import {{ {} }} from "@buntime/sdk";\n\n')
CLIENTS = ("client = Buntime()\n", "const client = new Buntime();\n")
SESSIONS = (
    f'session = Buntime().sessions.open("{SESSION}")\n',
    f'const session = new Buntime().sessions.open("{SESSION}");\n',
)
# for what the SDKs have no call
PYTHON_PAGE = """\
import os
from urllib.request import urlopen

print(urlopen(os.environ["BUNTIME_URL"] + "{path}").read())
"""
TYPESCRIPT_PAGE = """\
const response = await fetch(process.env.BUNTIME_URL + "{path}");
console.log(await response.text());
"""


def samples_of(operation: Operation) -> list[dict[str, str]]:
    """The operation in curl, Python and TypeScript. The SDKs have no call for metrics, which are the operator's."""
    programs = _programs().get(operation.name)
    if programs is None:
        return _listed(_curl(operation))
    python, typescript = (programs[language] for language in ("python", "typescript"))
    start = CLIENTS if "client." in python else SESSIONS
    names = "Buntime, BuntimeError" if "BuntimeError" in python else "Buntime"
    first = [line.format(names) for line in IMPORTS]
    return _listed(_curl(operation), first[0] + start[0] + python, first[1] + start[1] + typescript)


def samples_of_page(page: Page) -> list[dict[str, str]]:
    """The page in curl, Python and TypeScript."""
    programs = (text.replace("{path}", page.path) for text in (PYTHON_PAGE, TYPESCRIPT_PAGE))
    saved = "" if page.media.startswith(("text/", "application/json")) else "-O "
    return _listed(f'curl {saved}"{URL}{page.path}"\n', *programs)


@cache
def _programs() -> Mapping[str, Mapping[str, str]]:
    found: Mapping[str, Mapping[str, str]] = tomllib.loads(FILE.read_text())
    return found


def _listed(*texts: str) -> list[dict[str, str]]:
    names = (("shell", "curl"), ("python", "Python"), ("typescript", "TypeScript"))
    return [
        {"lang": lang, "label": label, "source": text.rstrip()}
        for (lang, label), text in zip(names, texts, strict=False)
    ]


def _curl(operation: Operation) -> str:
    name, path = operation.name, operation.path.replace("{sessionId}", SESSION).replace("{name}", IMAGE)
    ids = {"snapshotId": SNAPSHOT, "keyId": KEY, "webhookId": WEBHOOK, "deliveryId": DELIVERY}
    ids |= {"serviceName": SERVICE}
    for named, example in ids.items():
        path = path.replace(f"{{{named}}}", example)
    query = QUERIES.get(name, {})
    asked = "?" + urlencode({key: _text(value) for key, value in query.items()}, safe="/|*") if query else ""
    method = "" if operation.method == ("POST" if name in BODIES else "GET") else f"-X {operation.method} "
    parts = [f'curl {method}"{URL}{path}{asked}"', AUTHORIZATION]
    if name in BODIES:
        parts.append(f"--json {shlex.quote(_body(BODIES[name]))}")
    if name in UPLOADS:
        parts[0] = parts[0].replace(method, "")
        parts.append(f"--upload-file {UPLOADS[name]}")
    if name in DOWNLOADS:
        parts.append(f"--output {DOWNLOADS[name]}")
    if operation.streamed and operation.streamed.endless:
        parts.append("--no-buffer")
    return " \\\n  ".join([*parts, *(UPGRADE if name == "terminal" else ())]) + "\n"


def _body(fields: Mapping[str, Any]) -> str:
    """JSON with a line for each field, if there are many."""
    if len(fields) < 2:
        return json.dumps(fields)
    return (
        "{\n" + ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()) + "\n  }"
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
