"""Hashes of outputs, and the file that keeps them.

An entry is the first 16 hexadecimal digits of the SHA-256 of an output: its structure without the
names of its fields, the types, shapes and bytes of its arrays, and its numbers. All NaN count as
one, as which of them an operation returns is left open.

Entries of groups that are `exact` keep to integers, comparisons, and sums, products, quotients and
roots that are rounded one by one; they belong to a platform, a machine architecture and a version
of JAX. Exponentials and logarithms are compiled with fused multiplications where a processor has
them, and products of matrices come from libraries that choose by the processor they find: the other
entries belong to a processor as well, by a digest of its vector extensions. No entry of the exact
groups was another one when they were compiled for AVX2 or SSE4.2 in place of AVX-512
(`--xla_cpu_max_isa`), where some of the others were.

The flags of XLA are those that `conftest.py` sets, eight host devices and optimization level 0, for
the record as for the comparison: both are runs of `test_golden.py`. With other flags fused
multiplications come in, and with them other bits.
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

FILE = Path(__file__).with_name("record.json")
#: Environments that must have a record; in others, what is not recorded is not compared.
REQUIRED = ("cpu x86_64 JAX 0.10.2", "cpu x86_64 JAX 0.12.0.1")
#: Beginnings of the names of vector extensions, as Linux tells them.
VECTORS = ("sse", "ssse", "avx", "fma", "f16c", "amx", "asimd", "sve")

Entries = dict[str, str]


class Group(NamedTuple):
    """Entries that are computed together.

    `compute(mapping_named)` gives the outputs by name, for the mappings of `conftest.py` by theirs.
    """

    compute: Callable[[Callable], dict[str, Any]]
    exact: bool
    matrix: bool = False


def environment(exact: bool) -> str:
    """The environment that an entry holds for, as the key of the record."""
    where = f"{jax.default_backend()} {platform.machine()} JAX {jax.__version__}"
    return where if exact else f"{where} processor {_processor()}"


def must_be_there(exact: bool) -> bool:
    """True if a missing record is a mistake; it is none on processors without any record."""
    where = environment(exact)
    return environment(exact=True) in REQUIRED and (exact or where in _load())


def _processor() -> str:
    """A digest of the vector extensions of the processor, as the system tells them."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    found = sorted(flag for flag in flags.split() if flag.startswith(VECTORS))
    return hashlib.sha256(" ".join(found or [platform.processor()]).encode()).hexdigest()[:8]


def digest(value: Any) -> str:
    """The entry of an output: any nest of dataclasses, tuples, dictionaries, arrays and numbers."""
    sha = hashlib.sha256()
    _feed(sha.update, value)
    return sha.hexdigest()[:16]


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    if value is None or isinstance(value, str | bool | int | float):
        update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, bytes):
        update(b"bytes %d;" % len(value) + value)
    elif isinstance(value, Mapping):
        update(b"mapping %d;" % len(value))
        for name in sorted(value):
            _feed(update, name)
            _feed(update, value[name])
    elif isinstance(value, tuple | list):
        update(b"sequence %d;" % len(value))
        for item in value:
            _feed(update, item)
    else:
        array = np.asarray(value)
        if array.dtype == object:
            raise TypeError(f"`value` must have a digest, but got {value!r}.")
        if np.issubdtype(array.dtype, np.inexact) or array.dtype.name == "bfloat16":
            array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
        update(f"{array.dtype.name} {array.shape};".encode() + array.tobytes())


def recorded(group: str, exact: bool) -> Entries | None:
    """The entries of a group here; None where there is no record of them."""
    return _load().get(environment(exact), {}).get(group)


def keep(group: str, exact: bool, entries: Entries) -> None:
    """Replaces the record of a group here, and leaves all others."""
    everything = _load()
    everything.setdefault(environment(exact), {})[group] = entries
    text = json.dumps(everything, indent=1, sort_keys=True)
    FILE.write_text(text + "\n", encoding="utf-8")


def differences(found: Entries, expected: Entries) -> list[str]:
    """The names of entries that are new, gone, or of another output."""
    new = [f"{name} (not in the record)" for name in found.keys() - expected.keys()]
    gone = [f"{name} (gone)" for name in expected.keys() - found.keys()]
    both = found.keys() & expected.keys()
    return sorted([*new, *gone, *(name for name in both if found[name] != expected[name])])


def _load() -> dict[str, dict[str, Entries]]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
