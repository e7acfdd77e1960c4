"""A claim, the numbers that decide about it, and the two witnesses of each."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from jaxqring import _checks as checks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: "holds if" comes with its condition, "cannot be tested here" with its reason.
Verdict = Literal["holds", "holds if", "fails", "cannot be tested here"]

VERDICTS: tuple[Verdict, ...] = ("holds", "holds if", "fails", "cannot be tested here")


@dataclasses.dataclass(frozen=True)
class Effort:
    """The effort that a part of a claim may take.

    Attributes:
      quick: True for small samples and few points.
      seed: of all that is drawn.
    """

    quick: bool
    seed: int


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of this library, and the same one by an independent calculation.

    Attributes:
      name: with its unit.
      ours: computed by the library.
      second: computed by other means, which share no code with the library.
      witness: these means, in a few words.
      claimed: by the source, where it states a number.
      within: largest distance of `ours` and `second` that is agreement, in the unit of the number;
        None for 1e-9 of `second`. For a sample, several standard errors.

    Raises:
      ValueError: if `within` is negative.

    >>> Number("bits per qubit", ours=2.0, second=2.0, witness="dense matrices").agrees
    True
    """

    name: str
    ours: float
    second: float
    witness: str
    claimed: float | None = None
    within: float | None = None

    def __post_init__(self) -> None:
        if self.within is not None:
            checks.within("within", self.within, 0.0, math.inf)

    @property
    def tolerance(self) -> float:
        """The largest distance of the witnesses that is agreement."""
        return 1e-9 * abs(self.second) if self.within is None else self.within

    @property
    def agrees(self) -> bool:
        """True if the witnesses agree; two infinities of one sign do."""
        if math.isinf(self.ours) or math.isinf(self.second):
            return self.ours == self.second
        return abs(self.ours - self.second) <= self.tolerance


@dataclasses.dataclass(frozen=True)
class Finding:
    """An answer to a claim.

    Attributes:
      verdict: "holds", "holds if", "fails" or "cannot be tested here".
      because: a sentence with the condition or the reason, whose numbers come from the run.
      numbers: the numbers that decide; the first one stands in the table of all claims.

    Raises:
      ValueError: if the verdict is none of the four, or no number stands behind it.

    >>> number = Number("bits per qubit", 2.0, 2.0, "dense matrices", claimed=2.0)
    >>> Finding("holds", "Both bits arrive.", (number,)).verdict
    'holds'
    """

    verdict: Verdict
    because: str
    numbers: tuple[Number, ...]

    def __post_init__(self) -> None:
        checks.one_of("verdict", self.verdict, VERDICTS)
        if not self.numbers:
            checks.refuse("numbers", "hold a number with two witnesses", self.numbers)

    @property
    def disputed(self) -> tuple[Number, ...]:
        """The numbers whose witnesses disagree."""
        return tuple(number for number in self.numbers if not number.agrees)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of a paper, or a question that it leaves open, and how it is put to the test.

    Attributes:
      name: of the command line.
      title: a line.
      source: the paper, and where in it.
      says: what the source states, in short, or the open question.
      reading: what of the test is our interpretation.
      parts: pieces of work by name, each from an `Effort` to what JSON can hold. Each is kept as
        soon as it is done.
      conclude: from the results of all parts to the finding; quick, and nothing but arithmetic.
      draw: from the results to a figure; None where none says more than the numbers.
    """

    name: str
    title: str
    source: str
    says: str
    reading: str
    parts: Mapping[str, Callable[[Effort], dict[str, Any]]]
    conclude: Callable[[dict[str, Any]], Finding]
    draw: "Callable[[dict[str, Any]], Figure] | None" = None
