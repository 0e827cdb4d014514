"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def names_on_demand(
    namespace: dict[str, Any], places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package that must be quick to import (PEP 562).

    Args:
      namespace: the package's `globals()`; what was looked up stays there.
      places: {name: "module" or "module:name there"}.
    """

    def look_up(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
        module, _, attribute = places[name].partition(":")
        namespace[name] = getattr(importlib.import_module(module), attribute or name)
        return namespace[name]

    return look_up, lambda: sorted({*namespace, *places})
