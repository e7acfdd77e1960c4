"""Walkers against a walker written out as one qubit more, in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import physical_nodes as nodes
import pytest

import jaxqring as jq
from jaxqring.qmodels import GateList, control_ledger, plan_circuit, qft, walker_gate

close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-6)
damping = np.array([[[1, 0], [0, 0.8]], [[0, 0.6], [0, 0]]])
dephasing = np.array([np.sqrt(0.9) * nodes.I2, np.sqrt(0.1) * nodes.Z])
rotation = np.array([nodes.turn(nodes.X, 0.4)])


def walked(rho, path, control, partners, angles):
    """The walker is the last qubit; `path` is a list of Kraus operators for each hop."""
    total = int(np.log2(len(rho)))
    state = nodes.act(np.kron(rho, np.diag([1, 0])), nodes.CNOT, [control, total])
    for kraus in path:
        state = sum(nodes.act(state, k, [total]) for k in kraus)
    for partner, angle in zip(partners, angles, strict=True):
        state = nodes.act(state, nodes.phase(angle), [total, partner])
    for kraus in path[::-1]:
        state = sum(nodes.act(state, k, [total]) for k in kraus)
    state = nodes.act(state, nodes.CNOT, [control, total])
    return [nodes.without(nodes.act(state, np.diag(on), [total]), total) for on in ([1, 0], [0, 1])]


def test_a_walker_over_two_depolarizing_hops_flags_errors():
    # CNOT from |+0> is CZ between |+> and |+>, up to H on the target.
    path = jq.depolarizing(mix=jnp.full(2, 0.04))
    run = walker_gate(np.full((4, 4), 0.25), path, 0, [1])
    ideal = np.array([1, 1, 1, -1]) / 2
    close(run.unflagged, 0.924673280)
    close((ideal @ run.kept @ ideal).real, 0.958437558)
    close((ideal @ run.state @ ideal).real, 0.905073280)


@pytest.mark.parametrize(
    "control, partners, angles", [(0, [1], [np.pi]), (2, [0], [0.7]), (1, [2, 0], [0.7, -1.2])]
)
def test_a_walker_is_one_qubit_more(control, partners, angles):
    rho = nodes.random_rho(np.random.default_rng(control), 3)
    path = [damping, rotation, dephasing]
    found = walker_gate(
        rho,
        jq.Channel(jnp.stack([jq.channels.from_kraus(kraus).ptm for kraus in path])),
        control,
        partners,
        angles,
    )
    right, wrong = walked(rho, path, control, partners, angles)
    close(found.state, right + wrong)
    close(found.unflagged, np.trace(right).real)
    close(found.kept, right / np.trace(right))


def test_a_walker_without_noise_is_the_gate_and_never_flags():
    rho = nodes.random_rho(np.random.default_rng(3), 2)
    run = walker_gate(rho, jq.channels.identity(), 1, [0], 0.3)
    close(run.state, nodes.act(rho, nodes.phase(0.3), [0, 1]))
    close(run.kept, run.state)
    close(run.unflagged, 1)


def test_the_flag_of_a_walker_has_a_derivative():
    rho = nodes.random_rho(np.random.default_rng(4), 2)

    def unflagged(mix):
        return walker_gate(rho, jq.depolarizing(mix=jnp.full(2, mix)), 0, [1]).unflagged

    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(unflagged))(0.1)
        step = 1e-5
        difference = (unflagged(0.1 + step) - unflagged(0.1 - step)) / (2 * step)
        np.testing.assert_allclose(slope, difference, rtol=1e-7)


def test_ledgers_count_hops_pairs_and_bits():
    triangle = GateList(3, (("cz", (0, 1)), ("cz", (0, 2)), ("cz", (1, 2))))
    plan = plan_circuit(triangle, 3, placement=(0, 1, 2), own_nodes=True)
    line = np.abs(np.subtract.outer(range(3), range(3)))
    hops = [line[plan.placement[copy.wire], copy.node] for copy in plan.copies]
    assert sum(hops) == 4  # two neighbours, and the ends
    assert control_ledger(plan, distance=line) == (0, 4, 8, 6)
    assert control_ledger(plan, plan="walker", distance=line) == (8, 0, 0, 6)
    assert control_ledger(plan) == (0, 3, 6, 6)


def test_what_is_no_path_plan_or_distance_is_refused():
    rho = np.eye(4) / 4
    with pytest.raises(TypeError, match="`path` must be a Channel"):
        walker_gate(rho, 0.1, 0, [1])
    with pytest.raises(ValueError, match="`path` must have one batch axis at most"):
        walker_gate(rho, jq.depolarizing(mix=jnp.zeros((2, 2))), 0, [1])
    plan = plan_circuit(qft(2), 2)
    with pytest.raises(ValueError, match="`plan` must be one of 'ebit', 'walker'"):
        control_ledger(plan, plan="bus")
    with pytest.raises(ValueError, match=r"`distance` must be \(2, 2\) integers, positive"):
        control_ledger(plan, distance=np.zeros((2, 2), int))
    with pytest.raises(TypeError, match="`circuit_plan` must be a CircuitPlan"):
        control_ledger(qft(2))
