"""Plans as an operator writes them: a file of plans, and an account's own numbers (`sessions=500`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields

from buntime.config import BadSetting, Config
from buntime.plan import (
    ENDLESS,
    LONGEST_CHECKPOINT,
    MAY_BE_ENDLESS,
    SHORTEST_CHECKPOINT,
    Limits,
    Plan,
    load_plans,
    with_overrides,
)

MAY_BE_ZERO = ("checkpoint_every", "rate_active", "rate_idle", "rate_deep_sleep")  # never; and: not counted


def plans_of(config: Config) -> Mapping[str, Plan]:
    """Raises BadSetting."""
    try:
        return load_plans(config.plans)
    except (OSError, ValueError) as wrong:
        raise BadSetting(f"the plans in BUNTIME_PLANS={config.plans} cannot be read: {wrong}.") from wrong


def parse(plan: Plan, settings: Sequence[str]) -> dict[str, object]:
    """The overrides (see `plan.with_overrides`) of one account on `plan`.

    Raises ValueError, in words for the operator, for unknown names, values of the wrong kind and
    numbers that contradict each other.
    """
    overrides: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is not of the form key=value")
        value = _value(name, text)
        table, dot, number = name.partition(".")
        if dot:
            inner = overrides.setdefault(table, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{table} is given both whole and in part")
            inner[number] = value
        else:
            overrides[name] = value
    wanted = with_overrides(plan, overrides)
    _check_kinds(plan, wanted)
    _check_order(wanted)
    return overrides


def _value(name: str, text: str) -> bool | int | float | str:
    if text == ENDLESS and name in MAY_BE_ENDLESS:
        return text
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    kinds = "a number, true, false or never" if name in MAY_BE_ENDLESS else "a number, true or false"
    raise ValueError(f"{name} must be {kinds}, not {text!r}")


def _check_kinds(plan: Plan, wanted: Plan) -> None:
    shipped = _numbers(plan)
    for name, value in _numbers(wanted).items():
        if name in MAY_BE_ENDLESS:
            continue  # `with_overrides` has checked it
        if isinstance(shipped[name], bool):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, not {value}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number, not {value!r}")
        elif isinstance(value, float) and not isinstance(shipped[name], float):
            raise ValueError(f"{name} must be a whole number, not {value}")
        elif not 0 <= value < math.inf or not (value or name in MAY_BE_ZERO):
            raise ValueError(f"{name} must be more than 0, not {value}")


def _check_order(plan: Plan) -> None:
    for limit in fields(Limits):
        default, most = getattr(plan.default, limit.name), getattr(plan.most, limit.name)
        if default > most:
            raise ValueError(f"default.{limit.name} ({default}) is over most.{limit.name} ({most})")
    if plan.shortest_ttl > plan.longest_ttl:
        raise ValueError(f"shortest_ttl ({plan.shortest_ttl}) is over longest_ttl ({plan.longest_ttl:.0f})")
    if plan.checkpoint_every and not SHORTEST_CHECKPOINT <= plan.checkpoint_every <= LONGEST_CHECKPOINT:
        raise ValueError(
            f"checkpoint_every must be {SHORTEST_CHECKPOINT} to {LONGEST_CHECKPOINT}, or 0 for never, "
            f"not {plan.checkpoint_every}"
        )


def _numbers(plan: Plan) -> Mapping[str, object]:
    """Every number under the name that a setting gives it."""
    numbers: dict[str, object] = {}
    for field in fields(Plan):
        value = getattr(plan, field.name)
        if isinstance(value, Limits):
            numbers |= {f"{field.name}.{limit.name}": getattr(value, limit.name) for limit in fields(Limits)}
        elif field.name != "name":
            numbers[field.name] = value
    return numbers
