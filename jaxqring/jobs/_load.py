"""Configurations from TOML files."""

import json
import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from jaxqring._extras import needs
from jaxqring.jobs._training_config import TrainConfig

if TYPE_CHECKING:
    import pydantic

Config = TypeVar("Config")


def packaged_configs() -> dict[str, Traversable]:
    """The TOML files that come with the package, by name without the suffix."""
    folder: Traversable = resources.files("jaxqring") / "configs"
    if not folder.is_dir():  # an editable installation: they lie at the root of the clone
        folder = Path(__file__).parents[2] / "configs"
    files = folder.iterdir() if folder.is_dir() else iter(())
    return {f.name[:-5]: f for f in sorted(files, key=lambda f: f.name) if f.name.endswith(".toml")}


def load_config(path: str | Path, kind: type[Config] = TrainConfig) -> Config:  # type: ignore[assignment]
    """Reads a configuration from a TOML file.

    Args:
      path: of the file; or, where there is no such file, the name of one that comes with the
        package, such as "demo".
      kind: of the configuration: `TrainConfig`, `SweepConfig`, `SensitivityConfig`,
        `BudgetConfig`, `CompressionConfig`, `InversionConfig`, `OuterConfig` or `RobustConfig`.

    Returns:
      The configuration, of the type `kind`.

    Raises:
      ValueError: if the file is missing or not TOML, has a key that is not a field, or a value of
        the wrong type or out of range.
      MissingExtraError: if the packages of the extra "train" are missing.

    >>> load_config("demo").nodes
    8
    """
    with needs("train", "A configuration file"):
        import pydantic

    file: Path | Traversable = Path(path)
    if not file.is_file():
        file = packaged_configs().get(str(path), file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        names = ", ".join(packaged_configs())
        raise ValueError(
            f"`config` must be a readable file, or one of {names}, but got {str(path)!r} ({why})."
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"`config` must be TOML, but got {str(path)!r}: {error}.") from None
    try:
        # By way of JSON, whose arrays may become tuples while all other types stay strict.
        adapter = pydantic.TypeAdapter(kind)
        return adapter.validate_json(json.dumps(values, default=str), strict=True)
    except pydantic.ValidationError as error:
        raise ValueError(_first_sentence(error, str(path))) from None


def _first_sentence(error: "pydantic.ValidationError", path: str) -> str:
    """The first of the errors, as one sentence."""
    first, *others = error.errors()
    place, members = first["loc"], [first]
    if place and str(place[-1]).startswith(
        "literal["
    ):  # of a union, which has an error for each member
        place = place[:-1]
        members += [other for other in others if other["loc"][:-1] == place]
    where = ".".join(map(str, place))
    if first["type"] == "value_error":  # raised by the checks above: a sentence already
        return str(first["ctx"]["error"])
    if first["type"] == "unexpected_keyword_argument":
        return f"`config` must have no unknown keys, but got `{where}` in {path!r}."
    if first["type"] == "missing":
        return f"`{where}` must be given, but got {first['input']!r} in {path!r}."
    rules = [member["msg"].removeprefix("Input should be ") for member in members]
    rule = " or ".join(rules).replace("valid number", "float")
    return f"`{where}` must be {rule}, but got {first['input']!r} in {path!r}."
