"""The frame of outer loops: collectives are skipped between rounds, and bad calls are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from refused import check_refusal

import jaxqring as jq
from jaxqring import Ring, all_reduce
from jaxqring.outer import diloco, exact, in_pairs, local_sgd, over_ring

AXIS, NODES = "nodes", 4
INNER = optax.sgd(0.5)
OFF = over_ring(Ring(noise="off"), AXIS)


# --- Between rounds -------------------------------------------------------------------------------


@pytest.fixture
def entered(monkeypatch):
    """A count of how often nodes enter the average while a program runs."""
    calls = []
    plain = exact(AXIS)

    def mean(tree, memory, key):
        jax.debug.callback(lambda: calls.append(1))
        return plain.mean(tree, memory, key)

    return plain._replace(mean=mean), calls


def test_a_collective_is_skipped_between_rounds(every_mapping, entered):
    average, calls = entered
    loop = local_sgd(INNER, average, every=3)

    def node(params, state, step):
        return loop.update(params, state, params, step=step)

    params = np.ones((NODES, 2), np.float32)
    state = jax.vmap(loop.init)(params)
    run = every_mapping(node, NODES, shared=1)
    for step in range(7):
        params, state = run(params, state, step)
        jax.block_until_ready(params)
        jax.effects_barrier()
        # One call for each node of this process; under vmap one program is all nodes.
        times = 1 if every_mapping.name == "vmap" else NODES // jax.process_count()
        assert len(calls) == (step + 1) // 3 * times
    assert np.asarray(state.rounds).tolist() == [2] * NODES


# --- Types and arguments --------------------------------------------------------------------------


def test_slow_parameters_keep_what_narrow_ones_lose(vmapped):
    # One step is a sixteenth of the distance of two numbers near one in bfloat16.
    loop = local_sgd(optax.sgd(1.0), exact(AXIS), every=1)
    params = {"w": jnp.ones((NODES, 2), jnp.bfloat16)}
    state = jax.vmap(loop.init)(params)
    assert state.slow["w"].dtype == jnp.float32
    grads = {"w": jnp.full((NODES, 2), 2.0**-11, jnp.bfloat16)}
    act = vmapped(lambda g, s, p, step: loop.update(g, s, p, step=step), NODES, shared=1)
    for step in range(16):
        params, state = act(grads, state, params, step)
    np.testing.assert_array_equal(state.slow["w"], np.full((NODES, 2), 1 - 2.0**-7))
    assert params["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(params["w"].astype(jnp.float32), state.slow["w"])


def test_parameters_and_state_may_be_donated_together():
    loop = diloco(optax.sgd(1.0), exact(AXIS), every=2)
    params = jnp.ones((NODES, 2))
    state = jax.vmap(loop.init)(params)
    act = jax.vmap(lambda p, s, step: loop.update(p, s, p, step=step), (0, 0, None), axis_name=AXIS)
    run = jax.jit(act, donate_argnums=(0, 1))
    for step in range(2):
        params, state = run(params, state, step)
    assert params.tolist() == state.slow.tolist()


def test_further_arguments_go_to_the_inner_optimizer(vmapped):
    def update(updates, state, params=None, *, scale):
        del params
        return jax.tree.map(lambda leaf: -scale * leaf, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    loop = local_sgd(inner, exact(AXIS), every=1)
    params = np.ones((NODES, 2), np.float32)
    state = jax.vmap(loop.init)(params)
    act = vmapped(lambda p, s: loop.update(p, s, p, step=0, scale=0.25), NODES)
    np.testing.assert_array_equal(act(params, state)[0], 0.75 * params)
    two = local_sgd(inner, over_ring(Ring(noise="off", nodes_per_device=2), AXIS), every=1)
    state = jax.vmap(two.init)(params.reshape(2, 2, 2))
    act = jax.vmap(lambda p, s: two.update(p, s, p, step=0, scale=0.25), axis_name=AXIS)
    check_refusal(lambda: act(params.reshape(2, 2, 2), state), ValueError, ["`extra`", "scale"])


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"every": 0}, ValueError, ["`every`", "0"]),
        ({"every": 2.0}, ValueError, ["`every`", "2.0"]),
        ({"every": True}, ValueError, ["`every`", "True"]),
        ({"learning_rate": 0.0}, ValueError, ["`learning_rate`", "0.0"]),
        ({"learning_rate": jnp.inf}, ValueError, ["`learning_rate`", "inf"]),
        ({"learning_rate": "1"}, TypeError, ["`learning_rate`", "'1'"]),
        ({"momentum": 1.0}, ValueError, ["`momentum`", "[0, 1)", "1.0"]),
        ({"momentum": -0.1}, ValueError, ["`momentum`", "-0.1"]),
        ({"fragments": 4}, ValueError, ["`fragments`", "divide `every` = 6", "4"]),
        ({"fragments": 3, "overlap": 2}, ValueError, ["`overlap`", "= 2", "2"]),
        ({"overlap": -1}, ValueError, ["`overlap`", "-1"]),
        ({"blend": 1.0}, ValueError, ["`blend`", "1.0"]),
        ({"blend": -0.5}, ValueError, ["`blend`", "-0.5"]),
        ({"delayed": 1.5}, ValueError, ["`delayed`", "1.5"]),
        ({"delayed": True, "eager": True}, ValueError, ["`eager`", "True"]),
        ({"delayed": True, "overlap": 1}, ValueError, ["`overlap`", "1"]),
        ({"eager": True, "average": lambda tree, key: tree}, ValueError, ["`average`", "axis"]),
        ({"eager": True, "fragments": 2}, ValueError, ["`fragments`", "2"]),
        ({"key": 0}, TypeError, ["`key`", "0"]),
        ({"average": 3}, TypeError, ["`average`", "3"]),
        ({"average": over_ring(Ring(), AXIS)}, TypeError, ["`key`", "None"]),
        ({"inner_tx": 3}, TypeError, ["`inner_tx`", "int"]),
        ({"inner_tx": local_sgd(INNER, OFF, every=1)}, TypeError, ["`inner_tx`", "Loop"]),
    ],
)
def test_a_loop_that_cannot_be_is_refused(options, error, words):
    options = {"inner_tx": INNER, "average": OFF, "every": 6, **options}
    inner, average = options.pop("inner_tx"), options.pop("average")
    check_refusal(lambda: diloco(inner, average, **options), error, words)


def test_an_inner_optimizer_that_averages_already_is_refused():
    params = {"w": jnp.ones(3)}
    masked = optax.masked(all_reduce(Ring(noise="off"), AXIS, key=None), {"w": True})
    compressing = jq.compress.all_reduce(jq.compress.SignVote(), Ring(noise="off"), AXIS, key=None)
    looped = optax.GradientTransformation(local_sgd(INNER, OFF, every=1).init, INNER.update)
    for inner, name in (
        (optax.chain(masked, INNER), "AllReduceState"),
        (optax.chain(compressing, INNER), "CompressState"),
        (looped, "OuterState"),
    ):
        loop = local_sgd(inner, OFF, every=2)
        check_refusal(lambda loop=loop: loop.init(params), ValueError, ["`inner_tx`", name])


def call(loop, *, step=0, grads=None, params=None, state=None, axis=AXIS, step_axis=None):
    params = jnp.ones((NODES, 2)) if params is None else params
    grads = params if grads is None else grads
    state = jax.vmap(loop.init)(params) if state is None else state

    def node(grads, state, params, step):
        return loop.update(grads, state, params, step=step)

    in_axes = (0, 0, 0, step_axis)
    return jax.vmap(node, in_axes, axis_name=axis)(grads, state, params, step)


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"step": 0.5}, TypeError, ["`step`", "0.5"]),
        ({"step": np.zeros((), np.float32)}, TypeError, ["`step`", "float32"]),
        ({"step": -1}, ValueError, ["`step`", "-1"]),
        ({"step": jnp.int32(-1)}, ValueError, ["`step`", "-1"]),
        ({"step": np.zeros(2, int)}, ValueError, ["`step`", "()", "(2,)"]),
        ({"step": np.zeros(NODES, int), "step_axis": 0}, ValueError, ["`step`", "in_axes=None"]),
        ({"axis": "others"}, ValueError, ["`axis_name`", "'nodes'"]),
        ({"grads": {"w": np.ones((NODES, 2))}}, ValueError, ["`grads`"]),
        ({"grads": np.ones((NODES, 3))}, ValueError, ["`grads`", "(3,)"]),
        ({"state": np.ones(NODES)}, TypeError, ["`state`", "OuterState"]),
    ],
)
def test_a_call_that_cannot_be_is_refused(options, error, words):
    loop = local_sgd(INNER, OFF, every=2)
    check_refusal(lambda: call(loop, **options), error, words)


def test_a_step_that_is_mapped_is_refused_behind_jit_as_well():
    loop = local_sgd(INNER, OFF, every=2)
    inside = jax.jit(lambda g, s, p, step: loop.update(g, s, p, step=step))
    params = jnp.ones((NODES, 2))
    state = jax.vmap(loop.init)(params)
    run = jax.vmap(inside, axis_name=AXIS)
    check_refusal(
        lambda: run(params, state, params, jnp.zeros(NODES, int)), ValueError, ["`step`", "mapped"]
    )


def test_under_shard_map_a_step_that_varies_and_summed_gradients_are_refused(ring_mesh):
    loop = local_sgd(INNER, OFF, every=2)
    row, same = jax.sharding.PartitionSpec(AXIS), jax.sharding.PartitionSpec()

    def run(grad_spec, step_spec, step):
        params = jnp.ones((NODES, 2))
        state = jax.vmap(loop.init)(params)

        def node(grads, state, params, step):
            at = step if step.ndim == 0 else step[0]
            return loop.update(grads, state, params, step=at)

        return jax.eval_shape(
            jax.shard_map(
                node,
                mesh=ring_mesh(NODES),
                in_specs=(grad_spec, row, row, step_spec),
                out_specs=row,
            ),
            params if grad_spec == row else params[:1],
            state,
            params,
            step,
        )

    steps = jnp.zeros(NODES, int)
    check_refusal(lambda: run(row, row, steps), ValueError, ["`step`", "varies"])
    check_refusal(lambda: run(same, same, jnp.int32(0)), ValueError, ["`grads`", "check_vma=True"])


def test_parameters_that_cannot_be_are_refused():
    loop = local_sgd(INNER, OFF, every=2)
    for params, error, words in (
        ({"n": jnp.ones(2, int)}, TypeError, ["`params['n']`", "int"]),
        ({}, ValueError, ["`params`"]),
    ):
        check_refusal(lambda params=params: loop.init(params), error, words)
    several = diloco(INNER, OFF, every=4, fragments=4)
    check_refusal(lambda: several.init({"a": jnp.ones(2)}), ValueError, ["`fragments`", "4"])
    two = local_sgd(INNER, over_ring(Ring(noise="off", nodes_per_device=2), AXIS), every=1)
    check_refusal(lambda: two.init(jnp.ones(3)), ValueError, ["`params`", "nodes_per_device", "2"])


def test_a_state_of_other_parameters_is_refused():
    loop = local_sgd(INNER, OFF, every=2)
    state = jax.vmap(loop.init)(jnp.ones((NODES, 3)))
    check_refusal(lambda: call(loop, state=state), ValueError, ["`state`", "(3,)"])


@pytest.mark.parametrize("make", [exact, in_pairs, lambda axis: over_ring(Ring(noise="off"), axis)])
def test_an_average_has_an_axis_with_a_name(make):
    check_refusal(lambda: make(None), TypeError, ["`axis_name`", "None"])
