"""`jaxqring budget`: what it writes is what the library says, and what differences say."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxqring as jq
from jaxqring import cli
from jaxqring.jobs import BudgetConfig, run_budget
from jaxqring.jobs._budget_job import label
from jaxqring.jobs._code_config import CodeConfig
from jaxqring.jobs._load import load_config
from jaxqring.show._budget_figure import draw_budget

SMALL = dataclasses.replace(
    load_config("configs/budget.toml", BudgetConfig),
    name="small",
    size=1000,
    nodes=4,
    fidelities=(1.0, 0.99, 0.9),
    codes=(CodeConfig(n=255, k=223), CodeConfig(family="ideal")),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    config = dataclasses.replace(SMALL, out=str(tmp_path_factory.mktemp("runs")))
    return config, run_budget(config)


def test_the_file_holds_the_results_and_the_figure_is_drawn(results):
    config, found = results
    written = json.loads((config.folder / "budget.json").read_text())
    assert written == json.loads(json.dumps(found))
    assert draw_budget(config.folder, found).stat().st_size > 10_000


@pytest.mark.matrix
def test_net_rates_are_those_of_the_codes(results):
    _, found = results
    with jax.enable_x64(True):
        link = jq.superdense(jq.werner(fidelity=jnp.array(SMALL.fidelities)))
        for code, made in zip(found["codes"], SMALL.codes, strict=True):
            np.testing.assert_allclose(code["net_rates"], made.build().net_rate(link), rtol=1e-12)
        np.testing.assert_allclose(found["capacity"], link.capacity(), atol=1e-9)
    assert found["codes"][1]["net_rates"][0] == pytest.approx(2, abs=1e-12)
    assert all(np.less_equal(found["codes"][0]["curve"], np.add(found["curve_capacity"], 1e-9)))


def test_derivatives_are_slopes_of_the_budget(results):
    """Each parameter moved by a millionth either way, through hardware, link and budget afresh."""
    config, found = results
    code = config.codes[0].build()
    line = dataclasses.asdict(config.line)

    @jax.jit
    def net(at):
        link, supply = config.link_and_supply(at)
        ring = jq.Ring(link, jq.FixedPoint(config.bits), protection=code)
        return jq.economics.budget(
            ring, config.size, config.nodes, supply, **line
        ).net_bits_per_qubit

    with jax.enable_x64(True):
        at = {name: jnp.asarray(v) for name, v in config.hardware.parameters().items()}
        for name, value in at.items():
            step = abs(value) * 1e-6
            up, down = net({**at, name: value + step}), net({**at, name: value - step})
            slope = found["codes"][0]["derivatives"][name]
            assert slope == pytest.approx(float((up - down) / (2 * step)), rel=1e-4)


def test_labels_say_code_and_repetition():
    assert label(CodeConfig()) == "RS(255,223), repeated"
    assert label(CodeConfig(family="repetition", n=3, max_attempts=1)) == "copies(3)"
    assert label(CodeConfig(family="ideal", gap=0.1)) == "ideal, gap 0.1"


def test_the_shipped_configuration_loads():
    config = load_config("configs/budget.toml", BudgetConfig)
    assert len(config.codes) == 5
    assert config.hardware.t2 == 1.0


@pytest.mark.parametrize(
    "text, words",
    [
        ("[hardware]\nt1 = 1.0\nt2 = 3.0", ["`t2`", "at most 2 t1", "3.0"]),
        ("[hardware]\nlinks = 0", ["`hardware.links`", "integer of at least 1", "0"]),
        ("[hardware]\nlength = -1.0", ["`length`", "-1.0"]),
        ("[line]\nqubit_rate = 0.0", ["`line.qubit_rate`", "0.0"]),
        ("fidelities = [0.2]", ["`fidelities`", "[0.25, 1]", "0.2"]),
        ("codes = []", ["`codes`", "at least one"]),
        ("[[codes]]\ntop_symbols = 2", ["`codes`", "top_symbols = 0"]),
        ("[[codes]]\nn = 10\nk = 12", ["`n`", "above k = 12", "10"]),
        ("widgets = 3", ["unknown keys", "widgets"]),
    ],
)
def test_bad_configurations_are_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "budget.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]+\.$") as refusal:
        load_config(path, BudgetConfig)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.matrix
def test_the_command_prints_tables_and_writes_files(tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "--size", "1000", "--hardware.links", "2"]
    assert cli.main(["budget", "--config", "configs/budget.toml", *arguments]) == 0
    printed = capsys.readouterr().out
    for words in ("net bits per online qubit", "one all-reduce of 1,000", "derivative", "0.9841"):
        assert words in printed
    names = {"budget.json", "budget.png", "budget.svg"}
    assert {p.name for p in (tmp_path / "budget").iterdir()} == names
