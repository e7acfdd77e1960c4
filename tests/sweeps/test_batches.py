"""Points of a batch: in step with one another, and bit for bit what they are one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import jaxprs_in_params

import jaxqring as jq
from jaxqring.jobs._load import load_config
from jaxqring.jobs._sweep_job import SweepConfig
from jaxqring.sweeps import _sweep as sweeping
from jaxqring.sweeps._points import points_of
from jaxqring.sweeps._sweep import sweep
from jaxqring.train._datasets import DataConfig

GRID = {"fidelity": [0.9, 0.97, 0.99, 0.999]}
NODES, STEPS, BATCH = 5, 6, 7
FIDELITY = load_config("configs/sweep_fidelity.toml", SweepConfig)


def small(**task):
    """The sweep of fidelities with a dense sampler and less to train."""
    task = dataclasses.replace(FIDELITY.task, **task)
    return dataclasses.replace(FIDELITY, task=task, sampler="dense")


def off_a_cpu(jaxpr):
    """The equations of a jaxpr and of those inside it, less what is for a CPU alone."""
    for equation in jaxpr.eqns:
        yield equation
        inner = list(jaxprs_in_params(equation.params))
        if platforms := equation.params.get("branches_platforms"):
            inner = [inner[platforms.index(None)]]
        for each in inner:
            yield from off_a_cpu(getattr(each, "jaxpr", each))


def test_points_seeds_nodes_and_links_of_a_dense_batch_go_in_step():
    """Steps and hops alone take turns, and no step asks the host.

    Six steps go in two blocks of three, a sum over five nodes in eight hops, and a chunk of one
    batch in one turn. A loop over links has five turns, one over points seven.
    """
    data = DataConfig("digits")
    config = small(nodes=NODES, steps=STEPS, batch_per_node=2, data=data)
    points = points_of(GRID, 2)
    traced = sweeping._trace(config.train, points, list(range(BATCH)))
    chunk = jax.make_jaxpr(sweeping._on_a_device(traced.jaxpr, BATCH))
    values, seeds = jnp.ones(BATCH), jnp.zeros(BATCH, jnp.uint32)
    equations = list(off_a_cpu(chunk([values], seeds).jaxpr))
    turns = {e.params["length"] for e in equations if e.primitive.name == "scan"}
    assert {2, 3} <= turns <= {1, 2, 3, NODES - 1, 2 * (NODES - 1)}
    names = {equation.primitive.name for equation in equations}
    assert not {n for n in names if n in ("while", "custom_vmap_call") or "callback" in n}


def elementwise(setting, key):
    """A training whose gradients take no sum, over a ring; its outcomes are exact of its bits."""
    link = jq.superdense(jq.werner(fidelity=setting["fidelity"]))
    ring = jq.Ring(link, sampler="dense")
    start = jax.random.normal(key, (4, 1200))

    def step(held, key):
        mean = jax.vmap(lambda x: jq.pmean(x, "nodes", ring=ring, key=key), axis_name="nodes")
        return held - 0.1 * mean(jnp.sin(held) + held), None

    held, _ = lax.scan(step, start, jax.random.split(key, 3))
    bits = lax.bitcast_convert_type(held, jnp.int32)
    return {"bits": lax.reduce(bits, np.int32(0), lax.bitwise_xor, (0, 1)), "most": jnp.max(held)}


def test_a_dense_batch_is_its_points_one_by_one_bit_for_bit():
    """Of a training whose arithmetic does not depend on a batch; 8 points and batches of 3."""
    alone, batch = (sweep(elementwise, GRID, 2, batch=b, devices=jax.devices()[:1]) for b in (1, 3))
    assert len(set(alone["bits"])) == 8
    for name, column in alone.items():
        np.testing.assert_array_equal(batch[name], column)


@pytest.mark.matrix
def test_a_dense_batch_of_trainings_differs_in_the_last_bits_of_its_sums_alone():
    """Sums over classes and over images may have another order in a batch."""
    train, one = small(steps=8).train, jax.devices()[:1]
    alone, batch = (sweep(train, GRID, 2, batch=b, devices=one) for b in (1, 3))
    np.testing.assert_array_equal(batch["accuracy"], alone["accuracy"])
    for name in ("loss", "soft_accuracy"):
        np.testing.assert_allclose(batch[name], alone[name], rtol=1e-5)


def counted(monkeypatch, bytes_of):
    """The batches of the programs that are compiled, of which a count of memory is made up."""
    batches, compiled = [], sweeping._compiled

    def recorded(traced, devices, chunk, batch):
        work = compiled(traced, devices, chunk, batch)
        batches.append(batch)
        return work

    monkeypatch.setattr(sweeping, "_compiled", recorded)
    monkeypatch.setattr(sweeping, "needed_bytes", lambda _: bytes_of(batches[-1]))
    return batches


def planned(batch, memory, chunk=None):
    points = points_of({"x": [float(i) for i in range(12)]}, 1)
    traced = sweeping._trace(lambda s, key: {"y": s["x"]}, points, list(range(12)))
    return sweeping._plan(traced, jax.devices()[:1], 12, chunk, batch, memory)


@pytest.mark.parametrize(
    "bytes_of, memory, chunk, compiled, chosen",
    [
        (lambda batch: 10 * batch, 75, None, [1, 7], 7),
        (lambda batch: 10 * batch, 75, 12, [1, 6], 6),
        (lambda batch: 10 * batch, 1000, None, [1, 12], 12),
        (lambda batch: 10 * batch, 19, None, [1], 1),
        (lambda batch: 10 * batch**2, 80, None, [1, 8, 4, 2], 2),
        (lambda batch: 10 if batch == 1 else 100, 80, None, [1, 8, 4, 2], 1),
        (lambda batch: None, 1, None, [1], 1),
    ],
)
def test_an_open_batch_is_what_one_point_needs_and_halved_until_it_fits(
    monkeypatch, bytes_of, memory, chunk, compiled, chosen
):
    batches = counted(monkeypatch, bytes_of)
    assert planned(None, memory, chunk).batch == chosen
    assert batches == compiled


def test_a_batch_that_is_given_is_compiled_once(monkeypatch):
    batches = counted(monkeypatch, lambda batch: 10 * batch)
    assert planned(3, 30).batch == 3
    with pytest.raises(ValueError, match="at least 30, the bytes of 3 points at once by XLA's"):
        planned(3, 29)
    sweep(lambda setting, key: {"y": setting["x"]}, {"x": [0.0, 1.0]}, 3)  # 1 on a CPU
    assert batches == [3, 3, 1]


def test_the_count_holds_arguments_results_temporaries_and_constants():
    """By hand: the 4,000 bytes that are held once, and as many to sort for each point at once."""
    held = jnp.arange(1000.0)

    def large(setting, key):
        return {"y": jnp.sort(held * setting["x"])[7]}

    points = points_of({"x": [1.0, 2.0]}, 1)
    traced = sweeping._trace(large, points, [0, 1])
    one, two = (sweeping._compiled(traced, jax.devices()[:1], 2, batch).needed for batch in (1, 2))
    assert 8000 <= one < 9000
    assert 12000 <= two < 13000
    assert sweeping._plan(traced, jax.devices()[:1], 2, 2, None, 13_000).batch == 2


def test_no_batch_is_wider_than_the_points_of_its_program(monkeypatch):
    """Six points of each static value, over four devices."""
    most, plan = [], sweeping._plan
    monkeypatch.setattr(sweeping, "_plan", lambda *at: most.append(at[2]) or plan(*at))
    grid = {"x": [0.0, 1.0, 2.0], "kind": ["a", "b"]}
    sweep(lambda s, _: {"y": s["x"]}, grid, 2, static=["kind"], devices=jax.devices()[:4])
    assert most == [2, 2]
