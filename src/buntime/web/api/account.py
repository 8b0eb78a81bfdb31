"""The caller's account, and its keys."""

from msgspec import UNSET

from buntime import account, errors
from buntime.operations.keys import KEYS, MadeKey
from buntime.operations.webhooks import WEBHOOKS
from buntime.plan import Limits, Plan
from buntime.requests import NewKey
from buntime.scope import Scope, in_order
from buntime.web.api.ids import key_id
from buntime.web.api.session_shapes import seconds
from buntime.web.operation import Call, operation
from buntime.web.wire import account as wire
from buntime.web.wire.sessions import ResourceLimits
from buntime.web.wire.shapes import NoQuery, encode, given, iso, number


@operation("GET", "/account", Scope.ACCOUNT_READ, tag="Account", answer=wire.Account)
async def get_account(call: Call[NoQuery, None]) -> wire.Account:
    """Get your account: its plan, the plan's limits, what is in use, and the key that you send.

    A key never sees another account.
    """
    caller = call.caller
    used = await call.operations.own_account.usage(caller)
    return wire.Account(
        account_id=caller.account.id,
        plan=caller.plan.name,
        limits=_limits(caller.plan),
        usage=wire.AccountUsage(sessions=used.sessions, snapshots=used.snapshots, images=used.images),
        key=_own(caller.key),
    )


@operation(
    "POST",
    "/keys/create",
    Scope.ACCOUNT_WRITE,
    tag="Account",
    body=wire.CreateKey,
    body_optional=True,
    answer=wire.KeyMade,
    errors=(errors.ResourceLimitExceeded,),
    idempotent=True,
    secret=True,
    own_replies=True,
)
async def create_key(call: Call[NoQuery, wire.CreateKey]) -> wire.KeyMade:
    """Create a key of your account.

    The answer has its secret, which is not shown again. The new key has at most the scopes of yours and expires no
    later. It stays valid when yours is revoked. An account has at most 100 valid keys. An Idempotency-Key counts for
    the API key that sent it: with another one of the account, the response is 422.
    """
    body, answer = call.body, call.answer
    scopes = None if body.scopes is UNSET else frozenset(map(Scope, body.scopes))
    new = NewKey(name=given(body.name), scopes=scopes, expires_in=given(body.expires_in))
    made = await call.operations.keys.create(call.caller, new, answer and (lambda made: answer(encode(_made(made)))))
    return _made(made)


@operation("GET", "/keys", Scope.ACCOUNT_READ, tag="Account", query=wire.KeysQuery, answer=wire.Keys)
async def list_keys(call: Call[wire.KeysQuery, None]) -> wire.Keys:
    """List the valid keys of your account, oldest first, without their secrets.

    Keys that were revoked or have expired are not listed.
    """
    found, total = await call.operations.keys.list(call.caller, call.query.limit, call.query.offset)
    return wire.Keys(keys=[_shown(key) for key in found], total=total)


@operation(
    "DELETE",
    "/keys/{keyId}",
    Scope.ACCOUNT_WRITE,
    tag="Account",
    answer=wire.RevokedKey,
    errors=(errors.KeyNotFound,),
)
async def revoke_key(call: Call[NoQuery, None]) -> wire.RevokedKey:
    """Revoke a key of your account, whatever its scopes.

    The next call with it gets 401, and so does the next one with your own key if you revoke that. Responses that are
    already streaming and open terminals go on.
    """
    wanted = key_id(call.path["keyId"])
    await call.operations.keys.revoke(call.caller, wanted)
    return wire.RevokedKey(deleted=True, key_id=wanted)


OPERATIONS = (get_account, create_key, list_keys, revoke_key)


def _own(key: account.Key) -> wire.OwnKey:
    return wire.OwnKey(
        key_id=key.id,
        name=key.name,
        scopes=[scope.value for scope in in_order(key.scopes)],
        expires_at=None if key.expires_at is None else iso(key.expires_at),
    )


def _shown(key: account.Key) -> wire.Key:
    own = _own(key)
    return wire.Key(
        key_id=own.key_id,
        name=own.name,
        scopes=own.scopes,
        expires_at=own.expires_at,
        hint=key.hint,
        created_at=iso(key.created_at),
    )


def _made(made: MadeKey) -> wire.KeyMade:
    shown = _shown(made.key)
    fields = {name: getattr(shown, name) for name in shown.__struct_fields__}
    return wire.KeyMade(**fields, key=made.secret)


def _limits(plan: Plan) -> wire.AccountLimits:
    return wire.AccountLimits(
        sessions=plan.sessions,
        longest_ttl=seconds(plan.longest_ttl),
        shortest_ttl=plan.shortest_ttl,
        requests_per_minute=plan.requests_per_minute,
        file_megabytes=plan.file_mb,
        files_per_request=plan.files_per_request,
        body_megabytes=plan.body_mb,
        snapshots=plan.snapshots,
        snapshot_gigabytes=plan.snapshot_gb,
        fork_count=plan.fork_count,
        images=plan.images,
        keys=KEYS,
        webhooks=WEBHOOKS,
        may_set_resource_limits=plan.may_set_limits,
        idle_after_most=seconds(plan.idle_after_most),
        deep_sleep_after_most=seconds(plan.deep_sleep_after_most),
        may_await_processes=plan.may_await_processes,
        default_resource_limits=_resources(plan.default),
        most_resource_limits=_resources(plan.most),
    )


def _resources(limits: Limits) -> ResourceLimits:
    return ResourceLimits(memory=limits.memory, cpu=number(limits.cpu), timeout=limits.timeout, disk=limits.disk)
