"""The compression of gradients, as a part of a configuration."""

import dataclasses
from typing import Any, Literal

from jaxqring import _checks as checks
from jaxqring._fields import NOT_NEGATIVE, check_fields, no_other_keys
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
    Uncompressed,
)

#: The compressor of each method, and its name in tables; its options are those of the attributes
#: that a file can say.
METHODS: dict[str, tuple[Any, str]] = {
    "uncompressed": (Uncompressed, "SGD"),
    "powersgd": (PowerSGD, "PowerSGD"),
    "lqsgd": (LQSGD, "LQ-SGD"),
    "topk": (TopK, "TopK"),
    "dgc": (DGC, "DGC"),
    "randomk": (RandomK, "RandomK"),
    "terngrad": (TernGrad, "TernGrad"),
    "qsgd": (QSGD, "QSGD"),
    "sign": (SignVote, "SignVote"),
    "demo": (DeMo, "DeMo"),
}
#: Options in tables, where a number alone would not say enough.
SHOWN = {
    "rank": "r{}",
    "bits": "{} bits",
    "fraction": "{:.4g}",
    "alpha": "alpha {:g}",
    "clip": "clip {:g}",
    "levels": "{} levels",
    "momentum": "momentum {:g}",
    "k": "k {}",
}


@no_other_keys
@dataclasses.dataclass(frozen=True)
class CompressConfig:
    """The compression of what a run sends. An option that is left out is that of the method.

    Attributes:
      method: "uncompressed" for linear levels with a scale for each leaf, "powersgd", "lqsgd",
        "topk", "dgc", "randomk", "terngrad", "qsgd", "sign" for a majority vote of signs, "demo".
      rank: of "powersgd" and "lqsgd".
      bits: of a level, a code or a value, where the method sends such.
      alpha: of the logarithm of "lqsgd".
      reduce: of the codes of "lqsgd": "gather", "hop" or "sum".
      fraction: of the values that "topk", "dgc" and "randomk" send.
      error_feedback: of "powersgd", "lqsgd" and "topk".
      warm_start: of "powersgd" and "lqsgd".
      share_factors: of "powersgd".
      seed: of the first factors of "powersgd" and "lqsgd".
      momentum: of "dgc" and "sign", ahead of what is sent.
      clip: standard deviations of "terngrad", 0 for no clipping; norm of "dgc".
      levels: of "qsgd".
      norm: of "qsgd": "l2" or "max".
      decay: of "demo".
      k: coefficients of a block of "demo".
      rate: of the gradient in "demo".

    Raises:
      ValueError: if the method is unknown, an option is that of another method, or the method
        refuses its value.
    """

    method: Literal[
        "uncompressed",
        "powersgd",
        "lqsgd",
        "topk",
        "dgc",
        "randomk",
        "terngrad",
        "qsgd",
        "sign",
        "demo",
    ] = "powersgd"
    rank: int | None = None
    bits: int | None = None
    alpha: float | None = None
    reduce: Literal["gather", "hop", "sum"] | None = None
    fraction: float | None = None
    error_feedback: bool | None = None
    warm_start: bool | None = None
    share_factors: bool | None = None
    seed: int | None = dataclasses.field(default=None, metadata=NOT_NEGATIVE)
    momentum: float | None = None
    clip: float | None = None
    levels: int | None = None
    norm: Literal["l2", "max"] | None = None
    decay: float | None = None
    k: int | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "compress.")
        known = {field.name for field in dataclasses.fields(METHODS[self.method][0])}
        for name, value in self._options().items():
            if name not in known:
                checks.refuse(f"compress.{name}", f'be left out of "{self.method}"', value)
        self.build()

    def _options(self) -> dict[str, Any]:
        """The options that are given."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "method"]
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def build(self) -> Compressor:
        """The compressor that `jaxqring.compressed_pmean` takes."""
        options = self._options()
        if self.method == "terngrad" and options.get("clip") == 0:
            options["clip"] = None
        return METHODS[self.method][0](**options)

    def label(self) -> str:
        """The name of the method and the options given, as tables show them."""
        options = [SHOWN.get(n, "{}").format(value) for n, value in self._options().items()]
        return " ".join([METHODS[self.method][1], *options])
