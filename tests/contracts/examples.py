"""Makes objects with plausible values, for tests in which only one value matters."""

from collections.abc import Mapping

from buntime.account import Account, Key
from buntime.plan import Limits
from buntime.ports import Answer, PreviewToken
from buntime.session import Network, Preview, SavedVolume, Session, State

NOW = 1_700_000_000


def account(name: str = "acc_one", created_at: int = NOW) -> Account:
    return Account(name, "paid", created_at)


def key(name: str = "key_one", account: str = "acc_one", created_at: int = NOW) -> Key:
    return Key(name, account, f"hash of {name}", "btk_abcd", created_at)


def answer(key: str = "k", account: str = "acc_one", body: bytes = b"{}", created_at: int = NOW) -> Answer:
    return Answer(account, key, "POST /sessions/create", 200, body, created_at)


def token(
    name: str = "t", session: str = "ses_one", port: int | None = None, created_at: int = NOW, ttl: int = 60
) -> PreviewToken:
    return PreviewToken(f"hash of {name}", session, port, created_at, created_at + ttl)


def session(
    name: str = "ses_one",
    account: str = "acc_one",
    created_at: int = NOW,
    expires_at: int = NOW + 300,
    state: State = State.ACTIVE,
    metadata: Mapping[str, object] | None = None,
) -> Session:
    return Session(
        id=name,
        account=account,
        created_at=created_at,
        expires_at=expires_at,
        last_active=created_at,
        limits=Limits(1024, 0.25, 30, 1024),
        sandbox=f"sb_{name}",
        volume=f"vol_{name}",
        image="img",
        state=state,
        metadata=metadata or {},
    )


FULL = Session(
    id="ses_full",
    account="acc_one",
    created_at=NOW,
    expires_at=NOW + 86400,
    last_active=NOW + 5,
    limits=Limits(4096, 0.75, 300, 5120),
    sandbox="sb_full",
    volume="vol_full",
    image="img_1",
    state=State.DEEP_SLEEP,
    metadata={"who": "Zoë ✨ \ud800", "n": 1, "deep": {"list": [1, 2.5, None, True]}},
    preview=Preview("private", (3000, 8080)),
    network=Network("none", ("10.0.0.0/8", "*.example.com"), ("1.1.1.1/32",)),
    on_wake="bun run start",
    env={"TOKEN": "se\ncret", "EMPTY": ""},
    files=12,
    processes=2,
    key="d3JhcHBlZA",
    saved=SavedVolume("ses_full/2", 40 << 20, NOW + 4),
    previous=SavedVolume("ses_full/1", 0, NOW + 2),
    archived=True,
    host="other",
    epoch=3,
    version=7,
)
