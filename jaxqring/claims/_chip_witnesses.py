"""Second witnesses of fixed chips: data and program written out as one register."""

import itertools
import math

import numpy as np


def turned_by_program(theta: float, qubits: int) -> tuple[float, float]:
    """The chance that a chip turns its data by theta, and the largest infidelity of its data then.

    Data in a generic state and k program qubits in a register of 2^(k + 1) amplitudes; a CNOT from
    the data to each program qubit in turn, which is read, until one reads 0. All readings are
    followed.
    """
    data = np.array([0.6, 0.8j])
    state = data
    for j in range(qubits):
        state = np.kron(state, [1, np.exp(1j * 2**j * theta)]) / math.sqrt(2)
    state = state.reshape((2,) * (qubits + 1))
    wanted = data * [1, np.exp(1j * theta)]
    success, error = 0.0, 0.0
    for used in range(1, qubits + 1):
        # The program qubits before this one have read 1, and those behind it stay as they are.
        branch = state
        for j in range(1, used + 1):
            flipped = branch.copy()
            flipped[1] = np.flip(branch[1], axis=j - 1)  # CNOT: where the data is 1
            reads = [slice(None)] * (qubits + 1)
            reads[j] = slice(0, 1) if j < used else slice(1, 2)
            flipped[tuple(reads)] = 0
            branch = flipped
        rest = branch.reshape(2, -1)
        success += float(np.sum(np.abs(rest) ** 2))
        overlap = float(np.sum(np.abs(wanted.conj() @ rest) ** 2))
        error = max(error, 1 - overlap / float(np.sum(np.abs(rest) ** 2)))
    return success, error


def holevo_of_programs(qubits: int) -> float:
    """Entropy in bits of the mean of programs of all angles: density matrices added up."""
    angles = 2 * np.pi * np.arange(2**qubits * 4) / (2**qubits * 4)
    mean = np.zeros((2**qubits, 2**qubits), complex)
    for theta in angles:
        state = np.ones(1)
        for j in range(qubits):
            state = np.kron(state, [1, np.exp(1j * 2**j * theta)]) / math.sqrt(2)
        mean += np.outer(state, state.conj()) / len(angles)
    values = np.linalg.eigvalsh(mean)
    values = values[values > 1e-15]
    return float(-np.sum(values * np.log2(values)))


def bits_read(qubits: int, angles: int) -> float:
    """Mutual information of a uniform angle and the outcome of an inverse Fourier transform."""
    size = 2**qubits
    thetas = 2 * np.pi * (np.arange(angles) + 0.5) / angles
    transform = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(size)) / size) / size
    chances = np.abs(transform @ np.exp(1j * np.outer(np.arange(size), thetas))) ** 2
    mean = chances.mean(axis=1, keepdims=True)
    return float(np.sum(chances * np.log2(np.maximum(chances, 1e-300) / mean)) / angles)


def copies_to_read(size: int, error: float, draws: int, seed: int) -> float:
    """Copies of a state of `size` amplitudes that are read to `error` in the l2 norm.

    Magnitudes from counts of outcomes, and signs given away, which only helps the state. The mean
    square of the error falls as one over the copies; its product with them is drawn once.
    """
    rng = np.random.default_rng(seed)
    copies = round(size / error**2)
    squares = []
    for _ in range(draws):
        state = np.abs(rng.normal(size=size))
        state /= np.linalg.norm(state)
        read = np.sqrt(rng.multinomial(copies, state**2 / np.sum(state**2)) / copies)
        squares.append(np.sum((read - state) ** 2))
    return float(copies * np.mean(squares) / error**2)


def message_bits(size: int, error: float) -> int:
    """Bits of `size` numbers in [-1, 1] rounded to `error` in the l2 norm.

    2^bits cells of [-1, 1], each read as its middle.
    """
    enough = (
        bits for bits in itertools.count(1) if math.sqrt(size) * 2.0**-bits <= error * (1 + 1e-12)
    )
    return size * next(enough)
