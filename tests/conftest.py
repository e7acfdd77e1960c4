"""Eight host devices, the four mappings of a per-node function over a ring, and the lanes.

The lanes are marks: `statistics` for sampled laws and long draws, `matrix` for the same test under
further mappings, widths, types and nodes, for larger enumerations, and for whole programs. What has
neither is the default lane. `--part 3/8` keeps an eighth of what is selected, always the same one;
`--files 1/2` the tests of half of the files, which compile nothing that the others do.

Compiled programs are kept in `.cache/jax` from one run to the next, a folder for each version of
JAX and each setting of XLA. `JAX_COMPILATION_CACHE_DIR` names another folder, and
`JAX_ENABLE_COMPILATION_CACHE=false` keeps nothing; processes that tests start do as these say.

Every program that a worker has compiled stays in its memory, some megabytes each in dozens of
maps, of which Linux allows 65,530. A worker that has grown beyond `KEPT` therefore forgets them
all after the test. The aim is `AIM` at the most; what a worker came to, and the test in which it
did, is printed at the end, and one that was ever larger than `MOST` fails the run.
"""

import ctypes
import dataclasses
import functools
import gc
import hashlib
import importlib.metadata
import os
import re
import resource
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# All must be set before JAX is imported.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )
# Compiling is most of what the suite does, and no result depends on how hard the compiler tries.
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _setting = hashlib.sha256(os.environ["XLA_FLAGS"].encode()).hexdigest()[:8]
    _folder = f"{importlib.metadata.version('jax')}-{_setting}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
        Path(__file__).parent.parent / ".cache" / "jax" / _folder
    )
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh, PartitionSpec

from jaxqring.launch import initialize
from jaxqring.launch._processes import gathered

initialize()  # before a test, or a plugin of pytest, touches a device

# Bytes in memory: 1.1e9 are some 15,000 maps.
KEPT, AIM, MOST = 1.1e9, 2.5e9, 3.5e9
AXIS = "nodes"
UNCHECKED = ("pmap", "shard_map_unchecked")  # the first is made of the second
MAPPINGS = ("pmap", "shard_map_checked", "shard_map_unchecked", "vmap")


@functools.cache
def _mapped(name: str, function: Callable, size: int, shared: int) -> Callable:
    """Compiled once for each function; see `Mapping`."""

    def axes(arguments: tuple, own: Any, same: Any) -> tuple:
        return (own,) * (len(arguments) - shared) + (same,) * shared

    def per_device(*arguments: Any) -> Any:
        # shard_map leaves a leading axis of length one, which the other mappings take away.
        split = len(arguments) - shared
        own = jax.tree.map(lambda leaf: leaf[0], arguments[:split])
        return jax.tree.map(lambda leaf: leaf[None], function(*own, *arguments[split:]))

    def call(*arguments: Any) -> Any:
        in_axes = axes(arguments, 0, None)
        if name == "vmap":
            return jax.vmap(function, in_axes=in_axes, axis_name=AXIS)(*arguments)
        return jax.shard_map(
            per_device,
            mesh=mesh(size),
            in_specs=axes(arguments, PartitionSpec(AXIS), PartitionSpec()),
            out_specs=PartitionSpec(AXIS),
            check_vma=name == "shard_map_checked",
        )(*arguments)

    if name != "vmap" and jax.process_count() > 1:
        return _whole(jax.jit(call))
    if name != "pmap":
        return jax.jit(call)
    compiled: dict[Any, Callable] = {}

    def parallel(*arguments: Any) -> Any:
        # Leaf by leaf: pmap takes the tuple in_axes=(0, None) for a flat list of axes whenever
        # the arguments happen to have two leaves in all, as a dict of two and an empty Ring do.
        leaves, treedef = jax.tree.flatten(arguments)
        last = jax.tree.structure(arguments[len(arguments) - shared :]).num_leaves
        if treedef not in compiled:
            compiled[treedef] = jax.pmap(
                lambda *flat: function(*jax.tree.unflatten(treedef, flat)),
                axis_name=AXIS,
                in_axes=(0,) * (len(leaves) - last) + (None,) * last,
                devices=jax.devices()[:size],
            )
        return compiled[treedef](*leaves)

    return parallel


def _whole(run: Callable) -> Callable:
    """A function on the nodes of all processes, with results that each of them can read."""

    def call(*arguments: Any) -> Any:
        found = run(*arguments)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(found)):
            return found
        return jax.tree.map(jnp.asarray, gathered(found))

    return call


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "record what test_golden.py compares with"
    parser.addoption("--golden", action="store_true", help=about)
    about = "of the selected tests, keep those whose names fall into part K of N"
    parser.addoption("--part", metavar="K/N", help=about)
    about = "of the selected tests, keep those in files whose names fall into part K of N"
    parser.addoption("--files", metavar="K/N", help=about)


def pytest_configure(config: pytest.Config) -> None:
    for option in ("--part", "--files"):
        given = config.getoption(option)
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", given or "1/1")
        if not found or int(found[1]) > int(found[2]):
            raise pytest.UsageError(f"{option} must be K/N with 1 <= K <= N, but got {given}")
    config.pluginmanager.register(_Forgetting())


# After the marks have selected, so that what is counted as left out is of the lanes that run.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # By the name alone: a test stays in its part when others come and go.
    names: dict[str, Callable[[pytest.Item], str]] = {
        "--part": lambda item: item.nodeid,
        "--files": lambda item: item.nodeid.partition("::")[0],
    }
    for option, name_of in names.items():
        if not config.getoption(option):
            continue
        part, parts = map(int, config.getoption(option).split("/"))
        kept = [zlib.crc32(name_of(item).encode()) % parts == part - 1 for item in items]
        left_out = [item for item, keeps in zip(items, kept, strict=True) if not keeps]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item, keeps in zip(items, kept, strict=True) if keeps]


def mesh(size: int) -> Mesh:
    """`size` devices along one automatic axis: the first ones, equally many of every process.

    One process has them all where there are more processes than devices.
    """
    count = jax.process_count()
    if size < count:
        return Mesh(np.array(jax.local_devices()[:size]), (AXIS,))
    shares = [size // count + (process < size % count) for process in range(count)]
    owned = [jax.local_devices(process)[:share] for process, share in enumerate(shares)]
    return Mesh(np.concatenate(owned), (AXIS,))


def _connect() -> None:
    """Connects the processes for meshes of the usual sizes, while they keep step.

    JAX waits 30 seconds for the others when devices meet for the first time, and for ever later.
    """
    for size in (2, 3, 4, 5, 8):
        total = _mapped("shard_map_checked", lambda x: jax.lax.psum(x, AXIS), size, 0)
        jax.block_until_ready(total(np.zeros((size, 1), np.float32)))


if jax.process_count() > 1:
    _connect()


@dataclasses.dataclass(frozen=True)
class Mapping:
    """A way to run one function on all nodes.

    `mapping(function, size, shared=k)` takes arguments with a leading axis `size`, the last k
    without it, and gives every output a leading axis `size`.
    """

    name: str

    @property
    def checked(self) -> bool:
        """True if the mapping tracks which values vary over its axis."""
        return self.name == "shard_map_checked"

    def __call__(self, function: Callable, size: int, *, shared: int = 0) -> Callable:
        return _mapped(self.name, function, size, shared)


def _mappings(*further: str) -> Callable:
    """A fixture of the four mappings, the ones that are named in the lane `matrix`."""
    marked = [
        pytest.param(name, marks=[pytest.mark.matrix] if name in further else [])
        for name in MAPPINGS
    ]
    return pytest.fixture(params=marked)


# pmap is shard_map without checks inside, so what few tests leave out here is near to it.
@_mappings("shard_map_unchecked")
def every_mapping(request: pytest.FixtureRequest) -> Mapping:
    """Each of the four mappings in turn, what pmap is made of in the lane `matrix`."""
    return Mapping(request.param)


@_mappings(*UNCHECKED)
def mapping(request: pytest.FixtureRequest) -> Mapping:
    """Each of the four mappings in turn, the two unchecked ones in the lane `matrix`."""
    return Mapping(request.param)


@_mappings(*UNCHECKED, "shard_map_checked")
def vmap_first(request: pytest.FixtureRequest) -> Mapping:
    """Each of the four mappings in turn, all but the cheapest in the lane `matrix`.

    For what takes a path that other tests take under every mapping.
    """
    return Mapping(request.param)


@pytest.fixture
def vmapped() -> Mapping:
    """The cheapest mapping, for what does not depend on it."""
    return Mapping("vmap")


@pytest.fixture(scope="session")
def mapping_named() -> Callable[[str], Mapping]:
    """Any mapping by its name, for tests that compare two of them."""
    return Mapping


@pytest.fixture
def ring_mesh() -> Callable[[int], Mesh]:
    """The mesh that the mappings of a given size use."""
    return mesh


@pytest.fixture
def compiled_anew() -> Iterator[None]:
    """Switches the cache of compiled programs off, for tests of compiling and of its results."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks once whether there is one
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


def _resident() -> float:
    """Bytes of this process in memory now; zero where the system does not say."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * resource.getpagesize() if pages.exists() else 0.0


def _peak() -> float:
    """The most bytes that this process ever had in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


_largest = [0.0, ""]  # the peak of this process, and the test in which it was reached


class _Forgetting:
    """Forgets compiled programs after tests that have made many.

    A plugin, because pytest calls the hooks of a conftest for the tests below its folder alone,
    and the examples in docstrings are not.
    """

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if _peak() > _largest[0]:
            _largest[:] = _peak(), item.nodeid
        if _resident() > KEPT:
            jax.clear_caches()
            gc.collect()
            # Only Linux says how much is in memory, and glibc keeps what is freed unless told.
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)


_peaks: dict[str, list] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if hasattr(node, "workeroutput") and "peak" in node.workeroutput:
        _peaks[node.gateway.id] = node.workeroutput["peak"]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["peak"] = _largest
        return
    _peaks.setdefault("this process", _largest)
    if max(peak for peak, _ in _peaks.values()) > MOST and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"Gigabytes in memory at the most, {AIM / 1e9} being the aim:")
    for name, (peak, test) in sorted(_peaks.items()):
        if test:
            terminalreporter.write_line(f"  {name} {peak / 1e9:.2f} in {test}")
