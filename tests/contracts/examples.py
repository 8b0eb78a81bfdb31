"""Makes objects with plausible values, for tests in which only one value matters."""

from collections.abc import Mapping

from buntime.account import Account, Key
from buntime.image import NamedImage
from buntime.plan import Limits
from buntime.ports import Answer, PreviewToken
from buntime.service import Service
from buntime.session import NEVER, AwakeWhile, Network, Preview, SavedVolume, Session, SleepPolicy, State
from buntime.snapshot import Layer, MadeImage, Snapshot

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
    expires_at: int | None = NOW + 300,
    state: State = State.ACTIVE,
    metadata: Mapping[str, object] | None = None,
    called: str | None = None,
) -> Session:
    """`called`: the name that clients give it."""
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
        name=called,
    )


def layer(
    name: str = "lay_one", account: str = "acc_one", image: str = "img", created_at: int = NOW, fork: str = ""
) -> Layer:
    return Layer(name, account, image, 5 << 20, created_at, f"key of {name}", fork=fork)


def snapshot(
    name: str = "snp_one",
    account: str = "acc_one",
    session: str = "ses_one",
    layer: str = "lay_one",
    image: str = "img",
    created_at: int = NOW,
    expires_at: int | None = None,
    label: str | None = None,
    is_automatic: bool = False,
) -> Snapshot:
    """`label`: the name that clients give it."""
    return Snapshot(
        id=name,
        account=account,
        session=session,
        layer=layer,
        image=image,
        image_name="default",
        size=5 << 20,
        created_at=created_at,
        expires_at=expires_at,
        name=label,
        is_automatic=is_automatic,
    )


def made_image(name: str = "img_one", base: str = "img", layer: str = "lay_one", created_at: int = NOW) -> MadeImage:
    return MadeImage(name, base, layer, {}, 5 << 20, created_at)


def named(image: str = "img_one", name: str = "mine", account: str = "acc_one") -> NamedImage:
    return NamedImage(name, image, 5 << 20, NOW, account)


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
    made_of="snp_full",
    sleep_policy=SleepPolicy(900, NEVER, 600, AwakeWhile.PROCESSES),
    name="full",
    services=(
        Service("web", "bun run \u2728.ts", 8080, "/workspace/app", {"TOKEN": "se\ncret"}, "on-failure"),
        Service("worker", "work"),
    ),
    env={"TOKEN": "se\ncret", "EMPTY": ""},
    files=12,
    processes=2,
    key="d3JhcHBlZA",
    saved=SavedVolume("ses_full/2", 40 << 20, NOW + 4, ("ses_full/0", "ses_full/1"), (3, 1 << 40)),
    previous=SavedVolume("ses_full/1", 0, NOW + 2, is_checkpoint=True),
    archived=True,
    host="local",
    epoch=3,
    version=7,
)

FULL_LAYER = Layer(
    id="lay_full",
    account="acc_one",
    image="img",
    size=3 << 30,
    created_at=NOW,
    key="d3JhcHBlZA",
    saved=SavedVolume("lay_full/1", 40 << 20, NOW + 4),
    fork="fork \u2026 of one",
)
FULL_SNAPSHOT = Snapshot(
    id="snp_full",
    account="acc_one",
    session="ses_one",
    layer="lay_full",
    image="img",
    image_name="default",
    size=3 << 30,
    created_at=NOW,
    expires_at=NOW + 60,
    name="before the upgrade",
    metadata={"who": "Zoë ✨ \ud800", "deep": {"list": [1, 2.5, None, True]}},
)
