"""Checks that every configuration shares, and the form in which files hold one."""

import dataclasses
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxqring import _checks as checks

Kind = TypeVar("Kind")


def no_other_keys(kind: type[Kind]) -> type[Kind]:
    """Has pydantic refuse keys that are not fields of a dataclass, without importing pydantic."""
    kind.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return kind


#: Metadata of an integer field that may be zero; the least value of others is 1.
NOT_NEGATIVE = {"least": 0}
#: Metadata of a field that was added when there were files already, and that they leave out at its
#: default: so files of jobs that do not use it stay as they were, and jobs that an earlier version
#: began can be resumed.
LATER = {"later": True}


def as_written(config: Any) -> Any:
    """The fields of a configuration as files hold them, by name and nested like its dataclasses."""
    if dataclasses.is_dataclass(config):
        return {
            field.name: as_written(getattr(config, field.name))
            for field in dataclasses.fields(config)
            if not ("later" in field.metadata and getattr(config, field.name) == field.default)
        }
    if isinstance(config, dict):
        return {name: as_written(value) for name, value in config.items()}
    return tuple(map(as_written, config)) if isinstance(config, tuple) else config


def check_fields(config: Any, prefix: str = "") -> None:
    """Refuses what a field's type does not allow: unknown choices, integers that are too small.

    Args:
      config: a dataclass. The least value of its fields of type `int` or `int | None` is 1, unless
        their metadata say otherwise; None is left to the type.
      prefix: of the names of its fields in refusals.

    Raises:
      ValueError: if a value is not one of the choices, or not an integer of at least the least.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        hint, value = hints[field.name], getattr(config, field.name)
        if get_origin(hint) in (types.UnionType, Union) and type(None) in get_args(hint):
            if value is None:
                continue
            hint = next(kind for kind in get_args(hint) if kind is not type(None))
        if get_origin(hint) is Literal:
            checks.one_of(prefix + field.name, value, get_args(hint))
        elif hint is int:
            checks.integer(prefix + field.name, value, field.metadata.get("least", 1))


def check_file_name(argument: str, name: str) -> None:
    """Refuses a name that a file cannot have.

    Raises:
      ValueError: if it is empty, "." or "..", or has a slash or a null character.
    """
    if not name or any(c in name for c in "/\\\0") or name in (".", ".."):
        checks.refuse(argument, "be a name that a file can have", name)
