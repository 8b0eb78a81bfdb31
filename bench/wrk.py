"""`wrk`, which is fast enough not to limit what it measures. Blocking."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.previews import Way

# Each request of a connection goes to the next host; two threads start at different ones. Refusals count as failures.
SCRIPT = """
local hosts = { HOSTS }
local threads = 0
function setup(thread) thread:set("first", threads * math.floor(#hosts / 2)); threads = threads + 1 end
local requests, turn = {}, nil
function init()
  for place, host in ipairs(hosts) do requests[place] = wrk.format("GET", "/", { Host = host }) end
  turn = first
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary)
  local failed = 0
  for _, count in pairs(summary.errors) do failed = failed + count end
  local form = 'RESULT {"requests":%d,"us":%d,"failed":%d}'
  print(string.format(form, summary.requests, summary.duration, failed))
end
"""


def reason_against() -> str:
    return "" if shutil.which("wrk") else "wrk is not installed: apt-get install wrk"


def load(directory: Path, way: Way, seconds: float, connections: int, hosts: Sequence[str] = ()) -> float:
    """Measures requests a second. Each connection sends its next request after a response.

    `hosts`: hosts to ask by turns; by default the way's. Raises RuntimeError if a request failed.
    """
    script = directory / "wrk.lua"
    script.write_text(SCRIPT.replace("HOSTS", ", ".join(f'"{host}"' for host in hosts or [way.host])))
    threads = min(2, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script), way.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(next(line for line in said.splitlines() if line.startswith("RESULT "))[len("RESULT ") :])
    if result["failed"] or not result["requests"]:
        raise RuntimeError(f"wrk, {way.name}: {result['failed']} of {result['requests']} requests failed")
    return float(result["requests"] * 1e6 / result["us"])
