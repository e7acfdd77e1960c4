"""The table of a sweep is a dict that prints, and comes back from xarray and Parquet."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pyarrow import parquet

import jaxqring as jq
from jaxqring.sweeps import Table, sensitivity, sweep
from jaxqring.sweeps._sensitivity import COLUMNS


def wave(setting, key):
    height = setting["x"] + jax.random.uniform(key)
    return {"height": height if setting["kind"] == "plain" else -height, "count": jnp.int32(3)}


GRID = {"x": [0.5, 0.1, 2.0], "kind": ["plain", "other"]}


@pytest.fixture(scope="module")
def table():
    return sweep(wave, GRID, seeds=[7, 3], static=["kind"])


def test_a_table_is_still_a_dict(table):
    assert isinstance(table, dict)
    assert list(table) == ["x", "kind", "seed", "count", "height"]
    doubled = jax.tree.map(lambda column: np.repeat(column, 2), table)
    assert isinstance(doubled, Table)
    assert doubled.num_rows == 2 * table.num_rows == 24
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert str(other) == str(table)
        assert other.to_xarray().identical(table.to_xarray())


def test_its_first_rows_are_shown(table):
    lines = str(table).splitlines()
    assert lines[0] == "Table of 12 rows, the first 8"
    assert lines[1].split() == list(table)
    assert lines[2].split() == ["0.5", "plain", "7", "3", f"{table['height'][0]:.6g}"]
    assert len(lines) == 10
    assert table._repr_html_().count("<tr>") == 9
    assert str(jax.tree.map(np.size, table)).startswith("{'x': 12")
    for column in ([0.5, 0.1], np.zeros(3), "x"):
        other = copy.copy(table)
        other["new"] = column
        assert str(other) == str(dict(other))
        assert other._repr_html_() is None


def test_every_point_is_where_xarray_looks_for_it(table):
    found = table.to_xarray()
    assert dict(found.sizes) == {"x": 3, "kind": 2, "seed": 2}
    for row in range(table.num_rows):
        at = {name: table[name][row] for name in ("x", "kind", "seed")}
        for name in ("height", "count"):
            assert found[name].sel(at).item() == table[name][row]
            assert found[name].dtype == table[name].dtype
    assert found["x"].values.tolist() == GRID["x"]  # in the order given


def test_settings_that_are_no_grid_share_a_dimension():
    settings = [{"x": 0.5, "kind": "plain"}, {"x": 0.1, "kind": "other"}]
    found = sweep(wave, settings, seeds=2, static=["kind"]).to_xarray()
    assert dict(found.sizes) == {"setting": 2, "seed": 2}
    assert found["x"].values.tolist() == [0.5, 0.1]
    assert found["kind"].dims == ("setting",)


def test_rows_in_any_order_and_none_at_all():
    columns = {"x": np.array([1, 0, 0, 1]), "seed": np.array([1, 1, 0, 0])}
    table = Table({**columns, "sum": columns["x"] + 2 * columns["seed"]}, ["x"], ["seed"])
    found = table.to_xarray()
    assert (found["sum"] == found["x"] + 2 * found["seed"]).all()
    empty = Table({name: column[:0] for name, column in table.items()}, ["x"], ["seed"])
    assert dict(empty.to_xarray().sizes) == {"x": 0, "seed": 0}
    assert str(empty).startswith("Table of 0 rows")
    holes = Table({name: column[:3] for name, column in table.items()}, ["x"], ["seed"])
    with pytest.raises(ValueError, match="`beside` must name columns combined with every setting"):
        holes.to_xarray()


def test_parquet_gives_every_column_back(table, tmp_path):
    path = table.to_parquet(tmp_path / "table.parquet")
    back = parquet.read_table(path)
    assert back.column_names == list(table)
    for name, column in table.items():
        read = back[name].to_numpy()
        assert read.dtype == column.dtype
        np.testing.assert_array_equal(read, column)


def test_what_other_libraries_do_not_know_is_put_in_words(tmp_path):
    columns = {"layers": np.empty(2, object), "seed": np.zeros(2)}
    columns["layers"][:] = [(8, 8), (4,)]
    columns["loss"] = np.array([0.5, 2], jnp.bfloat16)
    table = Table(columns, ["layers"], ["seed"])
    back = parquet.read_table(table.to_parquet(tmp_path / "table.parquet"))
    assert back["layers"].to_pylist() == ["(8, 8)", "(4,)"]
    assert back["loss"].to_pylist() == [0.5, 2]
    assert table.to_xarray()["loss"].values.tolist() == [[0.5], [2]]


def test_derivatives_have_dimensions_of_their_own():
    def train(ring, keys):
        errors = ring.channel.guessed().xor_probs[..., 1:].sum(axis=-1)
        return {"loss": jnp.sum(errors * jnp.arange(1.0, 4.0))}

    def make(at):

        return jq.Ring(jq.superdense(jq.werner(fidelity=at["fidelity"])))

    at = {"fidelity": jnp.array([0.7, 0.8, 0.9])}
    table = sensitivity(train, make, at, seeds=2, calls=1, estimators=["difference"])
    assert set(COLUMNS) == set(table)
    found = table.to_xarray()
    assert dict(found.sizes) == {"parameter": 1, "link": 3, "estimator": 1, "outcome": 1}
    slopes = found["derivative"].sel(parameter="fidelity").squeeze().values
    np.testing.assert_allclose(slopes, [-1, -2, -3], rtol=1e-3)
