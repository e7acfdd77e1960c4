"""Checks that every configuration shares."""

from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from jaxqring import _checks as checks

Kind = TypeVar("Kind")


def no_other_keys(kind: type[Kind]) -> type[Kind]:
    """Has pydantic refuse keys that are no fields of a dataclass, without importing pydantic."""
    kind.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return kind


def check_fields(config: Any, prefix: str = "") -> None:
    """Refuses what no field of its kind can be: unknown choices, names, counts and seeds."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal:
            checks.one_of(prefix + name, value, get_args(hint))
        elif hint is int:
            least, rule = (
                (0, "be an integer of at least 0")
                if name in ("seed", "t", "top_symbols", "resync_every", "rounds")
                else (1, "be a positive integer")
            )
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                checks.refuse(prefix + name, rule, value)


def check_file_name(argument: str, name: str) -> None:
    """Refuses a name that no file can have."""
    if not name or any(c in name for c in "/\\\0") or name in (".", ".."):
        checks.refuse(argument, "be a name that a file can have", name)
