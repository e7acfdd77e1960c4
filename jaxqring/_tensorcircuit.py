"""TensorCircuit-NG without its side effects on the process.

A first import of it switches double precision off, sets environment variables and adds filters of
warnings; its backend is a global of all its modules. Neither outlives the functions here, whatever
is raised inside.
"""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from jaxqring._extras import needs

#: Held while the module is imported, and while its backend is another one than the caller's.
_LOCK = threading.RLock()
_VARIABLES = ("TF_FORCE_GPU_ALLOW_GROWTH", "XLA_PYTHON_CLIENT_PREALLOCATE")


def tensorcircuit_module(user: str) -> Any:
    """Imports TensorCircuit and undoes the side effects of a first import.

    Args:
      user: that needs it, for the sentence if it is missing.

    Raises:
      MissingExtraError: if it is not installed.
    """
    with _LOCK, needs("tensorcircuit", user):
        if "tensorcircuit" in sys.modules:
            import tensorcircuit

            return tensorcircuit
        # Another thread sees the global precision, and not a context of this thread.
        with ThreadPoolExecutor(1) as other:
            x64 = other.submit(lambda: jax.config.values["jax_enable_x64"]).result()
        variables = {name: os.environ.get(name) for name in _VARIABLES}
        try:
            with warnings.catch_warnings():
                import tensorcircuit
        finally:
            jax.config.update("jax_enable_x64", x64)
            for name, value in variables.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
    return tensorcircuit


@contextlib.contextmanager
def with_jax_backend(user: str) -> Iterator[Any]:
    """TensorCircuit with the backend "jax", while JAX traces; the caller's comes back on leaving.

    The backend is that of the whole process: another thread that uses TensorCircuit meanwhile,
    other than through this function, finds "jax" too. Products are of the highest precision.

    Args:
      user: as for `tensorcircuit_module`.

    Yields:
      The module.
    """
    with _LOCK:
        tc = tensorcircuit_module(user)
        before = tc.backend.name
        try:
            tc.set_backend("jax")
            with jax.default_matmul_precision("highest"):
                yield tc
        finally:
            tc.set_backend(before)
