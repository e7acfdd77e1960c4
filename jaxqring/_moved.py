"""Names of earlier versions, which stay importable for one release."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose names have moved.

    Args:
      module: its name, "jaxqring.ring".
      places: the modules where names are now, each with the names, separated by blanks.

    Returns:
      A function of a name; it warns with a DeprecationWarning and returns what has the name now,
      or raises AttributeError if nothing had it.
    """
    homes = {name: home for home, names in places.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"`{module}.{name}` is `{homes[name]}.{name}` now; the old name goes with release 0.3.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(homes[name]), name)

    return find
