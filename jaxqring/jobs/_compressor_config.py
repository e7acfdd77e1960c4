"""A compressor by the name of its method and its options, for TOML files."""

import dataclasses
from typing import Any, Literal

from jaxqring import _checks as checks
from jaxqring._fields import check_fields, no_other_keys
from jaxqring.compress import (
    DGC,
    LQSGD,
    QSGD,
    Compressor,
    DeMo,
    PowerSGD,
    RandomK,
    SignVote,
    TernGrad,
    TopK,
)

#: Methods by name, with the name that tables show.
METHODS: dict[str, tuple[str, Any]] = {
    "none": ("SGD", None),
    "powersgd": ("PowerSGD", PowerSGD),
    "lqsgd": ("LQ-SGD", LQSGD),
    "topk": ("TopK", TopK),
    "randomk": ("RandomK", RandomK),
    "dgc": ("DGC", DGC),
    "terngrad": ("TernGrad", TernGrad),
    "qsgd": ("QSGD", QSGD),
    "signvote": ("SignVote", SignVote),
    "demo": ("DeMo", DeMo),
}


@no_other_keys
@dataclasses.dataclass(frozen=True)
class CompressorConfig:
    """A method of `jaxqring.compress` with its options; those left out are at their defaults.

    Attributes:
      method: "none", "powersgd", "lqsgd", "topk", "randomk", "dgc", "terngrad", "qsgd", "signvote"
        or "demo".
      rank: of "powersgd" and "lqsgd".
      bits: of "powersgd", "lqsgd", "topk", "dgc" and "demo".
      alpha: of "lqsgd".
      reduce: of "lqsgd".
      fraction: of "topk", "randomk" and "dgc".
      clip: of "terngrad" and "dgc".
      levels: of "qsgd".
      norm: of "qsgd".
      momentum: of "dgc" and "signvote".
      k: of "demo".

    Raises:
      ValueError: if the method is unknown, has no such option, or refuses its value.
    """

    method: Literal[
        "none",
        "powersgd",
        "lqsgd",
        "topk",
        "randomk",
        "dgc",
        "terngrad",
        "qsgd",
        "signvote",
        "demo",
    ] = "powersgd"
    rank: int | None = None
    bits: int | None = None
    alpha: float | None = None
    reduce: Literal["gather", "hop", "sum"] | None = None
    fraction: float | None = None
    clip: float | None = None
    levels: int | None = None
    norm: Literal["l2", "max"] | None = None
    momentum: float | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "compressors.")
        kind = METHODS[self.method][1]
        known = {field.name for field in dataclasses.fields(kind)} if kind else set()
        for name, value in self.options().items():
            if name not in known:
                rule = f'be left out for the method "{self.method}"'
                checks.refuse(f"compressors.{name}", rule, value)
        self.build()

    def options(self) -> dict[str, Any]:
        """The options that are given, by name."""
        fields = dataclasses.asdict(self)
        del fields["method"]
        return {name: value for name, value in fields.items() if value is not None}

    def build(self) -> Compressor | None:
        """The compressor; None for "none"."""
        kind = METHODS[self.method][1]
        return None if kind is None else kind(**self.options())

    def label(self) -> str:
        """The name of the method and the options given, as tables show them."""
        shown = {
            "rank": "r{}",
            "bits": "{} bits",
            "fraction": "{:.4g}",
            "alpha": "alpha {:g}",
            "clip": "clip {:g}",
            "levels": "{} levels",
            "momentum": "momentum {:g}",
            "k": "k {}",
        }
        options = [shown.get(n, "{}").format(value) for n, value in self.options().items()]
        return " ".join([METHODS[self.method][0], *options])
