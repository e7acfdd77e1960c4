"""`jaxqring robust`: trainings against plain ones, every rule by its name, resumption, figures."""

import dataclasses
import io
import json
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from refused import check_refusal
from rich.console import Console

from jaxqring import cli
from jaxqring.jobs import RobustConfig, RuleConfig, run_robust
from jaxqring.jobs import _robust_job as job
from jaxqring.jobs._robust_config import ATTACKS, AttackName, RuleName
from jaxqring.robust import Rule
from jaxqring.show._robust_figure import draw_robust
from jaxqring.show._tables import robust_tables
from jaxqring.train import DataConfig, load
from jaxqring.train._datasets import sorted_shards
from jaxqring.train._models import MLP

SMALL = RobustConfig(
    name="small",
    data=DataConfig("digits"),
    nodes=6,
    liars=1,
    batch_per_node=4,
    steps=2,
    seeds=1,
    splits=("sorted",),
    attacks=("none", "labels", "flip10"),
    rules=(RuleConfig("rings", topology="groups", size=2),),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small study that was not cut off, and its summary."""
    config = dataclasses.replace(SMALL, out=str(tmp_path_factory.mktemp("robust")))
    return config, run_robust(config)


def by_hand(attack):
    """The loss after the two steps of the study, by gradients, groups and medians written out."""
    data = load(SMALL.data)
    shards = sorted_shards(data.train_labels, 6)
    model = MLP(num_classes=10)
    first, rest = jax.random.split(jax.random.key(0))
    params = model.init(first, data.train_images[:1])["params"]
    flat, restored = ravel_pytree(params)

    def loss(flat, images, labels):
        scores = model.apply({"params": restored(flat)}, images)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    slope = jax.jit(jax.grad(loss))
    momenta = np.zeros((6, flat.size))
    for key in jax.random.split(rest, 2):
        draw, _, mean = jax.random.split(key, 3)
        places = np.asarray(jax.random.randint(draw, (6, 4), 0, shards.shape[1]))
        sent = np.empty_like(momenta)
        for node in range(6):
            at = shards[node][places[node]]
            labels = data.train_labels[at]
            if attack == "labels" and node == 5:
                labels = 9 - labels
            gradient = np.asarray(slope(flat, data.train_images[at], labels))
            momenta[node] = 0.9 * momenta[node] + 0.1 * gradient
            sent[node] = momenta[node] * (-10 if attack == "flip10" and node == 5 else 1)
        order = np.asarray(jax.random.permutation(jax.random.split(mean, 5)[0], 6))
        groups = sent[order.reshape(3, 2)].mean(axis=1)
        flat = flat - 0.5 * jnp.asarray(np.median(groups, axis=0), jnp.float32)
    return float(loss(flat, data.test_images, data.test_labels))


def test_a_training_is_that_of_gradients_groups_and_medians_written_out(whole):
    config, summary = whole
    found = np.loadtxt(config.folder / "sorted" / "rings" / "results.csv", delimiter=",", dtype=str)
    at = found[0].tolist().index("loss")
    losses = dict(zip(SMALL.attacks, found[1:, at].astype(float), strict=True))
    for attack, loss in losses.items():
        assert loss == pytest.approx(by_hand(attack), abs=1e-4), attack
    assert abs(losses["none"] - losses["labels"]) > 1e-3
    assert abs(losses["none"] - losses["flip10"]) > 1e-3
    (result,) = summary["results"]
    assert result["clipped"] == pytest.approx([2 / 3] * 3)
    assert np.shape(result["accuracy"]) == (3, 1)
    written = json.loads((config.folder / "summary.json").read_text())
    assert written == json.loads(json.dumps(summary))


def test_a_finished_study_is_not_made_again(whole, monkeypatch):
    config, summary = whole
    monkeypatch.setattr(RobustConfig, "train", lambda *_: {"loss": jnp.zeros(()) / 0})
    assert job.run_robust(config) == summary


def test_tables_and_the_figure_have_the_numbers(whole):
    config, summary = whole
    tables = robust_tables(summary)
    assert [table.title for table in tables] == [
        "small, sorted: test accuracy, one seed, by attack",
        "small, sorted: share clipped, by attack",
    ]
    assert draw_robust(config.folder, summary).is_file()
    names = [*get_args(AttackName)]
    row = {"split": "sorted", "rule": "masked rings of 3", "clipped": [1.0] * len(names)}
    result = {**row, "attacks": names, "mean": [0.123] * len(names)}
    wide = {"config": {**summary["config"], "attacks": names}, "results": [result]}
    for table in robust_tables(wide):
        shown = io.StringIO()
        Console(width=80, file=shown).print(table)
        assert "…" not in shown.getvalue()  # nothing is cut off


def test_every_rule_and_attack_has_a_name():
    assert {*ATTACKS} == {*get_args(AttackName)}
    for name in get_args(RuleName):
        rule = RuleConfig(name, name).build(1)
        assert isinstance(rule, Rule)
        rule.check(6)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"liars": 3}, ["`liars`", "less than half of the 3 vectors", "'rings'"]),
        ({"nodes": 7}, ["`group_size`", "divide"]),
        ({"splits": ()}, ["`splits`"]),
        ({"attacks": ("none", "none")}, ["`attacks`", "once"]),
        ({"attacks": ("bribe",)}, ["`attacks`", "'bribe'"]),
        ({"rules": SMALL.rules * 2}, ["`rules`", "once"]),
        ({"momentum": 1.0}, ["`momentum`"]),
        ({"learning_rate": 0.0}, ["`learning_rate`"]),
    ],
)
def test_studies_that_cannot_be_are_refused(change, words):
    check_refusal(lambda: dataclasses.replace(SMALL, **change), ValueError, words)


def test_a_rule_over_buckets_is_refused_where_half_of_them_may_lie():
    rule = RuleConfig(rule="bucketing", size=3)
    rule.check(15, 2)
    check_refusal(lambda: rule.check(10, 2), ValueError, ["`liars`", "half of the 4 vectors"])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"masks": True}, ["`rules.masks`", "groups"]),
        ({"topology": "butterfly"}, ["`rules.rule`", "clipping"]),
        ({"rule": "clipping", "tau": 0.0}, ["`tau`", "positive"]),
        ({"name": "a/b"}, ["`rules.name`"]),
        ({"parts": 7}, ["`rules.parts`", "left out", '"median"', "7"]),
        ({"size": 2}, ["`rules.size`", "left out", '"gather"']),
    ],
)
def test_rules_that_cannot_be_are_refused(options, words):
    check_refusal(lambda: RuleConfig(**options), ValueError, words)


@pytest.mark.matrix
def test_the_command_runs_every_kind_of_rule(tmp_path, capsys):
    rules = [
        'name = "a"\nrule = "gas"\nparts = 10',
        'name = "b"\nrule = "clipping"\ntopology = "butterfly"',
        'name = "c"\ntopology = "groups"\nnodes = 9\nmasks = true',
    ]
    lines = ['name = "few"', "nodes = 6", "liars = 1", "steps = 2", "seeds = 1"]
    lines += ['attacks = ["none", "alie", "huge", "scale"]', 'data = { name = "digits" }']
    text = "\n".join(lines) + "".join(f"\n[[rules]]\n{rule}" for rule in rules)
    (tmp_path / "few.toml").write_text(text)
    flags = ["--config", str(tmp_path / "few.toml"), "--out", str(tmp_path)]
    assert cli.main(["robust", *flags]) == 0
    summary = json.loads((tmp_path / "few" / "summary.json").read_text())
    assert len(summary["results"]) == 6
    assert np.isfinite([result["mean"] for result in summary["results"]]).all()
    assert "share clipped" in capsys.readouterr().out
