"""A study of methods over one parameter: its curves, what they bear, its table and its figure."""

import dataclasses
import io
import json

import jax
import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from jaxqring import Ring, superdense, werner
from jaxqring.compress import Uncompressed
from jaxqring.jobs import CompressConfig, CompressionConfig, _compression_job, run_compression
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._compression_job import Curve, CurveConfig, best, borne
from jaxqring.show import _tables as tables
from jaxqring.show._compression_figures import _looks, draw_curves
from jaxqring.train._datasets import DataConfig, load
from jaxqring.train._task import TaskConfig, training

TASK = TaskConfig(
    DataConfig("digits"), nodes=4, batch_per_node=8, steps=4, optimizer="sgd", learning_rate=0.1
)
STUDY = CompressionConfig(
    task=TASK,
    grid={"fidelity": (0.9, 1.0)},
    seeds=2,
    devices=1,
    curves=(
        CurveConfig("sgd", CompressConfig("uncompressed"), label="SGD", panels=("bare",)),
        CurveConfig(
            "sgd-protected",
            CompressConfig("uncompressed"),
            label="SGD",
            panels=("protected", "bare"),
            protection=CodeConfig("ideal"),
        ),
    ),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    config = dataclasses.replace(STUDY, out=str(tmp_path_factory.mktemp("study")))
    return config, run_compression(config)


def test_a_curve_is_the_training_at_every_value_and_seed(study):
    _, (bare, protected) = study
    ring = Ring(superdense(werner(fidelity=0.9)))
    train = jax.jit(training(TASK, Uncompressed()))
    keys = jax.random.split(jax.random.key(1), TASK.steps)
    assert bare.accuracy.shape == (2, 2)
    assert float(train(ring, keys)["accuracy"]) == pytest.approx(bare.accuracy[0, 1], abs=2e-3)
    assert (protected.accuracy[0] == protected.accuracy[1]).all()
    np.testing.assert_allclose(bare.accuracy[1], protected.accuracy[1], atol=2e-3)


def test_its_files_say_what_it_returns_and_it_goes_on(study):
    config, curves = study
    summary = json.loads((config.folder / "summary.json").read_text())
    assert [curve["name"] for curve in summary["curves"]] == ["sgd", "sgd-protected"]
    assert summary["curves"][0]["mean"] == curves[0].accuracy.mean(axis=1).tolist()
    assert (config.folder / "sgd" / "points.jsonl").exists()
    again = run_compression(config)  # from its files
    for one, other in zip(curves, again, strict=True):
        np.testing.assert_array_equal(one.accuracy, other.accuracy)


def test_its_sampler_is_that_of_the_ring_and_tells_studies_apart(study, monkeypatch):
    rings = []
    monkeypatch.setattr(
        _compression_job, "training", lambda *_: lambda ring, *_: rings.append(ring)
    )
    dense = dataclasses.replace(study[0], sampler="dense")
    for config in (study[0], dense):
        config.train(config.curves[0], {"fidelity": 0.9}, jax.random.key(0))
    assert [ring.sampler for ring in rings] == ["auto", "dense"]
    with pytest.raises(ValueError, match="`folder` must be empty or hold the same sweep"):
        run_compression(dense)


def curve(values, means, name="a"):
    return Curve(CurveConfig(name, panels=("p",)), np.array(values), np.array(means)[:, None])


def test_the_noise_that_a_curve_bears_is_interpolated_in_its_logarithm():
    # Half of the way down from 0.9 to 0.86, halfway between 1e-3 and 1e-1.
    found = borne("fidelity", curve([0.9, 0.999, 0.99999], [0.86, 0.9, 0.9]))
    assert found == pytest.approx(1 - 1e-2)
    assert borne("dephasing", curve([1e-3, 1e-1], [0.9, 0.86])) == pytest.approx(1e-2)
    # From no noise at all the way is straight.
    assert borne("dephasing", curve([0.0, 0.1], [0.9, 0.86])) == pytest.approx(0.05)
    assert borne("fidelity", curve([0.9, 1.0], [0.885, 0.9])) is None
    # It counts where the loss is first reached, whatever comes after.
    assert borne("dephasing", curve([0.0, 0.1, 0.2], [0.9, 0.8, 0.9])) == pytest.approx(0.02)
    assert best(curve([0.1, 0.2, 0.4], [0.5, 0.7, np.nan])) == (0.2, 0.7)


def test_the_tables_say_the_best_rate_or_the_noise_that_is_borne():
    curves = [curve([0.99, 0.999], [0.5, 0.9], "[b]"), curve([0.99, 0.999], [0.9, 0.9], "other")]
    for varied, words in (
        ("fidelity", ["[b]", "0.998878", "never", "2 points"]),
        ("learning_rate", ["[b]", "0.999", "0.9000", "0.99 to 0.999"]),
    ):
        shown = io.StringIO()
        Console(width=80, file=shown).print(tables.curves_table(varied, curves))
        for word in words:
            assert word in shown.getvalue(), shown.getvalue()


def test_the_figure_has_a_panel_for_each_kind_of_link(study, tmp_path):
    config, curves = study
    path = draw_curves(tmp_path, config.varied, curves)
    assert path.name == "accuracy_fidelity.png"
    assert matplotlib.image.imread(path).shape[1] > 1000
    assert draw_curves(tmp_path, "learning_rate", curves[:1]).stat().st_size > 10_000


def test_a_method_looks_alike_in_every_panel_and_like_no_other_in_it():
    def of(*labels):
        return [Curve(CurveConfig(x, label=x), np.ones(1), np.ones((1, 1))) for x in labels]

    assert _looks([of("a", "b", "c"), of("d", "b"), of("b", "c")]) == {
        "a": 0,
        "b": 1,
        "c": 2,
        "d": 0,
    }


def test_a_validation_takes_the_place_of_the_test_set_and_is_not_trained_on():
    whole = load(DataConfig("digits"))
    part = load(DataConfig("digits", validation=0.25))
    count = len(whole.train_labels)
    assert len(part.test_labels) == round(count / 4)
    assert len(part.train_labels) == count - round(count / 4)
    both = np.concatenate([part.train_images, part.test_images]).reshape(count, -1)
    order = np.lexsort(both.T)
    wanted = whole.train_images.reshape(count, -1)
    np.testing.assert_array_equal(both[order], wanted[np.lexsort(wanted.T)])
