"""Nodes leave and join: who trains when, on which images, and with which memory."""

import itertools

import jax
import numpy as np
import pytest

from jaxqring.compress import DGC, LQSGD, DeMo, PowerSGD, RandomK, SignVote, TopK
from jaxqring.train import MembershipConfig, copies_lost
from jaxqring.train import _datasets as datasets
from jaxqring.train import _membership as membership
from jaxqring.train._updates import CompressedState

STEPS = 30


def listed(random):
    """A random list of changes among the numbers 0 to 8, and how many nodes there are at first."""
    nodes = first = int(random.integers(2, 8))
    before, changes = set(range(nodes)), []
    for step in sorted(random.choice(np.arange(1, STEPS), random.integers(0, 7), replace=False)):
        after = before
        while after == before or not after & before:
            after = set(random.choice(9, random.integers(2, 9), replace=False).tolist())
        changes.append(MembershipConfig(int(step), tuple(sorted(after))))
        before = after
    return changes, first


def runs(count=60):
    """Random lists of changes, as `listed`, each with the periods that come of it."""
    for seed in range(count):
        changes, first = listed(np.random.default_rng(seed))
        yield changes, first, membership.periods_of(changes, first, STEPS)


def numbered(count):
    """A data set whose images are their own numbers."""
    images = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    return datasets.Dataset(images, np.arange(count, dtype=np.int32), images[:1], np.zeros(1, int))


def run_of(*nodes, length=3):
    """The periods of a run, equally long."""
    return [membership.Period(length * i, length * (i + 1), n) for i, n in enumerate(nodes)]


# --- Steps and images -----------------------------------------------------------------------------


def test_every_step_has_the_nodes_of_the_last_change_before_it():
    for changes, first, run in runs():
        assert membership.reached(run, 0) == 0
        for step in range(STEPS):
            nodes = tuple(range(first))
            for change in changes:
                if change.step <= step:
                    nodes = change.nodes
            period = run[membership.reached(run, step + 1)]
            assert period.nodes == nodes
            assert period.first <= step < period.end


@pytest.mark.parametrize("have, per_node", [(9, 1), (17, 1), (23, 2)])
def test_images_are_dealt_as_in_a_walk_from_step_to_step(have, per_node):
    data = numbered(have)
    for _, _, run in runs():
        epoch, left, seen = -1, [], set()
        for step in range(STEPS):
            index = membership.reached(run, step + 1)
            nodes = len(run[index].nodes)
            if len(left) < nodes * per_node:
                epoch, seen = epoch + 1, set()
                left = np.random.default_rng((7, epoch)).permutation(have).tolist()
            wanted, left = left[: nodes * per_node], left[nodes * per_node :]
            before = membership.consumed(run[:index], per_node, have)
            _, labels = datasets.batches(data, step, 7, nodes, per_node, before=before)
            assert labels.shape == (nodes, per_node)
            assert labels.ravel().tolist() == wanted
            assert not seen & set(wanted)
            seen |= set(wanted)


def test_a_run_without_changes_has_the_order_of_before_there_were_any():
    data = numbered(23)
    for step in range(30):
        epoch, index = divmod(step, 23 // 6)
        order = np.random.default_rng((1, epoch)).permutation(23)
        _, labels = datasets.batches(data, step, 1, 3, 2)
        assert labels.ravel().tolist() == order[6 * index : 6 * index + 6].tolist()


def test_an_epoch_goes_on_across_a_change_and_ends_when_too_little_is_left():
    # 8 + 8 images, then 6 of the 7 that are left, then a new epoch for another 6.
    run = run_of(tuple(range(8)), tuple(range(6)), length=2)
    assert membership.consumed(run[:1], 1, 23) == (2, 0, 16)
    assert membership.consumed(run, 1, 23) == (4, 1, 6)


def test_nodes_that_join_may_be_too_many_for_the_images():
    before = membership.consumed(run_of((0, 1)), 4, 10)
    assert before == (3, 2, 8)
    with pytest.raises(ValueError, match=r"`batch_per_node` must leave at most the 10 .* 3 nodes"):
        datasets.batches(numbered(10), 3, 0, 3, 4, before=before)


# --- State ----------------------------------------------------------------------------------------


def donor(node, before, after):
    """The node that gives a row, looked for step by step backwards round a circle of 16."""
    while not (node in before and node in after):
        node = (node - 1) % 16
    return node


def test_rows_are_carried_as_one_by_one():
    random = np.random.default_rng(0)
    for _, _, run in runs():
        for before, after in itertools.pairwise(period.nodes for period in run):
            rows = random.normal(size=(len(before), 2)).astype(np.float32)
            found = membership.carried({"a": rows, "b": np.array(before)}, before, after)
            donors = [donor(node, before, after) for node in after]
            assert found["b"].tolist() == donors
            np.testing.assert_array_equal(found["a"], [rows[before.index(node)] for node in donors])


def state_of(compressor, nodes, random):
    """A state of random numbers, all three steps old."""
    params = {"w": random.normal(size=(len(nodes), 6, 5)).astype(np.float32)}
    one = compressor.init({"w": params["w"][0]})
    memory = jax.tree.map(
        lambda leaf: random.normal(size=(len(nodes), *leaf.shape)).astype(np.float32), one
    )
    return CompressedState(
        step=np.full(len(nodes), 3),
        apply_fn=None,
        params=params,
        tx=None,
        opt_state=(),
        memory=memory,
    )


@pytest.mark.parametrize("keeps", [True, False], ids=["neighbour", "fresh"])
def test_memory_is_what_nodes_that_hold_copies_of_each_other_have_left(keeps):
    """Each node has a store, in which it finds its own memory and copies of that of others."""
    compressor, random = TopK(), np.random.default_rng(0)
    params = {"w": np.zeros((6, 5), np.float32)}
    for _, first, run in runs():
        stores = {node: {} for node in range(first)}
        copies = {} if keeps else None
        for index in range(1, len(run)):
            before, after = run[index - 1].nodes, run[index].nodes
            state = state_of(compressor, before, random)  # that of the last step of the period
            for at, node in enumerate(before):
                stores[node][node] = state.memory["w"][at]
                stores[before[(at + 1) % len(before)]][node] = state.memory["w"][at]
            stores = {node: store for node, store in stores.items() if node in after}
            wanted = []
            for node in after:
                found = stores[node][node] if node in stores else np.zeros((6, 5))
                if keeps and node not in stores:
                    for store in stores.values():
                        found = store.get(node, found)
                wanted.append(found)
            # Copies of those that are there are old: newer ones come with every step.
            stores = {
                node: {of: copy for of, copy in stores.get(node, {}).items() if of not in after}
                for node in after
            }
            state, copies = membership.changed(state, copies, run, index, compressor)
            np.testing.assert_array_equal(state.memory["w"], wanted)
            if not keeps:
                assert copies is None
                continue
            left = {str(of): copy for store in stores.values() for of, copy in store.items()}
            assert set(copies) == set(left)
            for name, copy in left.items():
                np.testing.assert_array_equal(copies[name]["w"], copy)
            like = membership.fresh_copies(compressor, params, run, index)
            assert jax.tree.map(np.shape, copies) == jax.tree.map(np.shape, like)


EIGHT = tuple(range(8))
# nodes of the periods, and who holds whose memory in the last
HELD = {
    "two apart": ([EIGHT, (0, 1, 3, 4, 6, 7)], {2: 3, 5: 6}),
    "two together": ([EIGHT, (0, 1, 2, 5, 6, 7)], {4: 5}),
    "round the end": ([EIGHT, (0, 1, 2, 3, 4, 5)], {7: 0}),
    "back again": ([EIGHT, (0, 1, 3, 4, 6, 7), EIGHT], {}),
    "the holder leaves later": ([EIGHT, (0, 1, 3, 4, 6, 7), (0, 1, 4, 6, 7)], {3: 4, 5: 6}),
    "the holder leaves and comes back": ([(0, 1, 2), (0, 2), (0, 1), (0, 2)], {1: 0}),
    "nodes of new numbers": ([(0, 1, 2), (0, 1, 2, 9), (0, 1, 2)], {9: 0}),
    "the ring of that time": ([(0, 1, 2), (0, 2, 5), (0, 5)], {2: 5}),
}


@pytest.mark.parametrize("nodes, held", HELD.values(), ids=HELD)
def test_copies_are_held_by_the_next_node_that_was_there(nodes, held):
    run = run_of(*nodes)
    assert membership.holders(run, len(run) - 1) == held
    assert membership.holders(run, 0) == {}


def test_a_node_whose_holder_leaves_as_it_comes_back_begins_afresh():
    run = run_of((0, 1, 2, 3), (0, 2, 3), (0, 1, 3))
    state = state_of(TopK(), run[0].nodes, np.random.default_rng(0))
    left, copies = membership.changed(state, {}, run, 1, TopK())
    assert set(copies) == {"1"}
    back, copies = membership.changed(left, copies, run, 2, TopK())
    assert set(copies) == {"2"}
    np.testing.assert_array_equal(back.memory["w"][1], 0)


def test_eight_nodes_become_six_and_eight_again():
    run = run_of(EIGHT, (0, 1, 3, 4, 6, 7), EIGHT)
    random = np.random.default_rng(0)
    at_first = state_of(PowerSGD(), EIGHT, random)
    six, copies = membership.changed(at_first, {}, run, 1, PowerSGD())
    assert six.params["w"].shape == (6, 6, 5)
    later = state_of(PowerSGD(), run[1].nodes, random)
    eight, none = membership.changed(later, copies, run, 2, PowerSGD())
    assert none == {}
    rows = [0, 1, 1, 2, 3, 3, 4, 5]  # nodes 2 and 5 have what 1 and 4 have
    np.testing.assert_array_equal(eight.params["w"], later.params["w"][rows])
    # Factors that are older than those of the others could not be added up with them.
    np.testing.assert_array_equal(eight.memory.factors[0], later.memory.factors[0][rows])
    errors = later.memory.errors["w"][rows]
    errors[[2, 5]] = at_first.memory.errors["w"][[2, 5]]
    np.testing.assert_array_equal(eight.memory.errors["w"], errors)
    assert eight.step.tolist() == [3] * 8


def test_a_state_without_a_compressor_is_carried_whole():
    run = run_of((0, 1, 2), (0, 2, 3))
    state, copies = membership.changed({"w": np.arange(3)}, None, run, 1)
    assert copies is None
    assert state["w"].tolist() == [0, 2, 2]


@pytest.mark.parametrize("kind", [TopK, DGC, RandomK, PowerSGD, LQSGD, SignVote, DeMo])
def test_the_memory_of_a_node_is_its_own_part_and_what_all_have_alike(kind):
    memory = state_of(kind(), (0, 1), np.random.default_rng(0)).memory
    again = kind().joined(kind().own(memory), memory)
    assert jax.tree.structure(again) == jax.tree.structure(memory)
    for new, old in zip(jax.tree.leaves(again), jax.tree.leaves(memory), strict=True):
        assert new is old


# --- Costs ----------------------------------------------------------------------------------------


def test_a_copy_costs_the_bits_of_what_each_node_has_of_its_own():
    params = {"w": np.zeros((6, 5), np.float32), "b": np.zeros(5, np.float32)}
    for compressor, numbers in ((TopK(), 35), (DGC(), 70), (PowerSGD(), 35), (RandomK(), 0)):
        assert membership.copy_bits(compressor, params) == 32 * numbers


@pytest.mark.parametrize("nodes", range(2, 9))
def test_lost_copies_are_counted_over_all_choices_of_those_that_leave(nodes):
    for leaving in range(nodes + 1):
        choices = list(itertools.combinations(range(nodes), leaving))
        lost = sum(any((node + 1) % nodes in gone for node in gone) for gone in choices)
        assert copies_lost(nodes, leaving) == pytest.approx(lost / len(choices), abs=1e-12)


def test_lost_copies_are_those_that_no_node_holds():
    assert copies_lost(16, 3) == pytest.approx(0.371428571, abs=1e-9)
    everyone = tuple(range(16))
    kept = [
        len(membership.holders(run_of(everyone, tuple(sorted(set(everyone) - set(gone)))), 1))
        for gone in itertools.combinations(everyone, 3)
    ]
    assert sum(count < 3 for count in kept) / len(kept) == pytest.approx(copies_lost(16, 3))


@pytest.mark.parametrize("numbers", [(1, 0), (8, -1), (8, 9), (8, 1.5), (True, 1)])
def test_lost_copies_of_no_ring_are_refused(numbers):
    with pytest.raises(ValueError, match="must be an integer"):
        copies_lost(*numbers)
