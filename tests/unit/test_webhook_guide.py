"""The receiver in docs/webhooks.md works as it stands there."""

import base64
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from standardwebhooks import Webhook

from tests.ports import free_port
from tests.waiting import until

PAGE = Path(__file__).parents[2] / "docs/webhooks.md"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmnopqrstuv").decode()
BODY = (
    '{"eventId":"evt_1","type":"webhook.test","sessionId":null,"time":"2024-01-19T10:31:00Z","requestId":null,'
    '"data":{"webhookId":"whk_1"}}'
)


def post(port: int, secret: str) -> int:
    now = datetime.now(UTC)
    headers = {
        "Webhook-Id": "evt_1",
        "Webhook-Timestamp": str(int(time.time())),
        "Webhook-Signature": Webhook(secret).sign("evt_1", now, BODY),
    }
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", BODY.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def test_the_receiver_takes_each_event_once_and_refuses_what_is_not_signed(tmp_path: Path) -> None:
    program = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    (tmp_path / "receiver.py").write_text(program)
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "WEBHOOK_SECRET": SECRET}
    receiver = subprocess.Popen(
        [sys.executable, "receiver.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        until(lambda: listens(port), "the receiver")
        assert [post(port, SECRET), post(port, SECRET), post(port, "whsec_AAAA")] == [204, 204, 401]
    finally:
        receiver.terminate()
        said, _ = receiver.communicate(timeout=10)
    assert said == "webhook.test None {'webhookId': 'whk_1'}\n"


def listens(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
