"""Outputs are those of the record, bit for bit; `make golden` makes a new one.

The record says what the library gave for given keys, not what is right: other tests do. It is there
for changes that must not change anything, and shows what one that should has changed.
"""

import pytest
from golden import collectives, gradients, jobs, physics, record, secure, streams

MODULES = (collectives, secure, streams, gradients, physics, jobs)
GROUPS = {name: group for module in MODULES for name, group in module.GROUPS.items()}
COMMAND = "make golden, under this version of JAX"


def groups():
    return [
        pytest.param(name, marks=[pytest.mark.matrix] if group.matrix else [], id=name)
        for name, group in GROUPS.items()
    ]


def expected_of(name):
    """The recorded entries of a group; skips where there need not be any."""
    group = GROUPS[name]
    found = record.recorded(name, group.exact)
    if found is None:
        where = record.environment(group.exact)
        why = f"no record of {name!r} for {where}"
        if not record.must_be_there(group.exact):
            pytest.skip(f"{why}; one is made by: {COMMAND}")
        pytest.fail(f"{why}: run {COMMAND}")
    return found


def assert_recorded(found, expected):
    changed = record.differences(found, expected)
    lines = "\n  ".join(changed)
    assert not changed, f"{len(changed)} of {len(expected)} outputs differ:\n  {lines}"


@pytest.mark.parametrize("name", groups())
def test_outputs_are_those_of_the_record(name, request, mapping_named):
    group = GROUPS[name]
    outputs = group.compute(mapping_named)
    found = {entry: record.digest(value) for entry, value in outputs.items()}
    if request.config.getoption("--golden", default=False):
        record.keep(name, group.exact, found)
    assert_recorded(found, expected_of(name))


@pytest.mark.matrix
@pytest.mark.parametrize("mapping", collectives.MAPPINGS)
@pytest.mark.parametrize(
    "name, module", [("collectives", collectives), ("secure collectives", secure)]
)
def test_every_mapping_gives_the_same_bits(name, module, mapping, mapping_named):
    outputs = module.under(mapping_named, mapping)
    found = {entry: record.digest(value) for entry, value in outputs.items()}
    assert_recorded(found, {entry: expected_of(name)[entry] for entry in found})


def test_a_single_bit_makes_another_entry():
    value = collectives.payload()
    before = record.digest(value)
    bits = value["large"].view("uint32")
    changed = {**value, "large": bits.at[3, 2, 1].set(bits[3, 2, 1] ^ 1).view("float32")}
    assert record.digest(changed) != before
    assert record.digest(dict(reversed(value.items()))) == before
    assert record.digest({**value, "large": value["large"].reshape(4, 6, 4)}) != before
