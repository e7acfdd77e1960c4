"""`jaxqring inversion`: images from gradients, by method, network and adversary; resumable."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxqring import _checks as checks
from jaxqring._extras import needs
from jaxqring._fields import NOT_NEGATIVE, as_written, check_fields, check_file_name, no_other_keys
from jaxqring._files import load_state, save_state, to_json, write_whole
from jaxqring._progress import progress_bars
from jaxqring._types import PyTree
from jaxqring.inversion import (
    ADVERSARIES,
    Attacker,
    AttackSettings,
    can_be_masked,
    image_in_factor,
    observe,
    ssim,
    victim,
)
from jaxqring.inversion._adversaries import Adversary
from jaxqring.jobs._compress_config import CompressConfig
from jaxqring.train._datasets import DataConfig, Dataset, load

if TYPE_CHECKING:
    from rich.console import Console

Network = Literal["smooth", "cnn", "mlp"]
#: The convention of the structural similarity, for readers of the summary.
CONVENTION = "Gaussian window of 11 pixels, sigma 1.5, range 1, k1 0.01, k2 0.03 (dm_pix)"


@no_other_keys
@dataclasses.dataclass(frozen=True)
class InversionConfig:
    """Attacks on gradients of single images, each by every adversary on every method.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      data: the images, of which the first of each class in the test set are attacked.
      networks: the victims, untrained: "smooth", "cnn" and "mlp".
      compressors: the methods.
      adversaries: "naive", "adaptive", "neighbours" and "masked"; the last one on sums alone.
      images: attacked.
      restarts: of an attack on an image; the one of least cost counts.
      steps: of an attack.
      tv: weight of the total variation.
      rate: of Adam at the first step, of the range of a pixel.
      seed: of the networks, of the methods and of the noise that attacks begin with.
      resume: if true, attacks that are finished are not made again; if false, all are.

    Raises:
      TypeError: if `tv` or `rate` is not real.
      ValueError: if one is out of range, a count below 1, `name` cannot be that of a file, a choice
        is unknown, a list is empty or has an entry twice, or the data are not images.
    """

    name: str = "inversion"
    out: str = "runs"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    networks: tuple[Network, ...] = ("smooth",)
    compressors: tuple[CompressConfig, ...] = (CompressConfig(rank=1),)
    adversaries: tuple[Literal["naive", "adaptive", "neighbours", "masked"], ...] = ADVERSARIES
    images: int = 10
    restarts: int = 4
    steps: int = 500
    tv: float = 0.003
    rate: float = 0.1
    seed: int = dataclasses.field(default=0, metadata=NOT_NEGATIVE)
    resume: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        if self.data.features:
            checks.refuse("data.features", "be 0, as images are attacked", self.data.features)
        self.settings()
        labels = tuple(compressor.label() for compressor in self.compressors)
        lists: dict[str, tuple[str, ...]] = {
            "networks": self.networks,
            "compressors": labels,
            "adversaries": self.adversaries,
        }
        for name, entries in lists.items():
            if not entries or len(set(entries)) < len(entries):
                checks.refuse(name, "hold at least one entry, each of them once", entries)
        for name in self.networks:
            checks.one_of("networks", name, ("smooth", "cnn", "mlp"))
        for name in self.adversaries:
            checks.one_of("adversaries", name, ADVERSARIES)
        for compressor in self.compressors:
            check_file_name("compressors", compressor.label())

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    def settings(self) -> AttackSettings:
        """The numbers of an attack."""
        return AttackSettings(self.steps, self.restarts, self.tv, self.rate)

    def attacks(self) -> "list[Attack]":
        """The attacks in their order; a method that cannot be masked has none under masks."""
        return [
            Attack(network, compressor, adversary)
            for network in self.networks
            for compressor in self.compressors
            for adversary in self.adversaries
            if adversary != "masked" or can_be_masked(compressor.build())
        ]


class Attack(NamedTuple):
    """One adversary on one method on one network, on all images."""

    network: Network
    compressor: CompressConfig
    adversary: Adversary

    def path(self, folder: Path) -> Path:
        """The file with its result."""
        name = f"{self.network}-{self.compressor.label()}-{self.adversary}".replace(" ", "_")
        return folder / "results" / f"{name}.msgpack"


def run_inversion(config: InversionConfig, console: "Console | None" = None) -> dict[str, Any]:
    """Makes all attacks, or goes on where an earlier call was cut off.

    Files under `config.folder`: in `results` one for each attack, written whole when it is
    finished, with its images; `summary.json` at the end. An attack is made again if anything that
    its result depends on has changed, and only then.

    Args:
      config: the study.
      console: that shows progress; None for silence.

    Returns:
      The contents of `summary.json`: "attacks" with the structural similarity of each image, its
      mean and its standard deviation over images, and "as", the adversary that saw the same and
      whose attack it was; and "closed_forms" with that of images read off
      rank-1 factors of an untrained "mlp" without a search.

    Raises:
      ValueError: if the data cannot be loaded or has too few images.
      MissingExtraError: if the package that computes the similarity is missing.
    """
    with needs("train", "A study of inversion"):
        import dm_pix  # noqa: F401
    data = load(config.data)
    images, labels = victims_of(config, data)
    attacks = config.attacks()
    stale = [a for a in attacks if not (config.resume and _is_finished(config, a))]
    if not config.resume:
        for path in (config.folder / "results").glob("*.msgpack"):
            path.unlink()
    study = _Study(config, data, images, labels)
    with progress_bars(console) as bar:
        advance = bar("attacks", total=len(attacks), done=len(attacks) - len(stale))
        for attack in stale:
            advance(0, note=f"{attack.network}, {attack.compressor.label()}, {attack.adversary}")
            study.make(attack)
            advance(1)
        advance(0, note="")
    summary = {
        "name": config.name,
        "config": as_written(config),
        "jax": jax.__version__,
        "ssim": CONVENTION,
        "attacks": [_entry(config.folder, attack) for attack in attacks],
        "closed_forms": study.closed_forms(),
    }
    write_whole(config.folder / "summary.json", (to_json(summary) + "\n").encode())
    return summary


def victims_of(config: InversionConfig, data: Dataset) -> tuple[jax.Array, jax.Array]:
    """The images (count, height, width, 1) that are attacked, and their labels (count,).

    The first image of each class in turn, then the second ones, of the test set.

    Raises:
      ValueError: if there are fewer.
    """
    ranks = np.zeros(len(data.test_labels), int)
    for label in np.unique(data.test_labels):
        same = data.test_labels == label
        ranks[same] = np.arange(same.sum())
    order = np.lexsort((data.test_labels, ranks))
    if config.images > len(order):
        checks.refuse("images", f"be at most the {len(order)} of the test set", config.images)
    chosen = order[: config.images]
    return jnp.asarray(data.test_images[chosen]), jnp.asarray(data.test_labels[chosen])


def images_of(folder: Path, attack: Attack) -> np.ndarray:
    """(count, height, width, 1) the reconstructions of a finished attack."""
    return np.asarray(load_state(attack.path(folder))[0]["images"])


class _Study:
    """The attacks of a job; programs that they share are compiled once."""

    def __init__(
        self, config: InversionConfig, data: Dataset, images: jax.Array, labels: jax.Array
    ) -> None:
        self.config, self.images, self.labels = config, images, labels
        self.key = jax.random.key(config.seed)
        self._given = images, labels, jax.random.fold_in(self.key, 1)
        self._classes = data.num_classes
        self._attackers: dict[str, Attacker] = {}

    def _attacker(self, network: Network) -> Attacker:
        if network not in self._attackers:
            # One at a time, so that the programs of the last network are forgotten.
            self._attackers = {network: Attacker(self._victim(network), self.config.settings())}
        return self._attackers[network]

    def _victim(self, network: Network) -> Any:
        key = jax.random.fold_in(self.key, 0)
        return victim(network, self.images.shape[1:], self._classes, key)

    def make(self, attack: Attack) -> None:
        """Makes an attack and writes its result, or that of one that saw and did the same."""
        start = time.monotonic()
        twin = self._twin(attack)
        if twin is None:
            attacker, method = self._attacker(attack.network), attack.compressor.build()
            found = attacker.attack(method, attack.adversary, *self._given)
            result: dict[str, Any] = {
                "images": np.asarray(found.image),
                "cost": np.asarray(found.cost),
                "ssim": np.asarray(ssim(found.image, self.images)),
                "as": attack.adversary,
            }
        else:
            result, _ = load_state(twin.path(self.config.folder))
        result["identity"] = _identity(self.config, attack)
        result["seconds"] = time.monotonic() - start
        save_state(attack.path(self.config.folder), result, self.config.steps)

    def _twin(self, attack: Attack) -> Attack | None:
        """An earlier attack whose adversary saw the same, bit for bit, and does the same with it.

        Messages are not held against what a step delivers, unless the gradient itself is sent.
        """
        is_plain = attack.compressor.method == "uncompressed"
        earlier = self.config.adversaries[: self.config.adversaries.index(attack.adversary)]
        for adversary in earlier:
            alike = is_plain or "naive" not in (adversary, attack.adversary)
            if alike and _equal(self._view(attack, adversary), self._view(attack)):
                return attack._replace(adversary=adversary)
        return None

    def _view(self, attack: Attack, adversary: Adversary | None = None) -> PyTree:
        attacker = self._attacker(attack.network)
        sees = adversary or attack.adversary
        return attacker.view(attack.compressor.build(), sees, *self._given)

    def closed_forms(self) -> list[dict[str, Any]]:
        """The similarity of images read off the first factor of a dense network, by method."""
        network = self._victim("mlp")
        shape = self.images.shape[1:]
        entries = []
        for compressor in self.config.compressors:
            method = compressor.build()
            if getattr(method, "rank", None) != 1:
                continue

            def read_off(image: jax.Array, label: jax.Array, method: Any = method) -> jax.Array:
                key = jax.random.fold_in(self.key, 1)
                return image_in_factor(observe(method, network.gradient(image, label), key), shape)

            found = jax.jit(jax.vmap(read_off))(self.images, self.labels)
            values = np.asarray(ssim(found, self.images))
            entries.append({"compressor": compressor.label(), **_statistics(values)})
        return entries


def _equal(view: PyTree, other: PyTree) -> bool:
    leaves, others = jax.tree.leaves(view), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(map(np.array_equal, leaves, others))


def _identity(config: InversionConfig, attack: Attack) -> str:
    """All that the result of an attack depends on."""
    names = ("data", "images", "restarts", "steps", "tv", "rate", "seed")
    fields = {name: getattr(config, name) for name in names} | attack._asdict()
    return to_json({name: as_written(v) for name, v in fields.items()} | {"jax": jax.__version__})


def _is_finished(config: InversionConfig, attack: Attack) -> bool:
    result, _ = load_state(attack.path(config.folder))
    return result is not None and result["identity"] == _identity(config, attack)


def _entry(folder: Path, attack: Attack) -> dict[str, Any]:
    """The entry of a finished attack in the summary."""
    result, _ = load_state(attack.path(folder))
    return {
        "network": attack.network,
        "compressor": attack.compressor.label(),
        "method": attack.compressor.method,
        "rank": attack.compressor.rank,
        "bits": attack.compressor.bits,
        "adversary": attack.adversary,
        **_statistics(result["ssim"]),
        "cost": np.asarray(result["cost"]).tolist(),
        "as": result["as"],
        "seconds": round(result["seconds"], 2),
    }


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """Structural similarities, with mean and standard deviation over images."""
    return {
        "ssim": np.asarray(values).tolist(),
        "ssim_mean": float(np.mean(values)),
        "ssim_std": float(np.std(values)),
    }
