"""The memory that a compiled program needs, and the memory that there is."""

import os
from collections.abc import Sequence
from pathlib import Path

import jax


def needed_bytes(compiled: jax.stages.Compiled) -> int | None:
    """The bytes that a program needs on each device, by XLA's count.

    Temporaries, results and arguments, less results that are written over arguments. The constants
    of a program are not among them.

    Returns:
      The bytes; None where the backend does not count.

    >>> import jax.numpy as jnp
    >>> double = jax.jit(lambda x: 2 * x).lower(jnp.zeros(100, jnp.float32)).compile()
    >>> needed_bytes(double)
    800
    """
    count = compiled.memory_analysis()
    if count is None:
        return None
    made = count.temp_size_in_bytes + count.output_size_in_bytes
    return made + count.argument_size_in_bytes - count.alias_size_in_bytes


def free_bytes(devices: Sequence[jax.Device]) -> int:
    """Half of the free bytes of each device; the other half is for what XLA does not count."""
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return (stats["bytes_limit"] - stats.get("bytes_in_use", 0)) // 2
    return _host_bytes() // (2 * len(devices))


def _host_bytes() -> int:
    """Available bytes of the host, or all of its bytes where the system does not say."""
    # Linux counts cached files, which it can drop, as in use everywhere else.
    meminfo = Path("/proc/meminfo")
    for line in meminfo.read_text().splitlines() if meminfo.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
