"""TensorCircuit's global settings, in processes of their own: they are left as they were found."""

import os
import subprocess
import sys

import pytest

CHECK = """
import os, threading
import jax, jax.numpy as jnp
import jaxqring as jq
from jaxqring.qmodels import Circuit, from_tensorcircuit

def x64():
    found = []
    thread = threading.Thread(target=lambda: found.append(jax.config.values["jax_enable_x64"]))
    thread.start(); thread.join()
    return found[0]

def settings():
    names = ("XLA_PYTHON_CLIENT_PREALLOCATE", "TF_FORCE_GPU_ALLOW_GROWTH")
    return x64(), [os.environ.get(name) for name in names]

def single(circuit):
    with jax.enable_x64(False):
        return abs(circuit.state({"layers": jnp.full((1, 1, 1), 0.3), "last": jnp.zeros((0, 1))}))

def build():
    assert abs(float(single(Circuit(1, 1, ("ry",), engine="tensorcircuit"))[0]) - 0.98877) < 1e-4

def fail():
    def layer(circuit, angles):
        raise RuntimeError("inside")
    try:
        single(from_tensorcircuit(layer, 1, 1, 1))
    except RuntimeError as error:
        assert str(error) == "inside"
    else:
        raise AssertionError("nothing was raised")
"""
STEPS = {
    "build and fail": "build(); fail()",
    "fail and build": "fail(); build()",
    "double precision for this thread alone": "\nwith jax.enable_x64(True):\n    build(); fail()",
}


def run(code, **variables):
    # Other tests of this process import TensorCircuit by themselves, and leave its variables.
    left_out = ("XLA_FLAGS", "XLA_PYTHON_CLIENT_PREALLOCATE", "TF_FORCE_GPU_ALLOW_GROWTH")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"JAX_PLATFORMS": "cpu"} | variables
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("steps", STEPS)
def test_precision_environment_and_backend_stay_as_they_were(steps):
    own = f"""
before = settings()
assert "tensorcircuit" not in __import__("sys").modules, "imported with the package"
{STEPS[steps]}
assert settings() == before, settings()
jax.config.update("jax_enable_x64", True)
{STEPS[steps]}
assert settings() == (True, before[1]), settings()
jax.config.update("jax_enable_x64", False)
import tensorcircuit as tc
assert tc.backend.name == tc.cons.backend.name == "numpy", tc.backend.name
tc.set_backend("numpy")
{STEPS[steps]}
assert tc.backend.name == tc.gates.backend.name == "numpy", tc.backend.name
assert type(tc.Circuit(1).state()).__module__ == "numpy"
"""
    run(CHECK + own)
    # The other order: what the user has set is there before the first import.
    late = f"""
jax.config.update("jax_enable_x64", True)
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
before = settings()
{STEPS[steps]}
assert settings() == before == (True, ["true", None]), settings()
"""
    run(CHECK + late)


def test_a_backend_of_the_users_own_choice_is_the_users_again():
    own = """
import tensorcircuit as tc
tc.set_backend("jax")
build(); fail()
assert tc.backend.name == "jax"
with tc.runtime_backend("numpy"):
    build()
    assert tc.backend.name == "numpy"
tc.set_dtype("complex128")
try:
    build()
except ValueError as error:
    assert "the precision of TensorCircuit" in str(error), error
else:
    raise AssertionError("nothing was raised")
assert tc.dtypestr == "complex128"
"""
    run(CHECK + own)


def test_neither_the_package_nor_its_rooms_import_tensorcircuit():
    code = """
import sys
import jaxqring
for name in jaxqring.__all__:
    getattr(jaxqring, name)
assert "tensorcircuit" not in sys.modules and "tensornetwork" not in sys.modules
"""
    run(code)
