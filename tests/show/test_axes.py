"""Functions that draw take axes and hand them back, with the numbers that they were given."""

from functools import partial

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from jaxqring import show
from jaxqring.show._style import STYLE, page, save
from jaxqring.sweeps import Table

STEPS = range(1, 31)


def lines_of(**runs):
    """Metrics of runs, by the factor that makes their loss."""
    return [
        {
            "run": run,
            "step": step,
            "loss": factor / step,
            "test_accuracy": 1 - factor / (9 + step),
            "replica_agreement": 1.0 if run != "noisy" else 0.5,
            "replica_drift": 0.0 if run != "noisy" else 0.1,
        }
        for run, factor in runs.items()
        for step in STEPS
    ]


LINES = lines_of(classical=1.001, ideal=1.0, noisy=3.0, protected=1.0)
TABLE = Table(
    {
        "fidelity": np.repeat([0.9, 0.99], 4),
        "bits": np.tile([8, 8, 16, 16], 2),
        "seed": np.tile([0, 1], 4),
        "accuracy": np.arange(8) / 8,
    },
    ["fidelity", "bits"],
    ["seed"],
)


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.mark.parametrize("draw", [show.loss, show.accuracy, show.agreement, show.drift])
def test_a_curve_for_each_run_is_drawn_on_the_axes_given(draw, ax):
    before = pyplot.get_fignums()
    assert draw(LINES, ax) is ax
    assert len(ax.lines) == 4
    assert pyplot.get_fignums() == before


def test_curves_have_the_numbers_of_the_lines(ax):
    show.accuracy(LINES, ax)
    for line, factor in zip(ax.lines, (1.001, 1, 3, 1), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), STEPS)
        np.testing.assert_allclose(line.get_ydata(), 1 - factor / (9 + np.array(STEPS)))


def test_curves_that_lie_on_each_other_are_all_seen(ax):
    show.accuracy(LINES, ax)
    classical, ideal, noisy, protected = (line.get_linewidth() for line in ax.lines)
    assert classical > ideal > protected == noisy
    # Said of those alone that are equal to the last digit.
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["classical", "ideal", "noisy", "protected: as ideal"]


def test_traffic_has_bits_in_outline_beside_qubits(ax):
    counts = [("classical", 3e6, 0), ("ring", 2e6, 1e6)]
    names = ("name", "online_bits_per_link_step", "online_qubits_per_link_step")
    runs = [dict(zip(names, count, strict=True)) for count in counts]
    assert show.traffic({"runs": runs}, ax) is ax
    assert [bar.get_width() for bar in ax.patches] == [3, 2, 1]
    assert [bar.get_facecolor()[3] for bar in ax.patches] == [0, 0, 1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["classical", "ring"]


def test_a_sweep_shows_means_over_seeds_for_each_setting_of_the_others(ax):
    assert show.sweep(TABLE, "fidelity", ax=ax) is ax
    for line, first in zip(ax.lines, (0, 2), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [0.1, 0.01])
        np.testing.assert_allclose(line.get_ydata(), (np.array([0, 4]) + first + 0.5) / 8)
    for draw in (show.sweep, show.heat_map):
        with pytest.raises(ValueError, match="`table` must have the entry 'fidelty', but got"):
            draw(TABLE, "fidelity", "fidelty", ax=ax)


def test_a_heat_map_has_the_means_in_its_cells(ax):
    assert show.heat_map(TABLE, "fidelity", "bits", ax=ax) is ax
    means = TABLE["accuracy"].reshape(2, 2, 2).mean(axis=-1)
    np.testing.assert_allclose(ax.images[0].get_array(), means.T)


def test_derivatives_of_what_is_not_there_are_refused(ax):
    names = {"estimator": "mean", "outcome": "loss", "parameter": "fidelity", "link": -1}
    numbers = dict.fromkeys(("value", "derivative", "low", "high"), 0.5)
    table = {name: np.array([value]) for name, value in (names | numbers).items()}
    with pytest.raises(ValueError, match="`parameter` must be one of 'fidelity'"):
        show.sensitivity(table, "dephasing", ax=ax)
    with pytest.raises(ValueError, match="`outcome` must be one of 'loss'"):
        show.sensitivity(table, "fidelity", "accuracy", ax=ax)
    with pytest.raises(ValueError, match="`confidence` must"):
        show.sensitivity(table, "fidelity", ax=ax, confidence=90)


def test_intervals_are_those_of_the_confidence_given(ax):
    names = {"estimator": "mean", "outcome": "loss", "parameter": "fidelity", "link": -1}
    names |= dict.fromkeys(("value", "derivative", "low", "high"), 0.5)
    table = {name: np.array([value]) for name, value in names.items()}
    show.sensitivity(table, "fidelity", ax=ax)
    assert ax.get_legend().get_title().get_text() == "95% intervals"
    show.sensitivity(table, "fidelity", ax=ax, confidence=0.995)
    assert ax.get_legend().get_title().get_text() == "99.5% intervals"


@pytest.mark.parametrize(
    ("draw", "given", "words"),
    [
        (show.loss, [], "`lines` must hold lines of metrics"),
        (show.loss, "metrics.jsonl", "`lines` must hold lines of metrics"),
        (show.agreement, [{"run": "ideal", "step": 1}], "have the entry 'replica_agreement'"),
        (show.traffic, {"runs": []}, "`summary` must hold a run"),
        (show.traffic, LINES, "`summary` must have the entry 'runs'"),
        (show.compression, {"runs": []}, "`summary` must have the entry 'config'"),
        (show.net_rate, {}, "`results` must have the entry 'curve_infidelity'"),
        (show.hardware, {"codes": []}, "`results` must have the entry 'config'"),
        (show.epsilon, None, "`curves` must be a SecurityCurves, but got None"),
        (show.copies, None, "`curves` must be a SecurityCurves, but got None"),
        (partial(show.methods, "fidelity"), [], "`curves` must hold a curve"),
        (
            partial(show.similarity, network="mlp"),
            {"config": {}, "attacks": [{"network": "cnn"}]},
            "`network` must be one of 'cnn'",
        ),
        (
            partial(show.liars, split="sorted"),
            {"config": {}, "results": [{"split": "iid"}]},
            "`split` must be one of 'iid', but got 'sorted'",
        ),
        (
            partial(show.sweep, parameter="bits"),
            {name: column[:0] for name, column in TABLE.items()},
            "`table` must have a row",
        ),
        (
            partial(show.sweep, parameter="bits"),
            {**TABLE, "bits": np.array(["few", "many"] * 4)},
            "`table` must have parameters that are numbers, but got 'bits = few'",
        ),
        (partial(show.sensitivity, parameter="bits"), TABLE, "`table` must have the entry"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(draw, given, words, ax):
    with pytest.raises((ValueError, TypeError), match=words):
        draw(given, ax=ax)


@pytest.mark.parametrize("make", [pyplot.subplots, lambda: "axes"])
def test_what_is_no_axes_is_refused(make):
    with pytest.raises(TypeError, match="`ax` must be an Axes, but got"):
        show.loss(LINES, make())
    pyplot.close("all")


def test_losses_that_a_logarithmic_axis_has_no_place_for_are_left_out(ax):
    steps = [{**line, "loss": 0.0 if line["step"] > 10 else line["loss"]} for line in LINES]
    show.loss(steps, ax)
    assert [len(line.get_xdata()) for line in ax.lines] == [1] * 4


def test_new_axes_have_the_style_of_the_library_and_leave_that_of_others():
    before = dict(matplotlib.rcParams)
    axes = show.agreement(LINES)
    assert not axes.spines["top"].get_visible()
    assert axes.xaxis.label.get_fontsize() == STYLE["font.size"]
    assert dict(matplotlib.rcParams) == before
    pyplot.close(axes.figure)


def test_the_same_figure_is_the_same_bytes_in_both_formats(tmp_path):
    found = []
    for name in ("first", "second"):
        with page(3, 2) as figure:
            show.drift(LINES, figure.subplots())
            path = save(figure, tmp_path / f"{name}.png")
        found.append([path.read_bytes(), path.with_suffix(".svg").read_bytes()])
    assert found[0] == found[1]
    assert found[0][1].startswith(b"<?xml")
