"""The cost of the two-party model: copies, rounds, qubits, pairs and bits, from shapes alone.

Alice prepares n qubits, and L layers of Bob's and then Alice's unitary follow: 2L hops, after which
Alice reads a Pauli. A derivative is read from a longer run: an ancilla of Alice's controls the
Pauli at the end, and the register goes back until the segment s = 1..2L of its gate (Bob's first
unitary is 1, Alice's last one 2L), which makes 4L - s hops. The ancilla stays at home.
"""

import dataclasses
import math
from typing import Literal, TypeAlias, get_args

from jaxqring import _checks as checks

#: The loss, or one of four estimates of its gradient.
PartyMethod: TypeAlias = Literal["loss", "shift", "ancilla", "shadows", "bell"]
#: The way across a hop: the qubits themselves, or an EPR pair and two bits for each.
PartyHop: TypeAlias = Literal["qubits", "teleported"]


@dataclasses.dataclass(frozen=True)
class PartyCost:
    """The traffic of one estimate between two parties.

    Outcomes that one party announces to the other, a bit for each copy at the most, are not
    counted.

    Attributes:
      copies: preparations of Alice's state.
      rounds: hops one after the other, if all copies travel side by side.
      qubits: that cross a hop, sent or teleported.
      pairs: EPR pairs used up, one for each teleported qubit.
      bits: classical bits of the teleportations, two for each.
    """

    copies: int
    rounds: int
    qubits: int
    pairs: int
    bits: int


def shots_for(
    epsilon: float,
    delta: float,
    parameters: int = 1,
    *,
    method: PartyMethod = "ancilla",
    weight: int = 2,
) -> int:
    """Computes how many shots estimate all parameters to within an error, by a proven bound.

    Args:
      epsilon: largest error of any of the estimates (the max norm), in (0, 1).
      delta: probability that one of them is off by more, in (0, 1).
      parameters: M, the number of estimates, all of them together.
      method: "loss", "ancilla": outcomes +-1, by Hoeffding's bound 2 ln(2M/delta) / epsilon^2;
        "shift": half as many on each side, as half the difference of two means of m outcomes is a
        mean of 2m; "shadows": Bernstein's bound with the variance 3^w of outcomes +-3^w, so that
        a plain mean does and no median of means is needed; "bell": pairs of copies that estimate
        the squares to epsilon^2, which leaves the signs open.
      weight: w of "shadows", the most qubits read in a random basis that a string acts on: the
        weight of the generator, and one for the ancilla, unless that is read along Y always.

    Returns:
      Runs ("loss"), runs on each side ("shift"), copies for each group ("ancilla", "shadows") or
      pairs of copies ("bell").

    Raises:
      TypeError: if a number is not real.
      ValueError: if an argument is out of range, or the method is unknown.

    Reference: Hoeffding, J. Am. Stat. Assoc. 58, 13 (1963); Huang, Kueng and Preskill, Nat. Phys.
    16, 1050 (2020), for the variance of shadows, and Phys. Rev. Lett. 126, 190505 (2021), for Bell
    pairs. The constants follow from the bounds; they are our derivation.

    >>> shots_for(0.1, 0.05), shots_for(0.01, 0.05), shots_for(0.1, 0.05, 160)
    (738, 73778, 1753)
    >>> [shots_for(0.1, 0.05, 160, method=m) for m in ("shift", "shadows", "bell")]
    [877, 16360, 175282]
    """
    epsilon = checks.open_interval("epsilon", epsilon)
    delta = checks.open_interval("delta", delta)
    checks.one_of("method", method, get_args(PartyMethod))
    log = math.log(2 * checks.integer("parameters", parameters) / delta)
    scale = float(3 ** checks.integer("weight", weight, 0))
    factor = {
        "shift": 1.0,
        "shadows": 2 * (scale + (scale + 1) * epsilon / 3),
        "bell": 2 / epsilon**2,
    }
    return math.ceil(factor.get(method, 2.0) * log / epsilon**2)


def two_party_cost(
    qubits: int,
    layers: int,
    *,
    method: PartyMethod = "loss",
    shots: int,
    parameters: int | tuple[int, int] = 1,
    groups: int | tuple[int, int] = 1,
    hop: PartyHop = "qubits",
) -> PartyCost:
    """Computes the traffic of the loss, or of its whole gradient.

    With h = 2L hops the loss takes m h n qubits and "shift" 2 m h n for each parameter. The other
    methods take m (4L - s) n for each group of each segment s, twice that for pairs of copies.
    Pauli shadows and Bell pairs read every qubit of a copy by itself, or with its twin, so that
    their ancilla need not travel either: n qubits a hop.

    Args:
      qubits: n, of the register that travels.
      layers: L, of a unitary of Bob's and one of Alice's each.
      method: as for `shots_for`.
      shots: m, as `shots_for` returns it.
      parameters: of each unitary, or a pair: of Alice's and of Bob's. Only "shift" takes more
        qubits for more of them.
      groups: sets of generators of a unitary, each served by copies of its own, or a pair as above:
        for "ancilla" generators that commute, for "shadows" and "bell" all that sit at one place in
        the circuit. Gates that do not commute sit at different places, so that the groups of a
        circuit made of layers are as many for all three.
      hop: "qubits", or "teleported", which takes an EPR pair and two bits for each qubit.

    Returns:
      A `PartyCost`.

    Raises:
      ValueError: if a number is not an integer of at least one, there are more groups than
        parameters, or `method` or `hop` is unknown.

    Reference: our derivation for the model of Gilboa, Michaeli, Soudry and McClean,
    arXiv:2310.07136.

    >>> two_party_cost(3, 2, shots=738).qubits
    8856
    >>> shape = {"qubits": 10, "layers": 4, "shots": 738, "parameters": 20}
    >>> two_party_cost(**shape, method="shift").qubits
    18892800
    >>> two_party_cost(**shape, method="ancilla", groups=2)
    PartyCost(copies=11808, rounds=15, qubits=1357920, pairs=0, bits=0)
    """
    n, L = checks.integer("qubits", qubits), checks.integer("layers", layers)
    checks.one_of("method", method, get_args(PartyMethod))
    checks.one_of("hop", hop, get_args(PartyHop))
    m, of_party = checks.integer("shots", shots), _of_both("parameters", parameters)
    most = zip(_of_both("groups", groups), of_party, strict=True)
    alice, bob = (checks.integer("groups", found, 1, limit) for found, limit in most)
    if method in ("loss", "shift"):
        copies = m if method == "loss" else 2 * m * L * sum(of_party)
        rounds, sent = 2 * L, copies * 2 * L * n
    else:
        m *= 2 if method == "bell" else 1
        copies, rounds = m * L * (alice + bob), 4 * L - 1
        sent = sum((bob if s % 2 else alice) * m * (4 * L - s) * n for s in range(1, 2 * L + 1))
    pairs = sent if hop == "teleported" else 0
    return PartyCost(copies=copies, rounds=rounds, qubits=sent, pairs=pairs, bits=2 * pairs)


def _of_both(argument: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """A count for Alice's unitaries and one for Bob's, each at least one."""
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2:
        checks.refuse(argument, "be an integer or a pair of them", value)
    return checks.integer(argument, pair[0]), checks.integer(argument, pair[1])
