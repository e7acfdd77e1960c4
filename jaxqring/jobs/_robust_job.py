"""`jaxqring robust`: trainings by attack and rule; resumable."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxqring import _checks as checks
from jaxqring._fields import as_written, check_fields, check_file_name, no_other_keys
from jaxqring._files import to_json, write_whole
from jaxqring._types import Key, PyTree, Split
from jaxqring.codec import FixedPoint
from jaxqring.compress._codes import check_decay
from jaxqring.jobs._devices import used_devices
from jaxqring.jobs._robust_config import ATTACKS, AttackName, RuleConfig
from jaxqring.physics.ghz import GHZSource
from jaxqring.ring import Ring
from jaxqring.robust import attacked, flipped_labels, robust_pmean, worker_momentum
from jaxqring.secure import Security
from jaxqring.sweeps._sweep import sweep
from jaxqring.train import _datasets as datasets
from jaxqring.train._datasets import DataConfig
from jaxqring.train._objective import cross_entropy, initial_params, model_for

if TYPE_CHECKING:
    from rich.console import Console


@no_other_keys
@dataclasses.dataclass(frozen=True)
class RobustConfig:
    """Trainings of the packaged MLP among liars, by attack, rule and split of the images.

    Every node keeps a momentum of its gradients and sends that; liars send lies, and the update is
    the learning rate times the aggregate. Links have no errors; numbers travel on a FixedPoint
    wire.

    Attributes:
      name: of the study; results go to `<out>/<name>/`.
      out: folder of all results.
      data: the images.
      nodes: N.
      liars: f, the last of the nodes.
      batch_per_node: images of a node in a step, drawn with replacement.
      steps: updates of a training.
      learning_rate: of all steps.
      momentum: of the workers, in [0, 1): m <- momentum m + (1 - momentum) g.
      bits: of a number on the wire.
      seeds: trainings of each kind, with seeds counted from 0.
      devices: to spread the trainings over; all by default.
      splits: "iid" and "sorted", by which images are spread over the nodes.
      attacks: of the liars.
      rules: of the aggregation.

    Raises:
      TypeError: if a number is not real.
      ValueError: if a number is out of its domain, a choice unknown, a list empty or with an entry
        twice, or a rule cannot bear the liars.
    """

    name: str = "robust"
    out: str = "runs"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    nodes: int = 10
    liars: int = 2
    batch_per_node: int = 32
    steps: int = 250
    learning_rate: float = 0.5
    momentum: float = 0.9
    bits: int = 16
    seeds: int = 3
    devices: int | None = None
    splits: tuple[Split, ...] = ("iid", "sorted")
    attacks: tuple[AttackName, ...] = get_args(AttackName)
    rules: tuple[RuleConfig, ...] = (RuleConfig("mean", "mean"), RuleConfig())

    def __post_init__(self) -> None:
        check_fields(self)
        check_file_name("name", self.name)
        checks.within("learning_rate", self.learning_rate, 1e-9, 1e3)
        check_decay("momentum", self.momentum)
        FixedPoint(self.bits)
        for name, choices in (("splits", get_args(Split)), ("attacks", get_args(AttackName))):
            for entry in getattr(self, name):
                checks.one_of(name, entry, choices)
        names = tuple(rule.name for rule in self.rules)
        for name, entries in (("splits", self.splits), ("attacks", self.attacks), ("rules", names)):
            if not entries or len(set(entries)) < len(entries):
                checks.refuse(name, "hold at least one entry, each of them once", entries)
        for rule in self.rules:
            nodes = self.nodes_of(rule)
            checks.integer("liars", self.liars, 1, nodes - 1)
            rule.check(nodes, self.liars)
            FixedPoint(self.bits).level_bits(rule.size if rule.topology == "groups" else 1)

    @property
    def folder(self) -> Path:
        return Path(self.out) / self.name

    def nodes_of(self, rule: RuleConfig) -> int:
        """N for a rule."""
        return self.nodes if rule.nodes is None else rule.nodes

    def train(
        self, rule: RuleConfig, split: Split, attack: jax.Array, key: Key
    ) -> dict[str, jax.Array]:
        """The outcomes of a training, on one device that carries all nodes.

        Args:
          rule: of the aggregation.
          split: of the images.
          attack: () the place of the attack in `attacks`; may be traced.
          key: of the training.

        Returns:
          (): "loss" and "accuracy" on the test set, and "clipped", the share of what came in that
          the rule has clipped or left out, in the mean over the steps.
        """
        nodes = self.nodes_of(rule)
        data = datasets.load(self.data)
        images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
        shards = None
        if split == "sorted":
            shards = jnp.asarray(datasets.sorted_shards(data.train_labels, nodes))
        model, built = model_for("mlp", data), rule.build(self.liars)
        secure = (GHZSource(rule.size), Security()) if rule.masks else None
        ring = Ring(noise="off", wire=FixedPoint(self.bits), nodes_per_device=nodes)
        is_liar = jnp.arange(nodes) >= nodes - self.liars
        chosen = jnp.asarray(attack, jnp.int32)
        flips = jnp.array([name == "labels" for name in self.attacks])[chosen]

        def loss_of(params: PyTree, images: jax.Array, labels: jax.Array) -> jax.Array:
            return cross_entropy(model.apply({"params": params}, images), labels)  # type: ignore[arg-type]

        def lies_of(name: AttackName, sent: PyTree, key: Key) -> PyTree:
            lie = ATTACKS[name]
            if lie is None:
                return sent
            own = key if lie.draws else None
            return attacked(sent, None, lie, is_liar, own, nodes_per_device=nodes)[0]

        branches = [lambda sent, key, name=name: lies_of(name, sent, key) for name in self.attacks]

        def step(state: tuple, key: Key) -> tuple[tuple, jax.Array]:
            params, momenta, last = state
            draw, lie, mean = jax.random.split(key, 3)
            shape = (nodes, self.batch_per_node)
            if shards is None:
                at = jax.random.randint(draw, shape, 0, labels.shape[0])
            else:
                places = jax.random.randint(draw, shape, 0, shards.shape[1])
                at = jnp.take_along_axis(shards, places, axis=1)
            wrong = flipped_labels(labels[at], data.num_classes)
            learnt = jnp.where(flips & is_liar[:, None], wrong, labels[at])
            gradients = jax.vmap(jax.grad(loss_of), in_axes=(None, 0, 0))(
                params, images[at], learnt
            )
            momenta = worker_momentum(momenta, gradients, self.momentum)
            sent = lax.switch(chosen, branches, momenta, lie)
            # All nodes are delivered the same, and one replica stands for them.
            total, report = robust_pmean(
                sent,
                None,
                rule=built,
                topology=rule.topology,
                ring=ring,
                key=mean,
                secure=secure,
                group_size=rule.size,
                start=last,
                with_report=True,
            )
            params = jax.tree.map(lambda p, m: p - self.learning_rate * m[0], params, total)
            return (params, momenta, total), report.clipped

        first, rest = jax.random.split(key)
        params = initial_params(model, first, data)
        zeros = jax.tree.map(lambda p: jnp.zeros((nodes, *p.shape), p.dtype), params)
        keys = jax.random.split(rest, self.steps)
        (params, _, _), clipped = lax.scan(step, (params, zeros, zeros), keys)
        scores = model.apply({"params": params}, jnp.asarray(data.test_images))
        truth = jnp.asarray(data.test_labels)
        hits = jnp.argmax(scores, axis=-1) == truth  # type: ignore[arg-type]
        return {
            "loss": cross_entropy(scores, truth),  # type: ignore[arg-type]
            "accuracy": jnp.mean(hits.astype(jnp.float32)),
            "clipped": jnp.mean(clipped),
        }


class RuleResult(NamedTuple):
    """The results of a rule under one split.

    Attributes:
      rule: its name.
      split: of the images.
      accuracy: (attacks, seeds) on the test set.
      clipped: (attacks, seeds) share that the rule clipped or left out, in the mean over the steps.
    """

    rule: str
    split: Split
    accuracy: np.ndarray
    clipped: np.ndarray


def run_robust(config: RobustConfig, console: "Console | None" = None) -> dict[str, Any]:
    """Trains by every attack and rule, or goes on where an earlier call was cut off.

    Files under `config.folder`: a folder for each split and rule, as `jaxqring.sweeps.sweep` writes
    it, and `summary.json` at the end.

    Args:
      config: the study.
      console: that shows progress; None for silence.

    Returns:
      The contents of `summary.json`: the "config", and in "results" for each rule and split the
      accuracy by attack and seed, its mean and standard deviation, and the share that was clipped.

    Raises:
      ValueError: if there are fewer devices than `config.devices`, the data cannot be loaded, or
        a folder holds another study.
    """
    devices = used_devices(config.devices)
    fields = as_written(config)
    left_out = ("name", "out", "seeds", "devices", "splits", "rules")
    shared = {name: value for name, value in fields.items() if name not in left_out}
    found = []
    for split in config.splits:
        for rule in config.rules:

            def train(
                setting: dict, key: Key, rule: RuleConfig = rule, split: Split = split
            ) -> dict[str, jax.Array]:
                return config.train(rule, split, setting["attack"], key)

            if console is not None:
                console.print(f"{split}: {rule.name}", markup=False, highlight=False)
            table = sweep(
                train,
                {"attack": [float(place) for place in range(len(config.attacks))]},
                config.seeds,
                folder=config.folder / split / rule.name,
                devices=devices,
                about={**shared, "split": split, "rule": as_written(rule)},
                console=console,
            )
            shape = len(config.attacks), config.seeds
            outcomes = [table[name].reshape(shape) for name in ("accuracy", "clipped")]
            found.append(RuleResult(rule.name, split, *outcomes))
    summary = {"config": fields, "results": [_summary(config, each) for each in found]}
    write_whole(config.folder / "summary.json", (to_json(summary) + "\n").encode())
    return summary


def _summary(config: RobustConfig, result: RuleResult) -> dict[str, Any]:
    accuracy = np.asarray(result.accuracy, float)
    return {
        "rule": result.rule,
        "split": result.split,
        "attacks": list(config.attacks),
        "accuracy": accuracy.tolist(),
        "mean": accuracy.mean(axis=1).tolist(),
        "std": accuracy.std(axis=1).tolist(),
        "clipped": np.asarray(result.clipped, float).mean(axis=1).tolist(),
    }
