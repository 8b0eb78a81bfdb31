"""Incomplete multipart uploads of an S3 bucket: parts that no listing shows, and that cost money for ever.

obstore neither lists nor ends them, so this signs its own requests: AWS Signature Version 4.
"""

import hashlib
import hmac
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from buntime.ports import ArchiveUnavailable, Upload

LARGEST_PAGE = 8 << 20  # bytes; a page has at most 1,000 uploads
MOST_PAGES = 100
EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Credentials:
    key_id: str
    secret: str
    token: str = ""


class Uploads:
    """Methods block, and raise ArchiveUnavailable."""

    def __init__(self, bucket_url: str, region: str, credentials: Credentials, seconds: float) -> None:
        """`seconds`: the longest wait for an answer."""
        self._url = bucket_url
        self._region = region
        self._credentials = credentials
        self._seconds = seconds

    def list(self, prefix: str) -> Iterator[Upload]:
        """Of objects whose names in the bucket start with `prefix`."""
        at = {"prefix": prefix} if prefix else {}
        for _ in range(MOST_PAGES):
            page = self._page(at)
            yield from map(_upload, page.iter("Upload"))
            if _text(page, "IsTruncated") != "true":
                return
            markers = {
                "key-marker": _text(page, "NextKeyMarker"),
                "upload-id-marker": _text(page, "NextUploadIdMarker"),
            }
            at |= {name: value for name, value in markers.items() if value}

    def abort(self, upload: Upload) -> None:
        """Idempotent."""
        self._ask("DELETE", f"/{quote(upload.name)}", {"uploadId": upload.id})

    def _page(self, at: Mapping[str, str]) -> ElementTree.Element:
        try:
            page = ElementTree.fromstring(self._ask("GET", "", {"uploads": "", **at}))
        except ElementTree.ParseError as wrong:
            raise ArchiveUnavailable(f"its list of uploads is no XML: {wrong}") from wrong
        for element in page.iter():
            element.tag = element.tag.rpartition("}")[2]  # without the namespace, which not all stores have
        return page

    def _ask(self, method: str, path: str, query: Mapping[str, str]) -> bytes:
        request = self._signed(method, path, query, datetime.now(UTC))
        try:
            with urllib.request.urlopen(request, timeout=self._seconds) as answer:
                content: bytes = answer.read(LARGEST_PAGE + 1)
        except urllib.error.HTTPError as refused:
            if method == "DELETE" and refused.code == 404:
                return b""
            raise ArchiveUnavailable(f"{method} of uploads: {refused.code} {refused.reason}") from refused
        except (OSError, HTTPException, ValueError) as failed:
            raise ArchiveUnavailable(f"{method} of uploads: {failed}") from failed
        if len(content) > LARGEST_PAGE:
            raise ArchiveUnavailable("its list of uploads is too long")
        return content

    def _signed(self, method: str, path: str, query: Mapping[str, str], now: datetime) -> urllib.request.Request:
        base = urlsplit(self._url)
        asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items()))
        headers = {"host": base.netloc, "x-amz-content-sha256": EMPTY, "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ")}
        if self._credentials.token:
            headers["x-amz-security-token"] = self._credentials.token
        named = ";".join(sorted(headers))
        lines = (f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join([method, base.path + path, asked, "".join(lines), named, EMPTY])
        scope = f"{now:%Y%m%d}/{self._region}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{_sha256(canonical)}"
        key = f"AWS4{self._credentials.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._credentials.key_id}/{scope}, "
            f"SignedHeaders={named}, Signature={signature}"
        )
        return urllib.request.Request(f"{self._url}{path}?{asked}", headers=headers, method=method)


def _upload(found: ElementTree.Element) -> Upload:
    try:
        began = datetime.fromisoformat(_text(found, "Initiated"))
    except ValueError as wrong:
        raise ArchiveUnavailable(f"its list of uploads has a wrong time: {wrong}") from wrong
    return Upload(_text(found, "Key"), _text(found, "UploadId"), began.timestamp())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(element: ElementTree.Element, name: str) -> str:
    return element.findtext(name) or ""
