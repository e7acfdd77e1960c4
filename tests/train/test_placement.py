"""Nodes run on the platform that JAX chooses, by the mapping that is asked for, or are refused."""

import jax
import pytest

from jaxqring.train._placement import MAPPINGS, choose_mapping, place


@pytest.mark.parametrize(
    "platform, devices, nodes, mapping",
    [
        ("gpu", 1, 8, "vmap"),
        ("tpu", 4, 8, "vmap"),
        ("gpu", 7, 8, "vmap"),
        ("gpu", 8, 8, "pmap"),
        ("gpu", 8, 3, "pmap"),
        ("gpu", 1, 1, "pmap"),
        ("cpu", 8, 8, "pmap"),
        ("cpu", 1, 1, "pmap"),
        ("cpu", 8, 2, "pmap"),
    ],
)
def test_nodes_share_an_accelerator_where_there_are_too_few(platform, devices, nodes, mapping):
    assert choose_mapping("auto", platform, devices, nodes) == mapping


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_an_explicit_mapping_is_kept_where_there_are_devices_for_it(platform, mapping):
    assert choose_mapping(mapping, platform, 8, 8) == mapping
    assert choose_mapping("vmap", platform, 1, 8) == "vmap"


@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
def test_an_explicit_mapping_never_takes_another_platform(mapping):
    words = r'`mapping` must be "auto" or "vmap" for 8 nodes on 1 device of platform gpu .* but got'
    with pytest.raises(ValueError, match=rf"{words} '{mapping}'\.$"):
        choose_mapping(mapping, "gpu", 1, 8)


@pytest.mark.parametrize("mapping", ["auto", "pmap", "shard_map"])
def test_too_few_devices_of_the_host_are_refused_with_the_remedy(mapping):
    words = r"`nodes` must be at most the 4 devices .*jax_num_cpu_devices.*, but got 8\.$"
    with pytest.raises(ValueError, match=words):
        choose_mapping(mapping, "cpu", 4, 8)


def test_an_unknown_mapping_is_refused():
    with pytest.raises(ValueError, match="`mapping` must be one of"):
        choose_mapping("xmap", "cpu", 8, 8)


@pytest.mark.parametrize("wanted", ["auto", *MAPPINGS])
def test_a_placement_names_the_platform_the_devices_and_the_mapping(wanted):
    placed = place(wanted, 3)
    assert placed.platform == jax.default_backend() == "cpu"
    assert placed.mapping == ("pmap" if wanted == "auto" else wanted)
    where = "1 device for all 3 nodes" if wanted == "vmap" else "3 devices, one for each node"
    assert str(placed) == f"platform cpu, {where}, mapping {placed.mapping}"
    count = 1 if wanted == "vmap" else 3
    assert placed.devices == tuple(jax.devices()[:count])
