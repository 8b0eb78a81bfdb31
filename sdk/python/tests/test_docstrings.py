"""Every public method says what its parameters are."""

import inspect
from collections.abc import Iterator
from typing import Any

import buntime_sdk
import pytest
from buntime_sdk import BuntimeError, testing


def methods() -> Iterator[tuple[str, Any]]:
    for module in (buntime_sdk, testing):
        for name in module.__all__:
            kind = getattr(module, name)
            if not isinstance(kind, type) or issubclass(kind, BuntimeError) or hasattr(kind, "__dataclass_fields__"):
                continue
            for method, function in inspect.getmembers(kind, inspect.isfunction):
                if not method.startswith("_"):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize(("name", "method"), [pytest.param(*one, id=one[0]) for one in methods()])
def test_a_public_methods_docstring_names_each_parameter(name: str, method: Any) -> None:
    said = inspect.getdoc(method) or ""
    parameters = [one for one in inspect.signature(method).parameters if one != "self"]
    assert [one for one in parameters if f"`{one}`" not in said] == []
    assert said
