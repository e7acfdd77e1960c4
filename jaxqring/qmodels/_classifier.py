"""A Flax module that classifies by the expectations of a circuit of qubits."""

from typing import Literal, TypeAlias, get_args

import jax
import numpy as np
from flax import linen as nn

from jaxqring import _checks as checks
from jaxqring.qmodels._circuits import Circuit, Engine, hardware_efficient
from jaxqring.qmodels._parameter_shift import check_shots, sampled_expectations
from jaxqring.qmodels._states import check_qubits, neighbours, z_values

Readout: TypeAlias = Literal["z", "linear"]

#: The name of Flax's stream of keys for the outcomes of measurements.
SHOTS = "shots"


class QuantumClassifier(nn.Module):
    """A circuit that reads features in its angles, and scores classes by its expectations.

    The circuit is `hardware_efficient`: features times weights plus biases are the angles. With
    shots, scores are means over outcomes, and their derivative follows the parameter-shift rule
    with outcomes of its own, see `sampled_expectations`; `apply` needs a key then, as
    `rngs={"shots": key}`, and draws other outcomes for each sample.

    Attributes:
      qubits: n, at most 14.
      layers: L.
      classes: that have a score.
      readout: "z" for <Z_q> of one qubit for each class, all times one trained number, so that
        nothing classical weighs them; "linear" for a trained linear layer after <Z_q> and
        <Z_q Z_q+1> of neighbours on the ring.
      engine: "statevector" or "tensorcircuit", as for `Circuit`.
      shots: of each circuit, at most 10^6; None for exact expectations.

    Raises:
      ValueError: when it is initialised or applied: if a number is out of range, there are more
        classes than qubits with "z", or a sample does not have a multiple of n features.

    Reference: the layout of the circuit is that of Kandala et al., Nature 549, 242 (2017), with
    features written into every layer (Perez-Salinas et al., Quantum 4, 226 (2020)); the readouts
    are ours.

    >>> import jax.numpy as jnp
    >>> model = QuantumClassifier(qubits=2, layers=1, classes=2, readout="z")
    >>> params = model.init(jax.random.key(0), jnp.ones((3, 4)))
    >>> model.apply(params, jnp.ones((3, 4))).shape
    (3, 2)
    """

    qubits: int
    layers: int
    classes: int
    readout: Readout = "linear"
    engine: Engine = "statevector"
    shots: int | None = None

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Class scores (count, classes) of features (count, ...), flattened for each sample."""
        samples = features.reshape(features.shape[0], -1)
        circuit = self._circuit(samples.shape[1])
        params = self.param("circuit", circuit.init)
        angles = jax.vmap(circuit.encode, in_axes=(None, 0))(params, samples)
        values = readout_values(self.readout, self.qubits, self.classes)
        if self.shots is None:
            found = jax.vmap(lambda of_one: circuit.expectations(of_one, values))(angles)
        else:
            shots = self.shots
            keys = jax.random.split(self.make_rng(SHOTS), samples.shape[0])
            found = jax.vmap(
                lambda of_one, key: sampled_expectations(
                    circuit, of_one, values, shots=shots, key=key
                )
            )(angles, keys)
        if self.readout == "z":
            return found * self.param("scale", nn.initializers.constant(4.0), ())
        return nn.Dense(self.classes)(found)

    def _circuit(self, features: int) -> Circuit:
        """The circuit for samples of this many features, or a refusal."""
        check_qubits(self.qubits)
        checks.integer("classes", self.classes)
        checks.one_of("readout", self.readout, get_args(Readout))
        if self.shots is not None:
            check_shots(self.shots, jax.random.key(0))
        if self.readout == "z" and self.classes > self.qubits:
            rule = f'be at most the {self.qubits} qubits with readout="z"'
            checks.refuse("classes", rule, self.classes)
        if features == 0 or features % self.qubits:
            rule = f"have a multiple of {self.qubits} numbers for each sample"
            checks.refuse("features", rule, features)
        return hardware_efficient(self.qubits, self.layers, features, engine=self.engine)


def readout_values(readout: Readout, qubits: int, classes: int) -> np.ndarray:
    """The values of the observables that a readout takes.

    Args:
      readout: as for `QuantumClassifier`.
      qubits: n.
      classes: that have a score.

    Returns:
      (2^n, K) +1 or -1 by outcome: Z of the first qubits, one for each class, with "z"; Z of all
      and Z Z of neighbours on the ring with "linear".

    Raises:
      ValueError: if the qubits are out of range.

    >>> readout_values("linear", qubits=2, classes=10)[1]
    array([ 1., -1., -1.], dtype=float32)
    """
    check_qubits(qubits)
    z = z_values(qubits)
    if readout == "z":
        return z[:, :classes]
    pairs = [z[:, a] * z[:, b] for a, b in neighbours("ring", qubits)]
    return np.stack([*z.T, *pairs], axis=1)
