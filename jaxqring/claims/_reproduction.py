"""`jaxqring reproduce`: claims put to the test part by part, resumable, and a report."""

import dataclasses
import functools
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

import jaxqring
from jaxqring import _checks as checks
from jaxqring._extras import needs
from jaxqring._fields import check_fields
from jaxqring._files import locked, number, to_json, write_whole
from jaxqring._progress import progress_bars
from jaxqring.claims._catalogue import CLAIMS
from jaxqring.claims._claim import Claim, Effort, Finding

if TYPE_CHECKING:
    from rich.console import Console


@dataclasses.dataclass(frozen=True)
class ReproduceConfig:
    """Claims to be put to the test.

    Attributes:
      claims: names of claims; none for all of them.
      quick: small samples and few points: a third of the time.
      seed: of all that is drawn.
      out: folder for the report; parts that are finished lie in it and are not computed again.
      resume: False to compute all parts anew.

    Raises:
      ValueError: if there is no claim of such a name, or the seed is negative.
    """

    claims: tuple[str, ...] = ()
    quick: bool = False
    seed: int = dataclasses.field(default=0, metadata={"least": 0})
    out: str = "runs/reproduce"
    resume: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.claims, str):
            checks.refuse("claims", "be a tuple of names", self.claims)
        for name in self.claims:
            checks.one_of("claims", name, tuple(CLAIMS))

    @property
    def folder(self) -> Path:
        """The folder of the report."""
        return Path(self.out)

    @property
    def chosen(self) -> tuple[Claim, ...]:
        """The claims to be tested, in the order of the catalogue."""
        return tuple(c for name, c in CLAIMS.items() if not self.claims or name in self.claims)

    @property
    def command(self) -> str:
        """The command that writes the same report, but for the folder."""
        names = [claim.name for claim in self.chosen] if self.claims else []
        quick = ["--quick"] if self.quick else []
        return " ".join(["jaxqring reproduce", *names, *quick, f"--seed {self.seed}"])


@dataclasses.dataclass(frozen=True)
class Answer:
    """A claim that was put to the test.

    Attributes:
      claim: that was tested.
      finding: the answer.
      results: of its parts.
      seconds: that the parts took when they were computed.
    """

    claim: Claim
    finding: Finding
    results: dict[str, Any]
    seconds: float


def reproduce(config: ReproduceConfig, console: "Console | None" = None) -> list[Answer]:
    """Puts claims to the test, and writes a report.

    A part that is finished is written at once, and read the next time, as long as seed, effort,
    and the code of this library and of JAX are the same. The report, in Markdown and in HTML,
    holds what was found and no time, so that two runs write the same; `times.json` has the seconds
    of each part.

    Args:
      config: the claims and the effort.
      console: for the progress; None for silence.

    Returns:
      The claims with their findings, in the order of the catalogue.

    Raises:
      MissingExtraError: if a package of the extra "train" is missing.
      ValueError: if another process works in the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = ReproduceConfig(("overhead-and-rate",), quick=True, out=folder)
    ...     (answer,) = reproduce(config)
    >>> answer.finding.verdict, answer.finding.disputed
    ('holds if', ())
    """
    with needs("train", "A reproduction"):
        import matplotlib  # noqa: F401
    from jaxqring.claims._pages import write_report

    parts = [(claim, part) for claim in config.chosen for part in claim.parts]
    results: dict[str, dict[str, Any]] = {claim.name: {} for claim in config.chosen}
    times: dict[str, dict[str, float]] = {claim.name: {} for claim in config.chosen}
    with locked(config.folder):
        with progress_bars(console) as bar:
            advance = bar("parts", total=len(parts))
            for claim, part in parts:
                advance(0, note=f"{claim.name}: {part}")
                kept = _part(config, claim, part)
                results[claim.name][part] = kept["result"]
                times[claim.name][part] = kept["seconds"]
                advance(1)
        tested = [
            Answer(claim, claim.conclude(found), found, sum(times[claim.name].values()))
            for claim, found in ((claim, results[claim.name]) for claim in config.chosen)
        ]
        write_report(config, tested)
        write_whole(config.folder / "times.json", (to_json(times) + "\n").encode())
    return tested


def _part(config: ReproduceConfig, claim: Claim, part: str) -> dict[str, Any]:
    """The result of a part, and the seconds it took: from its file if that is of this code."""
    path = config.folder / "parts" / claim.name / f"{part}.json"
    made_by = {"quick": config.quick, "seed": config.seed, **_code()}
    if config.resume and (kept := _read(path)).get("made_by") == made_by:
        return kept
    start = time.monotonic()
    result = claim.parts[part](Effort(config.quick, config.seed))
    kept = {"made_by": made_by, "seconds": time.monotonic() - start, "result": result}
    write_whole(path, (to_json(kept) + "\n").encode())
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    """A file of a part, with the numbers that are not finite as numbers; empty if it is none."""

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: numbers(entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [numbers(entry) for entry in value]
        return number(value) if isinstance(value, str) else value

    try:
        kept = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):  # not there yet, or of another program
        return {}
    return numbers(kept) if isinstance(kept, dict) else {}


@functools.cache
def _code() -> dict[str, str]:
    """The versions behind a number: of JAX, and of this library to the letter."""
    root = Path(jaxqring.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "jaxqring": f"{jaxqring.__version__} {digest.hexdigest()[:16]}",
        "jax": jax.__version__,
        "platform": jax.default_backend(),
    }
