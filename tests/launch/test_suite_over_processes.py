"""The tests of the collectives again, in several processes that carry the nodes together.

They are those of the other rooms, unchanged: `conftest.py` spreads every mapping but `vmap` over
the nodes of all processes. Bits are compared with the record of one process (`test_golden.py`) and
with `vmap` on one device (`compress/test_mappings.py` and others), reports included. Each of the
processes makes the comparisons.
"""

import functools
import os

import jax
import pytest
from launched import suite

SPREAD = "tests/launch/test_suite_over_processes.py::test_nodes_are_spread_over_all_processes"
#: Plain, noisy, protected, secure and compressed: one of each.
FEW = (
    "tests/test_golden.py::test_every_mapping_gives_the_same_bits",
    "tests/compress/test_mappings.py::test_every_mapping_gives_the_same_bits"
    "[topk-off-shard_map_checked]",
    "tests/ring/test_collectives.py::test_psum_without_noise_is_the_exact_sum_of_levels",
)
#: Files whose tests are run under `shard_map` with check_vma.
FILES = (
    "compress/test_mappings.py",
    "compress/test_derivatives.py",
    "gradients",
    "qmodels",
    "ring/test_collectives.py",
    "ring/test_derivative.py",
    "ring/test_protected.py",
    "ring/test_samplers.py",
    "ring/test_scales.py",
    "secure",
)
further = functools.partial(pytest.param, marks=pytest.mark.matrix)


def test_nodes_are_spread_over_all_processes(ring_mesh):
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    for size in (4, 5):
        assert {device.process_index for device in ring_mesh(size).devices.flat} == set(
            range(processes)
        )
    assert jax.process_count() == processes


def test_a_few_collectives_over_two_processes(tmp_path):
    suite(tmp_path, 2, "-k", "spread or shard_map_checked and not 8", SPREAD, *FEW)
