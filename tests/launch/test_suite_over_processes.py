"""The tests of the collectives again, in several processes that carry the nodes together.

They are those of the other rooms, unchanged: `conftest.py` spreads all mappings but `vmap` over the
nodes of all processes. Bits, those of reports included, are compared with the record of one process
(`test_golden.py`) and with `vmap` on one device, by each of the processes.
"""

import os

import jax
import pytest
from suites import suite

HERE = "tests/launch/test_suite_over_processes.py::test_nodes_are_spread_over_all_processes"
RECORD = "tests/test_golden.py::test_every_mapping_gives_the_same_bits"
#: Noisy, protected and secure; compressed; without noise, five nodes on two processes.
FEW = (
    HERE,
    f"{RECORD}[collectives-golden.collectives-shard_map_checked]",
    f"{RECORD}[secure collectives-golden.secure-shard_map_checked]",
    "tests/compress/test_mappings.py::test_every_mapping_gives_the_same_bits"
    "[topk-off-shard_map_checked]",
    "tests/ring/test_collectives.py::test_psum_without_noise_is_the_exact_sum_of_levels"
    "[shard_map_checked-5]",
)
#: What is selected of the tests of a room: those under `shard_map` with check_vma, and records of
#: cases each of which has a mapping of its own, two nodes on a device among them.
MANY = {
    "record": ("tests/test_golden.py", "collectives"),
    "ring": ("tests/ring", "shard_map_checked"),
    "secure": ("tests/secure", "shard_map_checked"),
    "compress": ("tests/compress", "shard_map_checked and not off"),
    "outer": ("tests/outer", "shard_map_checked"),
    "gradients": ("tests/gradients", "shard_map_checked"),
    "qmodels": ("tests/qmodels", "shard_map_checked"),
}


def test_nodes_are_spread_over_all_processes(ring_mesh):
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    assert jax.process_count() == processes
    for size in (4, 5):
        found = {device.process_index for device in ring_mesh(size).devices.flat}
        assert found == set(range(processes))


def test_a_few_collectives_give_the_same_bits_over_two_processes(tmp_path):
    suite(tmp_path, 2, *FEW)


@pytest.mark.matrix
def test_a_few_collectives_give_the_same_bits_over_four_processes(tmp_path):
    suite(tmp_path, 4, *FEW)


@pytest.mark.matrix
@pytest.mark.parametrize("room", MANY)
def test_collectives_pass_their_tests_over_two_processes(tmp_path, room):
    files, selected = MANY[room]
    suite(tmp_path, 2, HERE, files, "-k", f"over_all_processes or {selected}", seconds=1500)
