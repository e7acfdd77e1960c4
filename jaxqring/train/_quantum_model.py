"""The quantum model of a training: its configuration, and which data and models go together."""

import dataclasses

from jaxqring import _checks as checks
from jaxqring._fields import check_fields, no_other_keys
from jaxqring._types import ModelName
from jaxqring.qmodels import QuantumClassifier
from jaxqring.qmodels._circuits import Engine
from jaxqring.qmodels._classifier import Readout
from jaxqring.qmodels._parameter_shift import MOST_SHOTS
from jaxqring.qmodels._states import check_qubits
from jaxqring.train._datasets import DataConfig


@no_other_keys
@dataclasses.dataclass(frozen=True)
class QuantumConfig:
    """The circuit of a training with the model "quantum". See `QuantumClassifier`.

    Attributes:
      qubits: n, at most 14.
      layers: L.
      readout: "z" or "linear".
      engine: "statevector" or "tensorcircuit".
      shots: of each circuit, in every gradient; None for exact expectations. The accuracy on the
        test set is that of exact expectations in either case.

    Raises:
      ValueError: if a number is out of range, or a choice unknown.
    """

    qubits: int = 8
    layers: int = 6
    readout: Readout = "linear"
    engine: Engine = "statevector"
    shots: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "quantum.")
        check_qubits(self.qubits)
        if self.shots is not None:
            checks.integer("quantum.shots", self.shots, 1, MOST_SHOTS)

    def build(self, classes: int) -> QuantumClassifier:
        """The model, with a score for each class."""
        return QuantumClassifier(
            self.qubits, self.layers, classes, self.readout, self.engine, self.shots
        )


def check_model(
    model: ModelName, quantum: QuantumConfig | None, data: DataConfig, prefix: str = ""
) -> None:
    """Refuses data that a model cannot read, and a circuit for a model that has none.

    Args:
      model: of a training.
      quantum: its circuit, or None for the default one.
      data: the images.
      prefix: of the names in refusals.

    Raises:
      ValueError: if a quantum model does not have a multiple of n features, a CNN has features
        in place of images, or a circuit is given to a model without one.
    """
    if model == "quantum":
        qubits = (quantum or QuantumConfig()).qubits
        if data.features == 0 or data.features % qubits:
            rule = f'be a multiple of the {qubits} qubits of model = "quantum"'
            checks.refuse(f"{prefix}data.features", rule, data.features)
    elif quantum is not None:
        checks.refuse(f"{prefix}quantum", 'be left out unless model = "quantum"', quantum)
    if model == "cnn" and data.features:
        checks.refuse(f"{prefix}data.features", 'be 0 with model = "cnn"', data.features)
