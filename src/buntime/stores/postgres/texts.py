"""Text that PostgreSQL cannot hold.

PostgreSQL refuses NUL and lone surrogates, which clients may send. Here each becomes ESCAPE and four hexadecimal
digits, and so does ESCAPE itself. So every text has one form in the store, and what is equal stays equal.
"""

import re

from psycopg import postgres
from psycopg.adapt import AdaptersMap, Buffer
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumperUnknown, TextLoader

ESCAPE = "\x1a"  # SUBSTITUTE, which hardly any text has
_REFUSED = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")


def escaped(text: str) -> str:
    return _REFUSED.sub(lambda found: f"{ESCAPE}{ord(found[0]):04x}", text)


def original(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if ESCAPE in text else text


def adapters() -> AdaptersMap:
    """Those of psycopg, with these texts, and with integers of one size."""
    made = AdaptersMap(postgres.adapters)
    made.register_dumper(str, _Dumper)
    made.register_dumper(int, Int8Dumper)  # by the size of each number, one statement would be prepared many times
    for name in ("text", "varchar"):
        made.register_loader(name, _Loader)
    return made


class _Dumper(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(escaped(obj))


class _Loader(TextLoader):
    def load(self, data: Buffer) -> bytes | str:
        text = super().load(data)
        return original(text) if isinstance(text, str) else text
