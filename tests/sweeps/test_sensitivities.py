"""Sensitivities are the means of what the estimators say, seed by seed, with honest error bars."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxqring as jq
from jaxqring import cli
from jaxqring.jobs import SensitivityConfig, _sensitivity_job, run_sensitivity
from jaxqring.jobs._load import load_config
from jaxqring.show._sensitivity_figure import draw_sensitivity
from jaxqring.sweeps import sensitivity
from jaxqring.sweeps._sensitivity import DIFFERENCE
from jaxqring.train._datasets import DataConfig
from jaxqring.train._task import TaskConfig

NODES, VALUES = 3, 64
CODES = np.arange(NODES * VALUES).reshape(NODES, VALUES) % 13 - 3.0
JOB = SensitivityConfig(
    task=TaskConfig(
        DataConfig("digits"), nodes=2, batch_per_node=4, steps=4, optimizer="sgd", learning_rate=0.1
    ),
    links={"fidelity": (0.97, 0.99), "readout_error": (0.01,)},
    seeds=3,
)


def train(ring, keys):
    """One all-reduce: its sum, and the square of what it adds."""

    def add(x):
        return jq.psum(x, "nodes", ring=ring, key=keys[0])

    total = jax.vmap(add, axis_name="nodes")(jnp.asarray(CODES, jnp.float32))
    error = total - CODES.sum(0)
    return {"sum": jnp.sum(total), "error": jnp.mean(error**2)}


def make(at):
    link = jq.superdense(jq.werner(fidelity=at["fidelity"]))
    return jq.Ring(link, jq.FixedPoint(8, clip=31.0))


def rows(table, **where):
    """The rows of a table with these entries."""
    mine = np.logical_and.reduce([table[name] == value for name, value in where.items()])
    return {name: column[mine] for name, column in table.items()}


@pytest.fixture(scope="module")
def per_link():
    at = {"fidelity": np.array([0.98, 0.99, 0.995])}
    cost = make(at).cost(VALUES, NODES)
    return sensitivity(
        train,
        make,
        at,
        seeds=400,
        calls=1,
        estimators=["mean", "exact", "score", DIFFERENCE],
        cost=cost,
    )


def test_every_estimator_says_what_each_link_does_to_each_outcome(per_link):
    # 3 estimators beside the difference, 3 links: the sum by all, its error by those that know of
    # variances. Within five standard errors of the difference: fails with probability 1e-5.
    for outcome, names in (("sum", ("mean", "exact", "score")), ("error", ("exact", "score"))):
        truth = rows(per_link, estimator=DIFFERENCE, outcome=outcome)
        assert truth["link"].tolist() == [0, 1, 2]
        for name in names:
            found = rows(per_link, estimator=name, outcome=outcome)
            gap = np.abs(found["derivative"] - truth["derivative"])
            assert (gap < 5 * np.hypot(found["standard_error"], truth["standard_error"])).all()
        # Not by being blind: more fidelity means less error, and the bars exclude zero.
        if outcome == "error":
            assert (truth["high"] < 0).all()


def test_intervals_are_those_of_student(per_link):
    reach = stats.t.ppf(0.975, 399) * per_link["standard_error"]
    np.testing.assert_allclose(per_link["high"], per_link["derivative"] + reach)
    np.testing.assert_allclose(per_link["low"], per_link["derivative"] - reach)


def test_the_mean_at_fidelity_one_is_the_slope_of_the_chain():
    # No error is drawn, so that every seed says the same. A code v moves by 2 (2 v + 1) / 3 per
    # unit of fidelity and hop, and what is added afterwards by nothing.
    table = sensitivity(
        train, make, {"fidelity": 1.0}, seeds=2, calls=1, estimators=["mean"], mode="forward"
    )
    expected = 0.0
    chunk = -(-VALUES // NODES)
    for place in range(VALUES):
        held = np.roll(CODES[:, place], -(place // chunk)).cumsum()
        slope = sum(2 / 3 * (2 * v + 1) for v in held[:-1])
        for _ in range(NODES):  # the owner, and those that it is passed on to
            expected += slope
            slope += 2 / 3 * (2 * held[-1] + 1)
    row = rows(table, outcome="sum")
    np.testing.assert_allclose(row["derivative"], expected, rtol=1e-4)
    assert row["standard_error"] == 0
    assert row["link"] == -1


def test_forward_and_reverse_mode_agree_and_a_folder_is_gone_on_with(tmp_path):
    at = {"fidelity": 0.98}
    both = [
        sensitivity(
            train, make, at, seeds=4, calls=1, estimators=["mean"], mode=mode, folder=folder
        )
        for mode, folder in (("forward", tmp_path), ("reverse", None), ("forward", tmp_path))
    ]
    np.testing.assert_allclose(both[0]["derivative"], both[1]["derivative"], rtol=1e-4)
    for name, column in both[0].items():
        np.testing.assert_array_equal(column, both[2][name])
    with (tmp_path / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    each = [float(line["sum/fidelity"]) for line in lines]
    found = rows(both[0], outcome="sum")
    np.testing.assert_allclose(np.mean(each), found["derivative"])
    # Three degrees of freedom are left of four seeds.
    spread = np.sqrt(np.sum((each - np.mean(each)) ** 2) / 3)
    assert spread > 0
    np.testing.assert_allclose(found["standard_error"], spread / 2)
    # Whatever else an estimate depends on makes it another study.
    options = {"seeds": 4, "calls": 1, "estimators": ["mean"], "mode": "forward"}
    for change in ({"samples": 2}, {"mode": "reverse"}, {"widths": {"fidelity": 0.004}}):
        with pytest.raises(ValueError, match="`folder` must be empty or hold the same sweep"):
            sensitivity(train, make, at, folder=tmp_path, **(options | change))
    with pytest.raises(ValueError, match="`folder` must be empty or hold the same sweep"):
        sensitivity(train, make, {"fidelity": 0.9}, folder=tmp_path, **options)


def test_a_ring_is_differentiated_with_respect_to_its_pauli_errors():
    ring = make({"fidelity": 0.97})
    options = {"seeds": 64, "calls": 1, "estimators": ["mean"]}
    table = rows(sensitivity(train, ring, **options), outcome="sum")
    assert table["parameter"].tolist() == ["x_error", "y_error", "z_error"]
    np.testing.assert_allclose(table["value"], 0.01, rtol=1e-5)
    # The three together, in equal parts, are one of fidelity; the keys are the same.
    whole = rows(sensitivity(train, make, {"fidelity": 0.97}, **options), outcome="sum")
    np.testing.assert_allclose(-table["derivative"].mean(), whole["derivative"], rtol=1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seeds": 1}, "`seeds` must be at least two"),
        ({"estimators": "mean"}, "`estimators` must be a sequence"),
        ({"estimators": ["reinforce"]}, "`estimators` must be one of 'mean'"),
        ({"mode": "backward"}, "`mode` must be one of 'auto'"),
        ({"confidence": 1.0}, r"`confidence` must lie in \(0, 1\)"),
        ({"widths": {"fidelity": 0.0}}, "`widths` must be positive"),
        ({"widths": {"gamma": 0.1}}, "`widths` must be given for"),
        ({"estimators": ["score"]}, "`cost` must be a Cost"),
    ],
)
def test_what_cannot_be_done_is_refused(change, message):
    options = {"seeds": 2, "calls": 1} | change
    with pytest.raises((ValueError, TypeError), match=message):
        sensitivity(train, make, {"fidelity": 0.98}, **options)


def test_names_of_outcomes_and_parameters_may_hold_any_character(tmp_path):
    # Names that are parts of each other, that look like columns, and that are encoded already.
    outcomes = ("a", "a/b", "a[0]", "50% of a", "a%2Fb", "ä b")
    at = {"f": np.array([0.97, 0.98]), "f[0]": 0.99, "b/f": 0.96, "g%5B0]": 0.95}

    def named(ring, keys):
        found = train(ring, keys)["sum"]
        return {name: (1 + index) * found for index, name in enumerate(outcomes)}

    def one(at):
        fidelity = jnp.stack([at["f"][0], at["f"][1], at["f[0]"] * at["b/f"] * at["g%5B0]"]])
        return make({"fidelity": fidelity})

    options = {"seeds": 2, "calls": 1, "estimators": ["mean"], "folder": tmp_path}
    table = sensitivity(named, one, at, **options)
    links = [("b/f", -1), ("f", 0), ("f", 1), ("f[0]", -1), ("g%5B0]", -1)]
    values = [0.96, 0.97, 0.98, 0.99, 0.95]
    plain = rows(table, outcome="a")["derivative"]
    assert (plain != 0).all()
    for index, name in enumerate(outcomes):
        found = rows(table, outcome=name)
        pairs = zip(found["parameter"].tolist(), found["link"].tolist(), strict=True)
        assert list(pairs) == links
        np.testing.assert_allclose(found["value"], values, rtol=1e-6)
        np.testing.assert_allclose(found["derivative"], (1 + index) * plain, rtol=1e-4)
    # Read from the folder alone, the same; and ordinary names stand there as they are.
    again = sensitivity(pytest.fail, one, at, **options)
    for column, entries in table.items():
        np.testing.assert_array_equal(entries, again[column])
    header = next(csv.reader((tmp_path / "results.csv").read_text().splitlines()))
    assert {"a/f[0]", "a/f[1]", "a/b/f", "a[0]/f[1]", "ä b/f[0]"} <= set(header)
    assert len(header) == len(set(header)) == 2 + len(outcomes) * len(links)


def test_parameters_that_are_not_finite_numbers_are_refused():
    for at in (None, {}, {"fidelity": np.nan}, {"fidelity": np.ones((2, 2))}):
        with pytest.raises(ValueError, match=r"must be (a dict|finite)"):
            sensitivity(train, make, at, seeds=2, calls=1)
    with pytest.raises(ValueError, match="`parameters` must be None for a ring"):
        sensitivity(train, make({"fidelity": 0.9}), {"fidelity": 0.9}, seeds=2, calls=1)


def test_an_outcome_without_a_derivative_is_refused_not_zero():
    def judged(ring, keys):
        return {"small": (train(ring, keys)["error"] < 1).astype(jnp.float32)}

    with pytest.raises(ValueError, match='`estimator` must be "score" or "russo" for a loss'):
        sensitivity(judged, make, {"fidelity": 0.98}, seeds=2, calls=1, estimators=["mean"])


def test_the_sampler_of_a_job_is_that_of_its_ring(monkeypatch):
    about = []
    monkeypatch.setattr(
        _sensitivity_job, "sensitivity", lambda train, ring, at, **more: about.append(more["about"])
    )
    for sampler in ("auto", "dense"):
        config = dataclasses.replace(JOB, sampler=sampler)
        assert config.ring({"fidelity": 0.9}).sampler == sampler
        run_sensitivity(config)
    assert "sampler" not in about[0]
    assert about[1] == {**about[0], "sampler": "dense"}


@pytest.mark.matrix
def test_a_job_writes_a_table_and_figures(tmp_path):
    config = dataclasses.replace(JOB, out=str(tmp_path))
    table = run_sensitivity(config)
    gaussian = rows(table, estimator="gaussian", outcome="loss")
    assert gaussian["parameter"].tolist() == ["fidelity", "fidelity", "readout_error"]
    assert gaussian["link"].tolist() == [0, 1, -1]
    assert np.isfinite(table["derivative"]).all()
    assert (table["derivative"] != 0).all()
    for outcome in config.outcomes:
        assert draw_sensitivity(config.folder, table, outcome).stat().st_size > 10_000
    # Again from the folder, by the command line.
    (tmp_path / "job.toml").write_text(
        """
        seeds = 3
        links = { fidelity = [0.97, 0.99], readout_error = [0.01] }
        [task]
        nodes = 2
        batch_per_node = 4
        steps = 4
        optimizer = "sgd"
        learning_rate = 0.1
        [task.data]
        name = "digits"
        """
    )
    flags = ["--config", str(tmp_path / "job.toml"), "--out", str(tmp_path)]
    before = (config.folder / "points.jsonl").read_bytes()
    assert cli.main(["sensitivity", *flags]) == 0
    assert (config.folder / "points.jsonl").read_bytes() == before


def test_the_configuration_is_checked():
    load_config("configs/sensitivity.toml", SensitivityConfig)
    for change, message in (
        ({"links": {}}, "`links` must hold at least one parameter"),
        ({"links": {"loss": (0.1,)}}, "`links` must be one of 'fidelity'"),
        (
            {"links": {"fidelity": (0.9, 0.9, 0.9)}},
            r"`links\.fidelity` must hold one value, or one",
        ),
        ({"links": {"fidelity": (0.1,)}}, r"`links\.fidelity` must lie in \[0.25, 1\]"),
        ({"outcomes": ("accuracy",)}, "`outcomes` must be one of 'loss', 'soft_accuracy'"),
        ({"estimators": ("best",)}, "`estimators` must be one of 'mean'"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(JOB, **change)
